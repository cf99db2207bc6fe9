"""Whether boxes are [x, y, width, height] in pixels, told from their numbers.

Tools also write corner pairs, centre boxes, and each of the three relative to the image. Read as [x, y, width, height],
such boxes leave their images or lie within one pixel, and under their own reading they fit. A few boxes that reach out
are no sign: true boxes do so by rounding, by truncated objects and by detectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cissod_bench.errors import DataFault

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Form: TypeAlias = Literal["xywh", "xyxy", "cxcywh"]

WORDS: Mapping[Form, str] = MappingProxyType({
    "xywh": "[x, y, width, height]",
    "xyxy": "corners [x1, y1, x2, y2]",
    "cxcywh": "centres [centre x, centre y, width, height]",
})  # fmt: skip
TO_XYWH: Mapping[Form, str] = MappingProxyType({
    "xywh": "",
    "xyxy": "write x2 - x1 and y2 - y1 in place of x2 and y2",
    "cxcywh": "write centre x - width / 2 and centre y - height / 2 in place of the centre",
})  # fmt: skip

_MOST = 1 << 20  # boxes that are looked at; a file has one convention
_FEWEST, _FEWEST_BEYOND = 3, 5
_EXPECTED = 4.0  # misfits by chance that make it a surprise (2 %) when none is seen
_BEYOND, _ALL_BEYOND = 0.05, 0.5  # of the boxes; a true box has its centre in its image, however careless its sides are
_WHOLE = 8  # pixels; images with a shorter side may be filled by a box of one pixel
_TOLERANCE = 1.0  # pixels; centres are rounded
_UNIT_TOLERANCE = 0.02


def corners(boxes: Floats, form: Form) -> tuple[Floats, Floats]:
    """Return the upper left and lower right corners of boxes under a reading, (2, N) each.

    Args:
        boxes: (N, 4).
        form: what the four numbers are.
    """
    first, second = np.ascontiguousarray(boxes.T[:2]), np.ascontiguousarray(boxes.T[2:])
    if form == "xyxy":
        return first, second
    low = first - second / 2 if form == "cxcywh" else first
    return low, low + second


def fits(boxes: Floats, limits: Floats, form: Form, tolerance: float) -> Bools:
    """Return which boxes have an area and are inside their image under a reading, (N,).

    Args:
        boxes: (N, 4).
        limits: width and height of each box's image, (N, 2).
        form: what the four numbers are.
        tolerance: how far they may reach out.
    """
    low, high = corners(boxes, form)
    inside = (high > low) & (low >= -tolerance) & (high <= limits.T + tolerance)
    return np.asarray(inside[0] & inside[1], np.bool_)


@dataclass
class BoxNumbers:
    """What the numbers of boxes say, counted block by block.

    Attributes:
        total: boxes looked at.
        misfits: reading in pixels -> boxes that leave their image or have no area.
        within_one: boxes whose four numbers are between 0 and 1, in images that are larger.
        broken: those of them that are no whole numbers.
        relative_misfits: reading relative to the image -> boxes of those that do not fit.
        expected: how many true [x, y, width, height] of these sizes would misfit as centres, placed at random.
        beyond: boxes whose centre is outside their image.
        exchanged: boxes that leave their image or have no area, read as [y, x, height, width].
    """

    total: int = 0
    misfits: dict[Form, int] = field(default_factory=lambda: dict.fromkeys(WORDS, 0))
    within_one: int = 0
    broken: int = 0
    relative_misfits: dict[Form, int] = field(default_factory=lambda: dict.fromkeys(WORDS, 0))
    expected: float = 0.0
    beyond: int = 0
    exchanged: int = 0

    def add(self, boxes: Floats, sizes: Floats) -> None:
        """Count boxes, up to about a million.

        Args:
            boxes: as they stand in the file, (N, 4).
            sizes: width and height of each box's image, pixels, (N, 2).
        """
        if self.total >= _MOST or not len(boxes):
            return
        self.total += len(boxes)
        for form in self.misfits:
            self.misfits[form] += int((~fits(boxes, sizes, form, _TOLERANCE)).sum())
        self.exchanged += int((~fits(boxes[:, [1, 0, 3, 2]], sizes, "xywh", _TOLERANCE)).sum())
        centre = boxes[:, :2] + boxes[:, 2:] / 2
        self.beyond += int(((centre < -_TOLERANCE) | (centre > sizes + _TOLERANCE)).any(axis=1).sum())
        within = (boxes >= -_UNIT_TOLERANCE) & (boxes <= 1 + _UNIT_TOLERANCE)  # detections leave their image a little
        unit = within.all(axis=1) & (sizes >= _WHOLE).all(axis=1)
        if unit.any():
            inside = boxes[unit]
            self.within_one += len(inside)
            self.broken += int((inside % 1 != 0).any(axis=1).sum())
            for form in self.relative_misfits:
                fitting = fits(inside, np.ones((len(inside), 2)), form, _UNIT_TOLERANCE)
                self.relative_misfits[form] += int((~fitting).sum())
        sides = np.clip(boxes[:, 2:], 0, None)
        leaves = np.clip((sides / 2 - _TOLERANCE) / np.maximum(sizes - sides, 1e-9), 0, 1)
        self.expected += float((1 - (1 - leaves).prod(axis=1)).sum())

    def relative(self) -> tuple[Form, ...]:
        """Return the readings relative to the image that fit best; none where boxes are in pixels."""
        if self.total < _FEWEST or self.within_one < 0.95 * self.total or self.broken < self.within_one / 2:
            return ()
        least = min(self.relative_misfits.values())
        return tuple(form for form, count in self.relative_misfits.items() if count == least)

    def centres(self) -> bool:
        """Return whether boxes are centres.

        True boxes misfit as centres where they are nearer to the left or upper side than half their own: where that was
        to be expected and is not seen, while boxes leave their images as they stand, they are centres.
        """
        leaving = self.misfits["xywh"]
        seldom = self.misfits["cxcywh"] <= leaving / 10
        return seldom and self.expected >= _EXPECTED and leaving >= max(_EXPECTED, self.expected / 4)

    def fault(self, where: str) -> DataFault | None:
        """Return the fault of boxes that are not [x, y, width, height] in pixels, or None.

        Args:
            where: file and JSON path, for the message.
        """
        rule = f"{where} must be [x, y, width, height] in pixels."
        if forms := self.relative():
            read = " or ".join(WORDS[form] for form in forms)
            return DataFault(
                f"{rule} All numbers of {self.within_one:,} of {self.total:,} boxes are between 0 and 1: they are "
                f"relative to the image, and fit as {read}.",
                remedy=relative_remedy(forms[0]),
            )
        if self.centres():
            return DataFault(
                f"{rule} Read that way {self.misfits['xywh']:,} of {self.total:,} boxes reach out of their image; read "
                f"as {WORDS['cxcywh']} {self.misfits['cxcywh']:,} do.",
                remedy=TO_XYWH["cxcywh"],
            )
        return self._elsewhere(rule)

    def _elsewhere(self, rule: str) -> DataFault | None:
        """Return the fault of boxes of which many are not where their images are, or None.

        Args:
            rule: which boxes, and what they must be.
        """
        leaving = self.misfits["xywh"]
        if self.beyond < _FEWEST_BEYOND:
            return None
        told = f"{rule} Read that way {self.beyond:,} of {self.total:,} boxes have their centre outside their image"
        if self.beyond > _BEYOND * self.total and self.exchanged <= leaving / 10:
            return DataFault(
                f"{told} and {leaving:,} reach out of it; read as [y, x, height, width] {self.exchanged:,} do.",
                remedy="write the first two numbers in the other order, and the last two",
            )
        if self.beyond > _ALL_BEYOND * self.total:
            return DataFault(
                f"{told}, and no other reading fits: they belong to larger images than width and height say.",
                remedy="scale boxes as the images were scaled, or state the width and height that the boxes refer to",
            )
        return None


def relative_remedy(form: Form) -> str:
    """Return what to write in place of boxes relative to their image."""
    scale = "multiply the first and third number by the image's width, the second and fourth by its height"
    return f"{scale}, and {TO_XYWH[form]}" if TO_XYWH[form] else scale
