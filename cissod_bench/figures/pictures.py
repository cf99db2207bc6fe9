"""Images with boxes: what a model found, missed and mistook, marked by colour, by stroke and by a sign.

A dashed box was annotated, a solid one detected. The same function draws a picture for the page and for print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cissod_bench.figures.drawing import PAGE, WIDTHS, Drawing, axes_at, show
from cissod_bench.figures.style import BROWN, GREEN, INK, MARKS, NAVY, PLUM, SOFT, VERMILLION, WHITE, fitted, printable
from cissod_bench.scoring.confusions import BACKGROUND, FOUND, MISSED, POOR, WRONG_CLASS
from cissod_bench.scoring.error_types import IGNORED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.uint8]
"""An image: blue, green, red, (height, width, 3)."""

ROLES = ("most frequent", "rarest", "between")
"""Kinds of boxes that no model has looked at: by the part that their class's group plays (``reporting.groups``)."""
PSEUDO_LABEL = "pseudo label"
"""Kind of a pseudo label that no hidden box is known to judge by."""

_LONGEST = 320  # pixels of a thumbnail's longer side
_TALL, _WIDE = 1.6, 2.15  # inches: as large as a picture is on the page, so that those side by side are of one height
_HEAD = 0.19  # inches for the title above
_SIZE, _LETTER = 6.0, 0.66  # of a label: points, and the width of a bold letter by its size, on average
_LINE, _TRIES = 8.4, 5  # points that a label is high; how often it gives way to another one
_DASHES = (0, (3.2, 1.8))


@dataclass(frozen=True)
class Sign:
    """How a kind of box is marked: its colour, and what stands before its class."""

    colour: str
    sign: str


SIGNS: Mapping[str, Sign] = MappingProxyType(
    {
        FOUND: Sign(GREEN, "✓"),
        MISSED: Sign(VERMILLION, "!"),
        WRONG_CLASS: Sign(PLUM, "≠"),
        BACKGROUND: Sign(NAVY, "×"),
        POOR: Sign(BROWN, "~"),
        IGNORED: Sign(SOFT, "…"),
        PSEUDO_LABEL: Sign(NAVY, ""),
        **{kind: Sign(mark.colour, "") for kind, mark in zip(ROLES, MARKS, strict=True)},
    }
)
"""Kind of a box -> its mark."""


@dataclass(frozen=True)
class DrawnBox:
    """A box of a picture.

    Attributes:
        box: x, y, width, height in pixels of the image.
        kind: one of ``SIGNS``.
        name: of its class.
        score: of a detection, 0-1; None for an annotated box.
        quiet: without a label, which another box has.
        words: what the mouse shows in place of the kind.
    """

    box: tuple[float, float, float, float]
    kind: str
    name: str
    score: float | None = None
    quiet: bool = False
    words: str = ""

    @property
    def dashed(self) -> bool:
        """Whether it is annotated in a picture that also has detections, or an ignore region."""
        return self.score is None and self.kind not in ROLES

    @property
    def label(self) -> str:
        """What stands beside it: sign, class and score."""
        score = "" if self.score is None else f" {self.score:.2f}".replace("0.", ".")
        return f"{SIGNS[self.kind].sign} {self.name}{score}".strip()

    @property
    def tip(self) -> str:
        """What the mouse shows."""
        made = "annotated" if self.score is None else f"detected, score {self.score:.2f}"
        return f"{self.name}: {self.words or self.kind}, {made}"


@dataclass(frozen=True)
class Picture:
    """An image with boxes, read when it is drawn.

    Attributes:
        title: above it.
        width, height: of the image, pixels.
        read: returns the image; raises ``DataFault`` where it cannot be read.
        boxes: drawn in this order.
    """

    title: str
    width: int
    height: int
    read: Callable[[], Pixels]
    boxes: tuple[DrawnBox, ...]

    @property
    def label(self) -> str:
        """What it shows, for those who cannot see it."""
        told = "; ".join(f"{box.name} {box.kind}" for box in self.boxes if not box.quiet)
        return f"{self.title}: {told or 'no box'}"


def picture_drawing(picture: Picture) -> Drawing:
    """Return one picture as a drawing, which the page alone shows."""

    def draw(_: str) -> Figure:
        from matplotlib.figure import Figure

        scale = min(_TALL / picture.height, _WIDE / picture.width)
        wide, tall = max(scale * picture.width, 0.8), max(scale * picture.height, 0.4)
        figure = Figure(figsize=(wide, tall + _HEAD))
        draw_picture(axes_at(figure, 0, 0, wide, tall), picture, 72 * wide)
        return figure

    return Drawing(picture.label, draw)


