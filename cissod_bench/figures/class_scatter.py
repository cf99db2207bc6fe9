"""AP of every class against its boxes in D_l: a panel per method, the groups told apart by mark and colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cissod_bench.figures.drawing import WIDTHS, Drawing, axes_at, show
from cissod_bench.figures.style import INK, SOFT, fitted, group_marks, printable, symbols
from cissod_bench.reporting.groups import WORDS
from cissod_bench.scoring.points import AP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 12  # classes up to which each is named beside its mark
_LEFT, _GAP, _HEAD, _FOOT, _LEGEND = 0.34, 0.16, 0.2, 0.34, 0.2  # inches
_WIDE = 2.9  # inches: a panel's most


@dataclass(frozen=True)
class ScatterPanel:
    """One method's classes.

    Attributes:
        title: above them.
        values: class -> mean AP in points, None where undefined.
    """

    title: str
    values: Mapping[str, AP]


def scatter_drawing(
    panels: Sequence[ScatterPanel], groups: Mapping[str, Sequence[str]], boxes: Mapping[str, int], stem: str
) -> Drawing:
    """Return the panels as a drawing, all on the same axes.

    Args:
        panels: from left to right.
        groups: group -> its classes, most frequent first.
        boxes: class -> its boxes in D_l.
        stem: of the files for print.
    """

    def draw(place: str) -> Figure:
        from matplotlib.figure import Figure

        width = WIDTHS[place]
        most = 4 if width > 8 else 3 if width > 4 else 1
        across = min(len(panels), most)
        wide = min((width - _LEFT - 0.1 - (across - 1) * _GAP) / across, _WIDE)
        tall, rows = 0.72 * wide, -(-len(panels) // across)
        row = _HEAD + tall + _FOOT
        whole, high = _LEFT + across * wide + (across - 1) * _GAP + 0.1, rows * row + _LEGEND
        figure = Figure(figsize=(whole, high))
        titles, size = fitted([panel.title for panel in panels], 72 * wide)
        for number, panel in enumerate(panels):
            below, beside = divmod(number, across)
            left, bottom = _LEFT + beside * (wide + _GAP), high - _LEGEND - (below + 1) * row + _FOOT
            axes = axes_at(figure, left, bottom, wide, tall)
            axes.set_title(printable(titles[number]), loc="left", fontsize=size, pad=4, parse_math=False)
            _panel(axes, panel, groups, boxes)
            _frame(axes, panels, boxes, labelled=beside == 0)
        _legend(figure, groups, (_LEFT / whole, 1 - 0.02 / high))
        return figure

    return Drawing("AP of every class against its boxes in D_l", draw, stem)


def _frame(axes: Axes, panels: Sequence[ScatterPanel], boxes: Mapping[str, int], *, labelled: bool) -> None:
    """Set the scales, which all panels share: logarithmic across, points from 0 upward."""
    from matplotlib.ticker import FixedLocator, NullLocator

    known = [count for count in boxes.values() if count > 0] or [1]
    low, high = min(known) / 1.5, max(known) * 2.2
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [step * 10**power for power in range(8) for step in (1, 2, 5) if low <= step * 10**power <= high]
    shown = ticks if len(ticks) < 7 else [tick for tick in ticks if str(tick)[0] == "1"]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shown, [f"{tick:,}" for tick in shown])
    top = max([value for panel in panels for value in panel.values.values() if value is not None] or [1.0])
    axes.set_ylim(0, min(102.0, 1.15 * top + 1))
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.set_xlabel(symbols("boxes in D_l"))
    axes.tick_params(labelleft=labelled)
    if labelled:
        axes.set_ylabel("AP")


def _panel(axes: Axes, panel: ScatterPanel, groups: Mapping[str, Sequence[str]], boxes: Mapping[str, int]) -> None:
    marks = group_marks(list(groups))
    named = sum(map(len, groups.values())) <= _NAMED
    for group, names in groups.items():
        points = [
            (boxes[name], value, name) for name in names
            if boxes.get(name) and (value := panel.values.get(name)) is not None
        ]  # fmt: skip
        if not points:
            continue
        x, y, _ = zip(*points, strict=True)
        (line,) = axes.plot(x, y, linestyle="", markersize=4, markeredgewidth=0.9, zorder=3, **marks[group].style)
        show(line, *(f"{panel.title}, {name}: AP {ap:.1f}, {count:,} boxes in D_l" for count, ap, name in points))
        for count, ap, name in points if named else ():
            place = (count, ap)
            axes.annotate(
                printable(name), place, (3, 2.5), "data", "offset points", fontsize=5.8, color=SOFT, parse_math=False
            )


def _legend(figure: Figure, groups: Mapping[str, Sequence[str]], place: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", markersize=4, label=printable(WORDS.get(group, group)), **mark.style)
        for group, mark in group_marks(list(groups)).items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=place, ncols=len(handles), labelcolor=INK, borderaxespad=0
    )
