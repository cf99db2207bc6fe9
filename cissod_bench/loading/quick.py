"""mmdet's transforms of a view, of the same names in a pipeline, with less work: same draws, same pixels and boxes.

What costs time in mmdet's: colours in NumPy on floats and 64-bit numbers, flipped images that are copied later element
by element, samples whose metadata is copied deeply, and for small images the bookkeeping around every step. All numbers
are drawn from NumPy's global generator as mmdet draws them, in its order. A step reads and returns what a view has and
no more: image, boxes, labels, flags. `tests/loading/test_quick.py` runs every view both ways from one random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import cv2
import mmcv
import numpy as np
import numpy.typing as npt
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from cissod_bench.loading.colours import (
    Pixels,
    auto_contrasted,
    brightened,
    coloured,
    contrasted,
    equalised,
    posterised,
    sharpened,
    solarised,
)  # fmt: skip
from cissod_bench.loading.samples import Sample, keep_boxes, numbers_of, record, warp_boxes
from cissod_bench.loading.shifts import shifted

# mmdet's operation -> least and most amount, and what it does with one.
_COLOURS: dict[str, tuple[float, float, Callable[[Pixels, float], Pixels]]] = {
    "ColorTransform": (0.1, 1.9, lambda image, amount: image),
    "AutoContrast": (0.1, 1.9, lambda image, amount: auto_contrasted(image)),
    "Equalize": (0.1, 1.9, lambda image, amount: equalised(image)),
    "Sharpness": (0.1, 1.9, partial(sharpened, keep_frame=False)),
    "Posterize": (0.0, 4.0, lambda image, amount: posterised(image, math.ceil(amount))),
    "Solarize": (0.0, 256.0, solarised),
    "Color": (0.1, 1.9, partial(coloured, truncate=False)),
    "Contrast": (0.1, 1.9, contrasted),
    "Brightness": (0.1, 1.9, brightened),
}
_GEOMETRY = {"Rotate": 30.0, "ShearX": 30.0, "ShearY": 30.0, "TranslateX": 0.1, "TranslateY": 0.1}  # most


class Resize(BaseTransform):  # type: ignore[misc]
    """mmdet's: enlarge or shrink an image, as large as its sides may be; its boxes with it, cut off at its border."""

    def __init__(self, scale: tuple[int, int], keep_ratio: bool = True) -> None:
        assert keep_ratio
        self.scale = scale

    def transform(self, sample: Sample) -> Sample:
        """Return the sample with an image of its own, which later steps may write to."""
        return resized(sample, self.scale)


def resized(sample: Sample, scale: tuple[int, int]) -> Sample:
    """Return a sample whose image is as large as it may be: its longer side at most the larger number of ``scale``.

    A side keeps a pixel at least, which mmdet's does not: pictures of lines, a thousand times as long as high, lie in
    folders of the web.
    """
    height, width = sample["img"].shape[:2]
    wide, high = mmcv.rescale_size((width, height), scale)
    size = max(wide, 1), max(high, 1)
    factors = (size[0] / width, size[1] / height)
    sample["img"] = cv2.resize(sample["img"], size, interpolation=cv2.INTER_LINEAR)
    sample |= {"scale": scale, "keep_ratio": True, "scale_factor": factors, "img_shape": (size[1], size[0])}
    if "gt_bboxes" in sample:
        boxes = numbers_of(sample["gt_bboxes"])
        boxes *= np.array(factors * 2, np.float32)
        np.clip(boxes, 0, np.array(size * 2, np.float32), out=boxes)
    record(sample, np.array([[factors[0], 0, 0], [0, factors[1], 0], [0, 0, 1]], np.float32))
    return sample


class RandomResize(BaseTransform):  # type: ignore[misc]
    """mmdet's: resize to sides drawn from all whole numbers between two sizes."""

    def __init__(self, scale: Sequence[tuple[int, int]], keep_ratio: bool = True) -> None:
        assert keep_ratio
        self.ranges = [(min(sides), max(sides) + 1) for sides in zip(*scale, strict=True)]

    def transform(self, sample: Sample) -> Sample:
        """Return the sample resized."""
        drawn = [int(np.random.randint(least, end)) for least, end in self.ranges]
        return resized(sample, (drawn[0], drawn[1]))


