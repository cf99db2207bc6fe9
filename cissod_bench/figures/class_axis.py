"""What stands below an axis of classes: their names where few of them fit, else a few round places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cissod_bench.figures.style import cut, fitted, printable

_NAMED = 12  # classes up to which each has a label of its own, its name where that fits
_TURNED = 24  # classes up to which names stand upright where they do not fit side by side
_LINE = 7.5  # points from one upright name to the next, at least
_LONGEST = 18  # letters of an upright name; longer ones are cut
_LETTER = 0.048  # inches that a letter of an upright name takes, on average
_INDEX = 0.08  # inches that an index takes


@dataclass(frozen=True)
class AxisLabels:
    """What stands below the classes of a panel.

    Attributes:
        names: of the classes, as they are shown; empty where their indices are.
        turned: whether they stand upright.
    """

    names: Sequence[str]
    turned: bool = False

    @property
    def taller(self) -> float:
        """Inches that they take more than indices do."""
        return max(0.0, _LETTER * max(map(len, self.names)) - _INDEX) if self.turned else 0.0


def axis_labels(names: Sequence[str], points: float, *, turned: bool) -> AxisLabels:
    """Return the labels of an axis: names side by side, else upright if they may be, else indices.

    Args:
        names: of the classes, in the order of the axis.
        points: the width of all classes together.
        turned: whether names may stand upright, for which the panel has to be taller.
    """
    if fitting := class_names(names, points):
        return AxisLabels(fitting)
    upright = turned_names(names, points) if turned else []
    return AxisLabels(upright, turned=bool(upright))


def class_ticks(count: int) -> list[int]:
    """Return all places of an axis of few classes, else some round ones, the first and the last among them."""
    if count <= _NAMED:
        return list(range(1, count + 1))
    steps = (10**power * digit for power in range(9) for digit in (1, 2, 4, 5))
    step = next(step for step in steps if count / step <= 5)
    return sorted({1, count, *(place for place in range(step, count, step) if count - place > 0.7 * step)})


def class_names(names: Sequence[str], points: float) -> list[str]:
    """Return the names of few classes, or none where one of them would not fit beside the next.

    Args:
        names: in the order of the axis.
        points: the width of all classes together.
    """
    names = [printable(name) for name in names]
    if len(names) > _NAMED:
        return []
    shown, size = fitted([f"{name} " for name in names], points / len(names))
    return names if size >= 6 and shown == [f"{name} " for name in names] else []


def turned_names(names: Sequence[str], points: float) -> list[str]:
    """Return the names of some classes for labels that stand upright, long ones cut; none where they would touch.

    Args:
        names: in the order of the axis.
        points: the width of all classes together.
    """
    if len(names) > _TURNED or points / len(names) < _LINE:
        return []
    return [cut(printable(name), _LONGEST) for name in names]
