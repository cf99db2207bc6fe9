"""Views as a model takes them: normalised, padded and in one batch, with samples of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import BaseDataElement
from torch import Tensor

from cissod_bench.detector.memory_format import format_of

_NAMES = ("_metainfo_fields", "_data_fields")  # of an element's fields, which it has as attributes


def prepared(preprocessor: Any, views: Sequence[dict[str, Any]]) -> tuple[Tensor, list[DetDataSample]]:
    """Return a batch of images, float32, shape (B, 3, H, W), and its samples with ``batch_input_shape``, ``pad_shape``.

    The same numbers as mmdet's preprocessor, which makes three copies of every image, takes their sizes for tensors and
    copies what is told of an image deeply.
    A preprocessor of another kind works as mmdet calls it.

    Args:
        preprocessor: the model's.
        views: ``inputs``, uint8, shape (3, h, w), and ``data_samples``; neither is changed.
    """
    images, samples = [view["inputs"] for view in views], [view["data_samples"] for view in views]
    if type(preprocessor) is not DetDataPreprocessor or not preprocessor._enable_normalize:
        data = preprocessor({"inputs": images, "data_samples": [copy.copy(sample) for sample in samples]}, False)
        return data["inputs"], data["data_samples"]
    unit, device = preprocessor.pad_size_divisor, preprocessor.device
    sizes = [tuple(-(-side // unit) * unit for side in image.shape[1:]) for image in images]
    height, width = (max(of_images) for of_images in zip(*sizes, strict=True))
    shape, layout = (len(images), 3, height, width), format_of(preprocessor, device)
    batch = torch.empty(shape, device=device, memory_format=layout).fill_(float(preprocessor.pad_value))
    for padded, image in zip(batch, images, strict=True):
        on_device = image.to(device, non_blocking=preprocessor._non_blocking)
        inside = padded[:, : image.shape[1], : image.shape[2]]
        inside.copy_(on_device.flip(0) if preprocessor._channel_conversion else on_device)
        inside.sub_(preprocessor.mean).div_(preprocessor.std)
    moved = [_moved(sample, device, preprocessor._non_blocking) for sample in samples]
    for sample, size in zip(moved, sizes, strict=True):
        for name, value in (("batch_input_shape", (height, width)), ("pad_shape", size)):
            sample.set_field(value, name, field_type="metainfo")
    return batch, moved


def _moved(element: Any, device: torch.device, non_blocking: bool) -> Any:
    """Return a sample or instances with their tensors on a device and boxes as tensors; its fields are its own.

    What is told of an image, its meta data, is the same objects, which nobody changes.

    Args:
        element: mmengine's, with elements, tensors and others in it.
        device: where its tensors are to be.
        non_blocking: as `torch.Tensor.to` takes it.
    """
    moved = type(element)()
    fields = vars(moved)
    for name, value in vars(element).items():
        if name in _NAMES:
            fields[name] = set(value)
        elif isinstance(value, BaseDataElement):
            fields[name] = _moved(value, device, non_blocking)
        else:
            plain = value.tensor if isinstance(value, BaseBoxes) else value
            fields[name] = plain.to(device, non_blocking=non_blocking) if hasattr(plain, "to") else plain
    return moved