def row_drawing(label: str, pictures: Sequence[Picture], stem: str, across: int = 4) -> Drawing:
    """Return pictures side by side as one drawing for print; those of a row have one height."""

    def draw(place: str) -> Figure:
        from matplotlib.figure import Figure

        width, number = WIDTHS[place], across if place in ("", PAGE) else 2
        gap, rows = 0.06, [pictures[start : start + number] for start in range(0, len(pictures), number)]
        talls = [(width - gap * (len(row) - 1)) / sum(one.width / one.height for one in row) for row in rows]
        talls = [min(tall, width / number) for tall in talls]
        figure = Figure(figsize=(width, top := sum(talls) + (_HEAD + gap) * len(rows)))
        below = top
        for row, tall in zip(rows, talls, strict=True):
            below, left = below - tall - _HEAD - gap, 0.0
            for picture in row:
                wide = tall * picture.width / picture.height
                draw_picture(axes_at(figure, left, below + gap, wide, tall), picture, 72 * wide)
                left += wide + gap
        return figure

    return Drawing(label, draw, stem)


def draw_picture(axes: Axes, picture: Picture, points: float) -> None:
    """Draw a picture that is so many points wide."""
    axes.imshow(
        thumbnail(picture.read())[:, :, ::-1], interpolation="none", extent=(0, picture.width, picture.height, 0),
        aspect="auto",
    )  # fmt: skip
    axes.set_axis_off()
    (title,), size = fitted([printable(picture.title)], points)
    axes.annotate(
        title, (0, 1), (0, 3), "axes fraction", "offset points", fontsize=min(size, 6.5), color=INK, parse_math=False
    )
    for box in picture.boxes:
        _outline(axes, picture, box)
    taken: list[tuple[float, float, float]] = []
    for box in reversed(picture.boxes):
        if not box.quiet:
            _label(axes, picture, box, points, taken)


def thumbnail(pixels: Pixels) -> Pixels:
    """Return an image whose longer side has at most ``_LONGEST`` pixels."""
    import cv2

    height, width = pixels.shape[:2]
    scale = _LONGEST / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _outline(axes: Axes, picture: Picture, box: DrawnBox) -> None:
    """Draw a box: a light line below the coloured one keeps both apart from any ground."""
    from matplotlib.patches import Rectangle

    x, y = max(box.box[0], 0.0), max(box.box[1], 0.0)
    width, height = (
        min(start + side, float(end)) - low
        for start, side, end, low in zip(box.box[:2], box.box[2:], (picture.width, picture.height), (x, y), strict=True)
    )
    style = _DASHES if box.dashed else "-"
    for colour, line, width_of_line in ((WHITE, "-", 2.2), (SIGNS[box.kind].colour, style, 1.2)):
        patch = Rectangle(
            (x, y), width, height, fill=False, edgecolor=colour, linestyle=line, linewidth=width_of_line,
            alpha=0.75 if colour == WHITE else 1.0,
        )  # fmt: skip
        axes.add_patch(patch)
    show(patch, box.tip)


def _label(axes: Axes, picture: Picture, box: DrawnBox, points: float, taken: list[tuple[float, float, float]]) -> None:
    """Write what a box is: a dashed one's at its lower left corner, that of others at the upper left one.

    Args:
        axes: of the picture.
        picture: that it is in.
        box: what is named.
        points: width of the picture on the page.
        taken: left, top and right end of the labels that are there, points; a label that would lie on one gives way.
    """
    scale, wide = points / picture.width, len(box.label) * _LETTER * _SIZE + 4
    x, y, _, height = box.box
    if not all(map(math.isfinite, box.box)):
        return
    left = max(min(scale * x, points - wide), 0.0)
    top = scale * (min(max(y + height, 0.0), picture.height) if box.dashed else max(y, 0.0)) - _LINE * box.dashed
    for _ in range(_TRIES):
        if not any(abs(top - other) < _LINE and left < end and begin < left + wide for begin, other, end in taken):
            break
        top += -_LINE if box.dashed else _LINE
    taken.append((left, top, left + wide))
    axes.annotate(
        printable(box.label), (left / scale, top / scale), (1.6, -1.6), "data", "offset points", parse_math=False,
        fontsize=_SIZE, va="top", color=SIGNS[box.kind].colour, weight="bold",
        bbox={"facecolor": WHITE, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
    )  # fmt: skip