class RandomFlip(BaseTransform):  # type: ignore[misc]
    """mmdet's: mirror left and right with a probability."""

    def __init__(self, prob: float) -> None:
        self.prob = prob

    def transform(self, sample: Sample) -> Sample:
        """Return the sample, flipped or not."""
        flips = np.random.random_sample() < self.prob
        sample |= {"flip": flips, "flip_direction": "horizontal" if flips else None}
        if flips:
            width = sample["img"].shape[1]
            sample["img"] = cv2.flip(sample["img"], 1)
            if "gt_bboxes" in sample:
                boxes = numbers_of(sample["gt_bboxes"])
                boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
            record(sample, np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]], np.float32))
        return sample


class Colour(BaseTransform):  # type: ignore[misc]
    """mmdet's operations on colours at a random level, which is rounded to one decimal."""

    def __init__(self, name: str) -> None:
        self.least, self.most, self.operation = _COLOURS[name]

    def transform(self, sample: Sample) -> Sample:
        """Return the sample with its image recoloured; boxes stay."""
        np.random.rand()  # whether mmdet's is left out, which has the probability 0
        amount = round(np.random.rand() * (self.most - self.least) + self.least, 1)
        sample["img"] = self.operation(sample["img"], amount)
        return sample


class Geometry(BaseTransform):  # type: ignore[misc]
    """mmdet's operations on geometry at a random level, which is rounded to one decimal; what comes in is grey."""

    GREY = 128

    def __init__(self, name: str) -> None:
        self.name, self.most = name, _GEOMETRY[name]

    def _amount(self) -> float:
        np.random.rand()  # whether mmdet's is left out, which has the probability 0
        amount = round(np.random.rand() * self.most, 1)
        if self.name in ("ShearX", "ShearY"):
            amount = math.tan(math.radians(amount))
        return -amount if np.random.rand() > 0.5 else amount

    def transform(self, sample: Sample) -> Sample:
        """Return the sample with image and boxes moved."""
        height, width = sample["img_shape"]
        matrix = _affine(self.name, self._amount(), height, width)
        if self.name in ("TranslateX", "TranslateY"):
            sample["img"] = shifted(sample["img"], matrix[0, 2], matrix[1, 2], self.GREY)
        else:
            sample["img"] = cv2.warpAffine(sample["img"], matrix, (width, height), borderValue=(self.GREY,) * 3)
        warp_boxes(sample, np.concatenate([matrix, [[0, 0, 1]]]).astype(np.float32))
        return sample


def _affine(name: str, amount: float, height: int, width: int) -> npt.NDArray[np.floating[Any]]:
    """Return the affine map of pixels, shape (2, 3), as mmdet has it: float32, a rotation float64."""
    if name == "Rotate":
        centre = ((width - 1) * 0.5, (height - 1) * 0.5)
        return cast("npt.NDArray[np.float64]", cv2.getRotationMatrix2D(centre, -amount, 1.0))
    matrix = np.eye(2, 3, dtype=np.float32)
    place = {"TranslateX": (0, 2), "TranslateY": (1, 2), "ShearX": (0, 1), "ShearY": (1, 0)}[name]
    side = {"TranslateX": width, "TranslateY": height}.get(name)
    matrix[place] = amount if side is None else int(side * amount)
    return matrix


class RandAugment(BaseTransform):  # type: ignore[misc]
    """mmdet's: some operations out of many, none twice, each at a random level."""

    def __init__(self, aug_space: Sequence[Sequence[dict[str, Any]]], aug_num: int) -> None:
        self.operations, self.number = [_operation(settings) for (settings,) in aug_space], aug_num

    def transform(self, sample: Sample) -> Sample:
        """Return the sample after its operations."""
        for place in np.random.choice(len(self.operations), self.number, replace=False):
            sample = self.operations[place](sample)
        return sample


def _operation(settings: dict[str, Any]) -> Any:
    """Return an operation by mmdet's name."""
    name = settings["type"]
    assert len(settings) == 1, "no operation has settings of its own here"
    return Colour(name) if name in _COLOURS else Geometry(name)


class RandomOrder(BaseTransform):  # type: ignore[misc]
    """mmdet's: all of some steps, in an order drawn."""

    def __init__(self, transforms: Sequence[dict[str, Any]]) -> None:
        self.steps = [TRANSFORMS.build(settings) for settings in transforms]

    def transform(self, sample: Sample) -> Sample:
        """Return the sample after all steps."""
        for place in np.random.permutation(len(self.steps)):
            sample = self.steps[place](sample)
        return sample


