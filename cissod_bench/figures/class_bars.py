"""The AP of every class as bars: a panel per method, the classes in lines below each other, by group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cissod_bench.figures.drawing import WIDTHS, Drawing, axes_at, show
from cissod_bench.figures.style import HAIR, INK, SOFT, cut, fitted, mark_of, printable
from cissod_bench.reporting.groups import roles
from cissod_bench.scoring.points import AP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE, _GAP, _RIGHT, _FOOT = 0.15, 0.36, 0.36, 0.26  # inches
_HEADS = (0.2, 0.32)  # inches: without and with a second line
_BAR = 0.58  # of a line
_LETTER = 0.062  # inches that a letter of a class's name takes, on average
_LABELS = 0.3  # of the figure's width: names that take more are cut
_ACROSS = 5  # panels in a row
_LEAST = 0.003  # of the scale: so long is the bar of an AP of 0, which the mouse can meet

Lines = Mapping[tuple[str, str | None], int]
"""(group, class) -> the line it stands in, from the top; (group, None) is the line of the group's name."""


@dataclass(frozen=True)
class BarPanel:
    """One method's bars.

    Attributes:
        title: above the bars.
        values: class -> mean AP in points, None where undefined.
        spreads: class -> standard deviation over seeds, None below two.
    """

    title: str
    values: Mapping[str, AP]
    spreads: Mapping[str, AP]

    @property
    def heads(self) -> tuple[str, str]:
        """The title in two lines: what stands in brackets is the second."""
        name, _, bracket = self.title.partition(" (")
        return name, bracket.removesuffix(")")


def class_bars(panels: Sequence[BarPanel], groups: Mapping[str, Sequence[str]]) -> Drawing:
    """Return the bars as a drawing, which the page alone shows."""
    return Drawing("AP of every class", lambda place: draw_class_bars(panels, groups, WIDTHS[place]))


def draw_class_bars(panels: Sequence[BarPanel], groups: Mapping[str, Sequence[str]], width: float) -> Figure:
    """Return the figure, all methods on one scale, in as many rows as they need.

    Args:
        panels: methods from left to right.
        groups: group -> classes, drawn top down in this order; the group gives the colour.
        width: inches that there are; few methods take less.
    """
    from matplotlib.figure import Figure

    lines, across = _lines(groups), math.ceil(len(panels) / math.ceil(len(panels) / _ACROSS))
    longest = max(len(text) for key in lines for text in key if text is not None)
    labels = min(_LETTER * longest + 0.1, _LABELS * width)
    wide = (width - labels - _RIGHT - (_ACROSS - 1) * _GAP) / _ACROSS
    two = any(panel.heads[1] for panel in panels)
    cell = _HEADS[two] + _LINE * len(lines) + _FOOT
    whole, height = labels + across * (wide + _GAP) - _GAP + _RIGHT, math.ceil(len(panels) / across) * cell
    figure = Figure(figsize=(whole, height))
    names, size = fitted([panel.heads[0] for panel in panels], 72 * (wide + _GAP))
    for number, panel in enumerate(panels):
        row, column = divmod(number, across)
        left, bottom = labels + column * (wide + _GAP), height - (row + 1) * cell + _FOOT
        axes = axes_at(figure, left, bottom, wide, _LINE * len(lines))
        _head(axes, names[number], size, 13 if two else 4.5)
        (below,), small = fitted([panel.heads[1] or " "], 72 * (wide + _GAP))
        _head(axes, below, min(6, small), 4.5, SOFT)
        _frame(axes, lines, scale_end(panels), labels=labels if column == 0 else None)
        _bars(axes, panel, lines, scale_end(panels), roles(list(groups)))
    return figure


def _lines(groups: Mapping[str, Sequence[str]]) -> Lines:
    keys = [(group, name) for group, names in groups.items() for name in (None, *names)]
    return {key: line for line, key in enumerate(keys)}


def scale_end(panels: Sequence[BarPanel]) -> int:
    """Return the end of the axis: the next multiple of 20 above the longest bar, so that panels compare."""
    longest = max([0.0, *(value for panel in panels for value in panel.values.values() if value is not None)])
    return min(100, 20 * (int(longest) // 20 + 1))


def _head(axes: Axes, text: str, size: float, above: float, colour: str = INK) -> None:
    """Write a line of a panel's title so many points above it."""
    place = (0, above)
    axes.annotate(
        printable(text), (0, 1), place, "axes fraction", "offset points", fontsize=size, color=colour, parse_math=False
    )


def _frame(axes: Axes, lines: Lines, end: int, labels: float | None) -> None:
    """Set the scales; names of groups and classes stand on the left where inches for them are given."""
    axes.set_xlim(0, end)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xticks(range(0, end + 1, 20 if end > 40 else 10))
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(labelleft=False)
    for (_, name), line in lines.items():
        if name is None:
            axes.axhline(line, color=HAIR, linewidth=0.5, zorder=1)
    if labels is not None:
        _names(axes, lines, labels)


def _names(axes: Axes, lines: Lines, labels: float) -> None:
    """Write the names of groups and classes on the left, where so many inches are for them."""
    most = int((labels - 0.1) / _LETTER + 1e-9)
    for (group, name), line in lines.items():
        text = printable(group if name is None else name)
        axes.annotate(
            cut(text, most),
            (0, line), (-72 * labels, 0) if name is None else (-3, 0), axes.get_yaxis_transform(), "offset points",
            ha="left" if name is None else "right", va="center_baseline", fontsize=6 if name is None else 6.5,
            color=SOFT if name is None else INK, parse_math=False,
        )  # fmt: skip


def _bars(axes: Axes, panel: BarPanel, lines: Lines, end: int, role: Mapping[str, int]) -> None:
    for (group, name), line in lines.items():
        if name is None:
            continue
        value, spread = panel.values.get(name), panel.spreads.get(name)
        if value is None:
            _number(axes, 0, line, "n/a")
            continue
        (bar,) = axes.barh(line, min(max(value, _LEAST * end), end), _BAR, color=mark_of(role[group]).colour, zorder=3)
        show(bar, f"{panel.title}, {name}: {value:.1f}" + ("" if spread is None else f" ± {spread:.1f}"))
        low, high = (min(max(value + side * (spread or 0), 0), end) for side in (-1, 1))
        if spread is not None:
            axes.plot([low, high], [line, line], color=INK, linewidth=0.8, solid_capstyle="butt", zorder=4)
        _number(axes, high, line, f"{value:.1f}")


def _number(axes: Axes, place: float, line: int, text: str) -> None:
    """Write a value behind the end of its bar."""
    axes.annotate(text, (place, line), (2.5, 0), "data", "offset points", va="center_baseline", fontsize=6, color=SOFT)
