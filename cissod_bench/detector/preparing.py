"""Views as a model takes them: normalised, padded and in one batch, with samples of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.utils import samplelist_boxtype2tensor
from mmdet.structures import DetDataSample
from torch import Tensor

from cissod_bench.detector.memory_format import format_of


def prepared(preprocessor: Any, views: Sequence[dict[str, Any]]) -> tuple[Tensor, list[DetDataSample]]:
    """Return a batch of images, float32, shape (B, 3, H, W), and its samples with ``batch_input_shape``, ``pad_shape``.

    The same numbers as mmdet's preprocessor, which makes three copies of every image and takes their sizes for tensors.
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
    moved = [sample.to(device, non_blocking=preprocessor._non_blocking) for sample in samples]
    for sample, size in zip(moved, sizes, strict=True):
        sample.set_metainfo({"batch_input_shape": (height, width), "pad_shape": size})
    samplelist_boxtype2tensor(moved)
    return batch, moved
