"""Detections whose boxes are written in another convention: told by their numbers and by what they hit.

An AP of 0.0 is no message. So the best-scored detections are compared with the boxes of the validation file under each
reading of their four numbers; where another reading hits far more, the file is refused, or warned about where few hit.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from cissod_bench.annotations.box_convention import TO_XYWH, WORDS, BoxNumbers, Floats, Form, corners, relative_remedy
from cissod_bench.errors import DataFault
from cissod_bench.scoring.boxes import Detections, GroundTruth

_MOST = 20_000  # detections that are compared
_RATIO = 4  # hits under another reading for one as the boxes stand
_SURE, _LIKELY = 8, 3  # hits; fewer than the latter are chance,
_SHARE = 0.05  # and so is a smaller share of what could be hit
_IOU = 0.5


def check_readings(truth: GroundTruth, found: Detections, where: str) -> None:
    """Refuse or warn of detections that are not x, y, width, height in pixels.

    Args:
        truth: what they are scored against.
        found: all detections.
        where: their file, for the message.

    Raises:
        DataFault: they are relative to their image, or hit the boxes of the file under another reading only.
    """
    best = np.zeros(len(found.scores), np.bool_)
    best[np.argsort(-found.scores, kind="stable")[:_MOST]] = True
    some = found.only(best)
    sizes = _sizes(truth)[some.image]
    known = np.isfinite(sizes[:, 0]) & np.isfinite(sizes[:, 1])
    numbers = BoxNumbers()
    numbers.add(some.boxes[known], sizes[known])
    rule = f"{where}: bbox must be [x, y, width, height] in pixels."
    if forms := numbers.relative():
        scale = np.where(known[:, None], sizes, 1.0)
        hits: dict[Form, int] = {form: _hits(truth, some, form, scale) for form in WORDS}
        form = max(hits, key=hits.__getitem__) if any(hits.values()) else forms[0]
        raise DataFault(
            f"{rule} All numbers of {numbers.within_one:,} of {numbers.total:,} boxes are between 0 and 1: they are "
            f"relative to the image, and fit as {WORDS[form]}.",
            remedy=relative_remedy(form),
        )
    as_is = _hits(truth, some, "xywh")
    others: dict[Form, int] = {form: _hits(truth, some, form) for form in ("xyxy", "cxcywh")}
    form = max(others, key=others.__getitem__)
    if others[form] < max(_LIKELY, _RATIO * as_is, _SHARE * min(len(some.scores), len(truth.image))):
        return
    told = (
        f"{rule} Read that way {as_is:,} of the {len(some.scores):,} best-scored detections hit a box of their class; "
        f"read as {WORDS[form]} {others[form]:,} do."
    )
    if others[form] >= _SURE:
        raise DataFault(told, remedy=TO_XYWH[form])
    warnings.warn(f"{told} If they are, {TO_XYWH[form]}.", stacklevel=2)


def _sizes(truth: GroundTruth) -> Floats:
    """Return width and height of the images, or what their boxes show them to have at least; NaN where nothing does."""
    sizes = np.full((len(truth.image_ids), 2), -np.inf)
    np.maximum.at(sizes, truth.image, truth.boxes[:, :2] + truth.boxes[:, 2:])
    sizes[~np.isfinite(sizes).all(axis=1)] = np.nan
    return sizes if truth.sizes is None else np.where(np.isfinite(truth.sizes), truth.sizes, sizes)


def _hits(truth: GroundTruth, found: Detections, form: Form, scale: Floats | None = None) -> int:
    """Return how many detections overlap a box of their image and class by half, under a reading."""
    classes = len(truth.class_ids)
    keys = truth.image * classes + truth.channel
    order = np.argsort(keys, kind="stable")
    wanted = found.image * classes + found.channel
    begin, end = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
    pairs = np.repeat(np.arange(len(wanted)), end - begin)
    within = np.arange(len(pairs)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
    boxes = found.boxes if scale is None else found.boxes * np.concatenate([scale, scale], axis=1)
    return len(np.unique(pairs[_overlap(boxes[pairs], truth.boxes[order[begin[pairs] + within]], form) >= _IOU]))


def _overlap(boxes: Floats, others: Floats, form: Form) -> NDArray[np.float64]:
    """Return the IoU of each box with the other one of its row."""
    low, high = corners(boxes, form)
    other_low, other_high = corners(others, "xywh")
    with np.errstate(over="ignore", invalid="ignore"):  # of boxes too large for a float
        shared = np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None).prod(axis=0)
        union = np.clip(high - low, 0, None).prod(axis=0) + (other_high - other_low).prod(axis=0) - shared
        return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), np.float64)
