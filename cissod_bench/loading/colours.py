"""Colour operations on 8-bit images by OpenCV: by a table of 256 entries where a value depends on itself only.

mmdet computes the same ones in NumPy on floats and 64-bit numbers, Pillow on copies in its own order of channels.
`tests/loading/test_colours.py` holds these to both, within one grey level. None writes to the image it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Table: TypeAlias = npt.NDArray[np.uint8]

_EVERY = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float64) / 13
# Added before OpenCV rounds: factors have two decimals at most, so a blend of whole numbers is one of hundredths.
_TRUNCATE = -0.495


def looked_up(image: Pixels, table: Table) -> Pixels:
    """Return an image with every value replaced by its entry in ``table``, uint8, shape (256,)."""
    return cast(Pixels, cv2.LUT(image, table))


def solarised(image: Pixels, threshold: float) -> Pixels:
    """Return an image with values from ``threshold`` on inverted; 0 inverts all, 256 none."""
    return looked_up(image, np.where(threshold > _EVERY, _EVERY, 255 - _EVERY).astype(np.uint8))


def posterised(image: Pixels, bits: int) -> Pixels:
    """Return an image that keeps the highest ``bits`` of every value, in [0, 8]; none leaves black."""
    return looked_up(image, (_EVERY >> (8 - bits) << (8 - bits)).astype(np.uint8))


def brightened(image: Pixels, factor: float) -> Pixels:
    """Return an image times ``factor``, in [0, 2]; fractions are cut off."""
    return looked_up(image, _away_from(0, factor))


def contrasted(image: Pixels, factor: float) -> Pixels:
    """Return an image with its distance from its mean grey, a whole number, times ``factor``; fractions are cut off."""
    (mean, *_) = cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))  # type: ignore[misc]  # four numbers
    return looked_up(image, _away_from(round(mean), factor))


def _away_from(middle: int, factor: float) -> Table:
    """Return factor value + (1 - factor) middle for every value, in [0, 255], fractions cut off.

    OpenCV computes it, as it does for mmdet's images: what is a whole number but for rounding goes the same way.
    """
    every = _EVERY.astype(np.float32)
    moved = cv2.addWeighted(every, factor, np.full_like(every, middle), 1 - factor, 0)[:, 0]
    return cast(Table, np.clip(moved, 0, 255).astype(np.uint8))


def auto_contrasted(image: Pixels) -> Pixels:
    """Return an image with the values of each channel stretched to 0 to 255; a channel of one value stays."""
    return _by_channel(image, _stretching)


def _by_channel(image: Pixels, table_of: Callable[[Pixels], Table]) -> Pixels:
    planes = cast(Sequence[Pixels], cv2.split(image))
    return cast(Pixels, cv2.merge([looked_up(plane, table_of(plane)) for plane in planes]))


def _stretching(plane: Pixels) -> Table:
    low, high = (int(value) for value in cv2.minMaxLoc(plane)[:2])
    if low == high:
        return _EVERY.astype(np.uint8)
    scale = 255.0 / (high - low)
    return cast(Table, np.clip(_EVERY * scale - low * scale, 0, 255).astype(np.uint8))


def equalised(image: Pixels) -> Pixels:
    """Return an image with the values of each channel spread so that about as many pixels have each of them."""
    return _by_channel(image, _equalising)


def _equalising(plane: Pixels) -> Table:
    """Return floor((pixels below a value + step / 2) / step); counts are floats, exact up to 2 ** 24 pixels."""
    counts = cv2.calcHist([plane], [0], None, [256], [0, 256])[:, 0].astype(np.int64)
    step = (int(counts.sum()) - int(counts[counts > 0][-1])) // 255
    if not step:
        return _EVERY.astype(np.uint8)
    below = np.cumsum(counts) - counts
    return cast(Table, np.minimum((below + step // 2) // step, 255).astype(np.uint8))


def coloured(image: Pixels, factor: float, *, truncate: bool) -> Pixels:
    """Return an image with its distance from its own grey times ``factor``, in [0, 2].

    Args:
        image: blue, green, red, uint8, shape (H, W, 3).
        factor: 0 is grey, 1 the image.
        truncate: whether fractions are cut off, as by Pillow, or rounded, as by mmdet.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cast(Pixels, cv2.addWeighted(image, factor, grey, 1 - factor, _TRUNCATE if truncate else 0.0))


def sharpened(image: Pixels, factor: float, *, keep_frame: bool) -> Pixels:
    """Return an image with its distance from its smoothed copy times ``factor``, in [0, 2]; fractions are cut off.

    Args:
        image: uint8, shape (H, W, 3).
        factor: 0 is smoothed, 1 the image.
        keep_frame: whether pixels at the border stay, as in Pillow, or see the image mirrored, as in mmdet.
    """
    smooth = cv2.filter2D(image, -1, _SMOOTH)
    sharp = cast(Pixels, cv2.addWeighted(image, factor, smooth, 1 - factor, _TRUNCATE))
    if keep_frame:
        sharp[[0, -1]], sharp[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return sharp
