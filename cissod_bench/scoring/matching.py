"""Detections compared with the boxes they were to find, at one IoU: which found one, and what the others lie on.

By COCO's rules: of a class and image the best-scored detection goes first and takes the free box of its class that it
overlaps most. A crowd region needs not be found, and a detection that fits nothing else does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cissod_bench.scoring.boxes import Detections, GroundTruth, areas

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FITS = 0.5
"""IoU from which a detection lies on a box."""
RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO takes the precision."""


@dataclass(frozen=True)
class Nearest:
    """The box of one kind that each detection overlaps most: its row, -1 where there is none, and the IoU; (D,)."""

    row: Ints
    iou: Floats


@dataclass(frozen=True)
class Matching:
    """D detections and N boxes, compared.

    Attributes:
        truth: the boxes.
        found: the detections that count, best score first over all images.
        taken: row of the box that each found, -1 where it found none, (D,).
        ignored: detections that lie on a crowd region of their class and count neither way, (D,).
        same: of the boxes of its class, taken or not.
        other: of the boxes of other classes.
    """

    truth: GroundTruth
    found: Detections
    taken: Ints
    ignored: Bools
    same: Nearest
    other: Nearest

    @property
    def hit(self) -> Bools:
        """Which boxes were found, (N,)."""
        hit = np.zeros(len(self.truth.image), np.bool_)
        hit[self.taken[self.taken >= 0]] = True
        return hit

    @property
    def wrong(self) -> Bools:
        """Which detections found no box and count all the same, (D,)."""
        return (self.taken < 0) & ~self.ignored


def match(truth: GroundTruth, found: Detections, max_dets: int = 100) -> Matching:
    """Compare detections with boxes.

    Args:
        truth: the boxes.
        found: all detections, in the order of their file, which breaks ties.
        max_dets: the best-scored that count, of an image and class.
    """
    found = counted(found, len(truth.class_ids), max_dets)
    columns = _Columns(len(found.scores))
    by_image, of_box = _places(found.image, len(truth.image_ids)), _places(truth.image, len(truth.image_ids))
    for rows, boxes in zip(by_image, of_box, strict=True):
        if len(rows) and len(boxes):
            columns.compare(truth, found, rows, boxes)
    return Matching(
        truth,
        found,
        columns.taken,
        columns.ignored,
        Nearest(columns.same_row, columns.same_iou),
        Nearest(columns.other_row, columns.other_iou),
    )


def counted(found: Detections, classes: int, max_dets: int) -> Detections:
    """Return the best-scored detections of every image and class, best first over all; ties by image, then by file."""
    order = np.lexsort((found.image, -found.scores))  # stable: what is left of a tie stays in the order of the file
    key = (found.image * classes + found.channel)[order]
    by_key = np.argsort(key, kind="stable")
    rank = np.empty(len(key), np.int64)
    rank[by_key] = np.arange(len(key)) - np.searchsorted(key[by_key], key[by_key])
    kept = order[rank < max_dets]
    return Detections(found.image[kept], found.channel[kept], found.boxes[kept], found.scores[kept])


def _places(image: Ints, images: int) -> list[Ints]:
    """Return the rows of every image, in their order."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.cumsum(np.bincount(image, minlength=images))[:-1]) if images else []


@dataclass
class _Columns:
    """The columns of a ``Matching`` in the making."""

    number: int
    taken: Ints = field(init=False)
    ignored: Bools = field(init=False)
    same_row: Ints = field(init=False)
    same_iou: Floats = field(init=False)
    other_row: Ints = field(init=False)
    other_iou: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.taken, self.same_row, self.other_row = (np.full(self.number, -1, np.int64) for _ in range(3))
        self.same_iou, self.other_iou = (np.zeros(self.number) for _ in range(2))
        self.ignored = np.zeros(self.number, np.bool_)

    def compare(self, truth: GroundTruth, found: Detections, rows: Ints, boxes: Ints) -> None:
        """Compare the detections ``rows`` of an image, best first, with its ``boxes``."""
        crowd = truth.crowd[boxes]
        iou = overlaps(found.boxes[rows], truth.boxes[boxes], crowd)
        same = found.channel[rows][:, None] == truth.channel[boxes]
        self._take(rows, boxes, np.where(same, iou, 0.0), crowd)
        for mask, place, value in (
            (same & ~crowd, self.same_row, self.same_iou),
            (~same & ~crowd, self.other_row, self.other_iou),
        ):
            reach = np.where(mask, iou, 0.0)
            best = reach.argmax(axis=1)
            value[rows] = reach[np.arange(len(rows)), best]
            place[rows] = np.where(value[rows] > 0, boxes[best], -1)

    def _take(self, rows: Ints, boxes: Ints, iou: Floats, crowd: Bools) -> None:
        """Give each detection the free box of its class that it overlaps most; ``iou`` is 0 with other classes."""
        free = ~crowd
        for row, reach in zip(rows.tolist(), iou, strict=True):
            if reach.max() < FITS:
                continue
            open_to = np.where(free, reach, 0.0)
            best = len(open_to) - 1 - int(open_to[::-1].argmax())  # of equal ones the last, as COCO's scorer does
            if open_to[best] >= FITS:
                self.taken[row], free[best] = boxes[best], False
            else:
                self.ignored[row] = bool((reach[crowd] >= FITS).any())


def overlaps(boxes: Floats, others: Floats, crowd: Bools) -> Floats:
    """Return the IoU of every box with every other, (D, N); with a crowd region the share of the box that lies in it.

    Args:
        boxes: x, y, width, height, (D, 4).
        others: likewise, (N, 4).
        crowd: which of the others are crowd regions, (N,).
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    own = areas(boxes)[:, None]
    whole = np.where(crowd, own, own + areas(others) - shared)
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0), np.float64)


def average_precision(correct: Bools, boxes: int) -> float | None:
    """Return the AP of a class at one IoU in points, None where it has no box: the mean of 101 precisions.

    Args:
        correct: whether each detection found a box, best score first, (M,).
        boxes: how many there are to find.
    """
    if boxes < 1:
        return None
    hits = np.cumsum(correct)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    place = np.searchsorted(hits / boxes, RECALLS, side="left")
    return 100 * float(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())