class RandomChoice(BaseTransform):  # type: ignore[misc]
    """mmcv's: one of some lists of steps."""

    def __init__(self, transforms: Sequence[Sequence[dict[str, Any]]]) -> None:
        self.lists = [[TRANSFORMS.build(settings) for settings in steps] for steps in transforms]

    def transform(self, sample: Sample) -> Sample:
        """Return the sample after the steps of the list drawn."""
        for step in self.lists[np.random.choice(len(self.lists))]:
            sample = step(sample)
        return sample


class RandomErasing(BaseTransform):  # type: ignore[misc]
    """mmdet's: grey rectangles, each with the same share of the image's height and width; boxes nearly covered go.

    It writes to the image, which is the sample's own since `Resize`.
    """

    COVERED = 0.9  # of a box's area, the sum over rectangles

    def __init__(self, n_patches: tuple[int, int], ratio: tuple[float, float], img_border_value: int = 128) -> None:
        self.numbers, self.ratio, self.grey = n_patches, ratio, img_border_value

    def _patches(self, height: int, width: int) -> npt.NDArray[np.int64]:
        """Return corners x1, y1, x2, y2 of the rectangles, shape (P, 4)."""
        least, most = self.ratio
        patches = []
        for _ in range(np.random.randint(self.numbers[0], self.numbers[1] + 1)):
            share = np.random.random() * (most - least) + least
            tall, wide = int(height * share), int(width * share)
            left = np.random.randint(0, width - wide)
            top = np.random.randint(0, height - tall)
            patches.append([left, top, left + wide, top + tall])
        return np.array(patches, np.int64).reshape(-1, 4)

    def transform(self, sample: Sample) -> Sample:
        """Return the sample with its rectangles."""
        patches = self._patches(*sample["img_shape"])
        for left, top, right, bottom in patches.tolist():
            sample["img"][top:bottom, left:right] = self.grey
        if "gt_bboxes" in sample and len(sample["gt_bboxes"]):
            boxes = numbers_of(sample["gt_bboxes"])
            corners = np.minimum(boxes[:, None, 2:], patches[:, 2:]) - np.maximum(boxes[:, None, :2], patches[:, :2])
            sides = np.maximum(corners, 0)
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            covered = (sides[:, :, 0] * sides[:, :, 1]).sum(-1) / (areas + 1e-7)
            keep_boxes(sample, np.asarray(covered < self.COVERED))
        return sample


class FilterAnnotations(BaseTransform):  # type: ignore[misc]
    """mmdet's: boxes that are too small go, be it the last."""

    def __init__(self, min_gt_bbox_wh: tuple[float, float], keep_empty: bool) -> None:
        assert not keep_empty, "in mmdet's words: an image without boxes is kept"
        self.least = np.array(min_gt_bbox_wh, np.float32)

    def transform(self, sample: Sample) -> Sample:
        """Return the sample without its small boxes."""
        boxes = numbers_of(sample["gt_bboxes"])
        keep_boxes(sample, np.asarray((boxes[:, 2:] - boxes[:, :2] > self.least).all(axis=1)))
        return sample


class PackDetInputs(BaseTransform):  # type: ignore[misc]
    """mmdet's: the image as a tensor, uint8, shape (3, H, W), and a ``DetDataSample`` with what is true of it."""

    def __init__(self, meta_keys: Sequence[str]) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, sample: Sample) -> Sample:
        """Return ``inputs`` and ``data_samples``."""
        image = sample["img"]
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        cv2.split(image, list(planes))
        packed = DetDataSample()
        ignored = sample["gt_ignore_flags"]
        packed.gt_instances = _instances(sample, ~ignored)
        packed.ignored_instances = _instances(sample, ignored)
        for key in self.meta_keys:
            if key in sample:
                packed.set_field(sample[key], key, field_type="metainfo")
        return {"inputs": torch.from_numpy(planes), "data_samples": packed}


def _instances(sample: Sample, chosen: npt.NDArray[np.bool_]) -> InstanceData:
    instances = InstanceData()  # its own way to set a field checks every length again
    boxes = numbers_of(sample["gt_bboxes"])[chosen]
    instances.set_field(HorizontalBoxes(boxes, clone=False), "bboxes")
    instances.set_field(torch.from_numpy(sample["gt_bboxes_labels"][chosen]), "labels")
    return instances


_STEPS = (
    Resize, RandomResize, RandomFlip, RandomOrder, RandomChoice, RandAugment, RandomErasing, FilterAnnotations,
    PackDetInputs,
)  # fmt: skip
QUICK: dict[str, type] = {kind.__name__: kind for kind in _STEPS}
"""Name in a pipeline -> what is built in place of mmdet's class."""
