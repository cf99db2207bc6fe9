"""What becomes of boxes that are not plainly inside their image; ``reading`` states the rules."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cissod_bench.annotations.box_convention import TO_XYWH, Bools, BoxNumbers, Floats
from cissod_bench.errors import DataFault

OUTSIDE_TOLERANCE = 0.5
"""Pixels a box may reach out of its image before it is clipped; COCO's own boxes do so by rounding."""


@dataclass(frozen=True)
class BoxPolicy:
    """What was done about boxes that are not plainly inside their image; ids are those of the annotations.

    Attributes:
        degenerate: dropped, width or height <= 0.
        outside: dropped, no overlap with the image.
        clipped: cut to the image.
        crowd: number of crowd regions kept.
    """

    degenerate: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()
    clipped: tuple[int, ...] = ()
    crowd: int = 0

    def counts(self) -> dict[str, int]:
        """Return how many boxes each rule met."""
        dropped = {"degenerate": len(self.degenerate), "outside": len(self.outside)}
        return {**dropped, "clipped": len(self.clipped), "crowd": self.crowd}


@dataclass(frozen=True)
class Judged:
    """The policy's verdict on each of N boxes.

    Attributes:
        boxes: x, y, width, height after clipping, float64 (N, 4).
        degenerate, outside, clipped: bool (N,); the first two are to be dropped.
    """

    boxes: Floats
    degenerate: Bools
    outside: Bools
    clipped: Bools


def judge(boxes: Floats, sizes: Floats, crowd: Bools) -> Judged:
    """Return what becomes of boxes: crowd regions stay as they are.

    Args:
        boxes: x, y, width, height in pixels, (N, 4).
        sizes: width and height of each box's image, (N, 2).
        crowd: which boxes are crowd regions, (N,).
    """
    low, sides, limits = _coordinates(boxes, sizes)
    high = low + sides
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, limits)
    degenerate = (sides <= 0).any(axis=0) & ~crowd
    outside = (inner_low >= inner_high).any(axis=0) & ~degenerate & ~crowd
    reach = np.maximum(-low, high - limits).max(axis=0)
    clipped = (reach > OUTSIDE_TOLERANCE) & ~degenerate & ~outside & ~crowd
    result = boxes
    if clipped.any():
        result = boxes.copy()
        inner = np.concatenate([inner_low, inner_high - inner_low])[:, clipped].T
        result[clipped] = inner.round(4)  # 640 - 630.37 is 9.629999999999995; the digits behind carry nothing
        vanished = clipped & (result[:, 2:] <= 0).any(axis=1)
        outside, clipped = outside | vanished, clipped & ~vanished
    return Judged(result, degenerate, outside, clipped)


def _coordinates(boxes: Floats, sizes: Floats) -> tuple[Floats, Floats, Floats]:
    """Return corners, sides and image sizes, (2, N) each: along the boxes NumPy is several times as fast."""
    columns = np.ascontiguousarray(boxes.T)
    return columns[:2], columns[2:], np.ascontiguousarray(sizes.T)


@dataclass
class ConventionCheck:
    """Whether the boxes of a file are [x, y, width, height] in pixels, as every reader asks it, block by block.

    Attributes:
        numbers: what the boxes say by themselves.
        reaching: boxes that reach out of their image to the right or below.
        corners: boxes that make sense as corner pairs.
        total: boxes.
    """

    numbers: BoxNumbers = field(default_factory=BoxNumbers)
    reaching: int = 0
    corners: int = 0
    total: int = 0

    def add(self, boxes: Floats, sizes: Floats) -> None:
        """Count boxes that are no crowd regions.

        Args:
            boxes: as they stand in the file, (N, 4).
            sizes: width and height of each box's image, pixels, (N, 2).
        """
        self.numbers.add(boxes, sizes)
        low, other, limits = _coordinates(boxes, sizes + OUTSIDE_TOLERANCE)
        self.reaching += int((low + other > limits).any(axis=0).sum())
        self.corners += int(((other > low) & (other <= limits)).all(axis=0).sum())
        self.total += len(boxes)

    def check(self, where: str) -> None:
        """Refuse boxes that are something else.

        Args:
            where: file and JSON path, for the message.

        Raises:
            DataFault: they are corners, centres or relative to their image.
        """
        fault = self._corner_fault(where) or self.numbers.fault(where)
        if fault is not None:
            raise fault

    def _corner_fault(self, where: str) -> DataFault | None:
        """Return the fault of boxes that are corner pairs [x1, y1, x2, y2], or None.

        Read as x, y, width, height, every box whose centre is in the right or lower half of its image reaches out of
        it: three quarters of evenly spread corner pairs. So: more than half reach out, and nearly all make sense as
        corners. Fewer than three boxes are not judged.
        """
        if self.total < 3 or self.reaching <= 0.5 * self.total or self.corners < 0.95 * self.total:
            return None
        return DataFault(
            f"{where} must be [x, y, width, height] in pixels. Read that way {self.reaching} of {self.total} boxes "
            "reach out of their image, and nearly all make sense as corners [x1, y1, x2, y2].",
            remedy=TO_XYWH["xyxy"],
        )
