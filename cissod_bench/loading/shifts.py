"""Moving an image along its sides without warping it: whole rows and columns are copied and blended."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from cissod_bench.loading.colours import Pixels

_STEPS = 32  # of a pixel: what OpenCV's warping tells apart


def shifted(image: Pixels, right: float, down: float, grey: int) -> Pixels:
    """Return an image moved within its own borders, as ``cv2.warpAffine`` moves it, within one grey level.

    Args:
        image: uint8, shape (H, W, 3).
        right: pixels; between pixels values are interpolated, in steps of 1/32.
        down: likewise.
        grey: of what comes in from outside.
    """
    return _along(_along(image, 1, right, grey), 0, down, grey) if right or down else image.copy()


def _along(image: Pixels, side: int, amount: float, grey: int) -> Pixels:
    """Return an image moved along one side of its shape."""
    # Where in the image a pixel's value comes from, rounded as OpenCV does: to 1/1024, then to 1/32.
    steps = (round(-float(amount) * 1024) + 16) >> 5
    begin, between = steps // _STEPS, steps % _STEPS
    near = _window(image, side, begin, grey)
    if not between:
        return near
    far = _window(image, side, begin + 1, grey)
    return cast(Pixels, cv2.addWeighted(near, 1 - between / _STEPS, far, between / _STEPS, 0))


def _window(image: Pixels, side: int, begin: int, grey: int) -> Pixels:
    """Return an image's rows or columns from ``begin`` on, as many as it has; those outside it are grey."""
    length = image.shape[side]
    before, behind = min(max(-begin, 0), length), min(max(begin, 0), length)
    inside = image[behind : length - before] if side == 0 else image[:, behind : length - before]
    borders = (before, behind, 0, 0) if side == 0 else (0, 0, before, behind)
    if not inside.size:
        return np.full_like(image, grey)
    return cast(Pixels, cv2.copyMakeBorder(inside, *borders, cv2.BORDER_CONSTANT, value=(grey,) * 3))
