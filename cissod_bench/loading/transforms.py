"""Soft Teacher's augmentations as its release draws them; mmdet's of the same names draw other amounts.

mmdet rounds an amount to one decimal, so that its translations are by 0 or 10 % of the side and nothing between; it
shears by tan of the angle and one way at a time, and its colours may be changed by a factor of 0.1 to 1.9.
All randomness comes from NumPy's global generator, as in mmdet's transforms: who calls them seeds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

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
from cissod_bench.loading.samples import Matrix, warp_boxes
from cissod_bench.loading.shifts import shifted
from cissod_bench.loading.views import BORDER

Kind: TypeAlias = Literal["translate-x", "translate-y", "rotate", "shear-x", "shear-y"]

LEVELS = 10
"""Colours change by a level of 1 to 9 tenths of the most that an operation can do."""
COLOURS = (
    "nothing", "auto-contrast", "equalise", "solarise", "colour", "contrast", "brightness", "sharpness", "posterise",
)  # fmt: skip
_PLAIN: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing": lambda image: image,
    "auto-contrast": auto_contrasted,
    "equalise": equalised,
}
_BLENDS: dict[str, Callable[[Pixels, float], Pixels]] = {
    "colour": partial(coloured, truncate=True),
    "contrast": contrasted,
    "brightness": brightened,
    "sharpness": partial(sharpened, keep_frame=True),
}


def warp_matrix(kind: Kind, amount: float, width: int, height: int) -> Matrix:
    """Return the homography from an image to its warped copy of the same size, float32, shape (3, 3).

    Args:
        kind: "translate-x" or "translate-y" by ``amount`` times the image's side; "rotate" by degrees about its centre,
            clockwise; "shear-x" or "shear-y" by tanh of the angle in degrees, about the corner.
        amount: of any sign.
        width: of the image, pixels.
        height: of the image, pixels.
    """
    matrix = np.eye(3)
    angle = math.radians(amount)
    if kind == "translate-x":
        matrix[0, 2] = amount * width
    elif kind == "translate-y":
        matrix[1, 2] = amount * height
    elif kind == "shear-x":
        matrix[0, 1] = math.tanh(angle)
    elif kind == "shear-y":
        matrix[1, 0] = math.tanh(angle)
    else:
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix[:2, 2] = centre - matrix[:2, :2] @ centre
    return matrix.astype(np.float32)


@TRANSFORMS.register_module()
class UniformWarp(BaseTransform):  # type: ignore[misc]
    """Warp image and boxes by an amount drawn uniformly from [-limit, limit], and record the homography.

    Args:
        kind: as `warp_matrix` has it.
        limit: largest amount, > 0.
    """

    def __init__(self, kind: Kind, limit: float) -> None:
        self.kind, self.limit = kind, limit

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return the sample with its image, boxes and homography warped; what comes from outside is grey."""
        height, width = results["img"].shape[:2]
        matrix = warp_matrix(self.kind, np.random.uniform(-self.limit, self.limit), width, height)
        if self.kind in ("translate-x", "translate-y"):
            results["img"] = shifted(results["img"], matrix[0, 2], matrix[1, 2], BORDER)
        else:
            border = (BORDER,) * 3
            results["img"] = cv2.warpAffine(results["img"], matrix[:2], (width, height), borderValue=border)
        warp_boxes(results, matrix)
        return results


def recoloured(image: Pixels, name: str, level: int) -> Pixels:
    """Return the image with one colour operation, uint8, shape (H, W, 3).

    Args:
        image: blue, green, red, uint8, shape (H, W, 3).
        name: of `COLOURS`.
        level: in [1, 9]; a factor is 0.1 + 0.18 level, solarising begins at 25.6 level, posterising keeps
            4 - floor(0.4 level) bits. "nothing", "auto-contrast" and "equalise" have none.
    """
    if name == "solarise":
        return solarised(image, min(level * 256 // LEVELS, 255))
    if name == "posterise":
        return posterised(image, 4 - level * 4 // LEVELS)
    return _PLAIN[name](image) if name in _PLAIN else _BLENDS[name](image, 0.1 + 1.8 * level / LEVELS)


@TRANSFORMS.register_module()
class LevelledColour(BaseTransform):  # type: ignore[misc]
    """Change the colours by one operation of `COLOURS`, drawn uniformly with its level."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return the sample with its image recoloured; boxes stay."""
        name = COLOURS[np.random.randint(len(COLOURS))]
        results["img"] = recoloured(results["img"], name, int(np.random.randint(1, LEVELS)))
        return results
