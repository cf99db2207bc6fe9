"""One line of a YOLO label file: the number of a class and a box, or an outline, in parts of the image's sides.

* ``class cx cy width height``: a box by its centre;
* ``class x1 y1 x2 y2 x3 y3 ...``: an outline of three or more points; it is read as the box around it. The four corners
  of a box that is turned are such an outline;
* where ``data.yaml`` states ``kpt_shape``, a box is followed by key points, which are not read.
"""

from __future__ import annotations

import math
from typing import NamedTuple

TOLERANCE = 0.01
"""How far a number may lie outside 0 to 1: YOLO's own tools allow as much."""


class YoloObject(NamedTuple):
    """One line.

    Attributes:
        number: of the class, counted from 0.
        corners: left, upper, right and lower side in parts of the image's width and height.
        outline: whether the line is an outline.
    """

    number: int
    corners: tuple[float, float, float, float]
    outline: bool


def read_line(text: str, *, classes: int, key_points: int = 0) -> YoloObject:
    """Return what a line says.

    Args:
        text: the line, not blank.
        classes: the numbers of classes are below it.
        key_points: numbers that follow each box, 0 where there are no key points.

    Raises:
        ValueError: it breaks a rule; the text is the rule, as the end of "line 3: ".
    """
    words = text.split()
    number = _class_number(words[0], classes)
    values = [_number(word) for word in words[1:]]
    if key_points and len(values) == 4 + key_points:
        values = values[:4]
    elif key_points:
        raise ValueError(
            f"behind the class stand a box and key points, {4 + key_points} numbers, and here are {len(values)}"
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            "behind the class stand four numbers (a box) or the points of an outline, at least three pairs, and here "
            f"are {len(values)}"
        )
    if odd := [value for value in values if not -TOLERANCE <= value <= 1 + TOLERANCE]:
        raise ValueError(f"places and sides are parts of the image's width and height, 0 to 1, and {odd[0]:g} is not")
    return YoloObject(number, _corners(values), len(values) > 4)


def _class_number(word: str, classes: int) -> int:
    value = _number(word)
    if value != int(value) or not 0 <= value < classes:
        raise ValueError(f"a line begins with the number of a class, 0 to {classes - 1}, and not with {word!r}")
    return int(value)


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{word!r} is no number")
    return value


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) == 4:
        x, y, width, height = values
        if width < 0 or height < 0:
            raise ValueError(f"the sides of a box are not negative, and here they are {width:g} and {height:g}")
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    across, down = values[::2], values[1::2]
    return min(across), min(down), max(across), max(down)
