"""Panels of curves for print, legible at the width of a page and of a column, in colour and in grey."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cissod_bench.rendering.curves import LOOKS, Curve, CurvePanel, generation_ticks, legend_curves, ticks
from cissod_bench.rendering.print_style import fitted, lettered, symbols

_SHAPES: Mapping[str, str] = {"circle": "o", "triangle": "^", "square": "s", "diamond": "D"}
_LEFT, _RIGHT, _GAP, _TITLE, _FOOT, _LEGEND_LINE = 0.28, 0.08, 0.3, 0.2, 0.32, 0.13  # inches


def draw_curves(panels: Sequence[CurvePanel], width: float, across: int) -> Figure:
    """Return the figure.

    Args:
        panels: row by row.
        width: inches.
        across: panels beside each other.
    """
    entries = legend_curves(panels)
    longest = max((len(curve.title) for curve in entries), default=0)
    beside = max(1, min(len(entries), int((width - 0.1) / (0.45 + 0.053 * longest))))
    head = math.ceil(len(entries) / beside) * _LEGEND_LINE + 0.08
    wide = (width - _LEFT - _RIGHT - (across - 1) * _GAP) / across
    tall = min(1.35, max(0.95, 0.8 * wide))
    cell = _TITLE + tall + _FOOT
    height = head + math.ceil(len(panels) / across) * cell
    figure = Figure(figsize=(width, height))
    titles, size = fitted(lettered([panel.title for panel in panels]), 72 * (wide + _RIGHT))
    for number, panel in enumerate(panels):
        row, column = divmod(number, across)
        left, bottom = _LEFT + column * (wide + _GAP), height - head - row * cell - _TITLE - tall
        axes = figure.add_axes((left / width, bottom / height, wide / width, tall / height))
        axes.set_title(symbols(titles[number]), loc="left", pad=3, fontsize=size)
        _panel(axes, panel)
    handles = [_handle(curve) for curve in entries]
    if handles:
        figure.legend(handles=handles, loc="upper center", ncols=beside, borderaxespad=0.3)
    return figure


def _panel(axes: Axes, panel: CurvePanel) -> None:
    low, high = panel.ends
    first, last = panel.across
    for order, curve in enumerate(panel.curves):
        look = LOOKS[curve.look]
        for band in curve.bands:
            x, under, over = zip(*band, strict=True)
            axes.fill_between(x, under, over, color=look.colour, alpha=0.15, linewidth=0, zorder=2)
        for piece in curve.pieces:
            x, y = zip(*piece, strict=True)
            axes.plot(
                x, y, color=look.colour, linewidth=1.0, dashes=look.dashes or (None, None), zorder=4 + order,
                marker=_SHAPES[look.shape], markersize=3.0, markeredgewidth=0.7, clip_on=False,
                markerfacecolor=look.colour if look.filled else "white",
            )  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_yticks(ticks(low, high))
    margin = 0.04 * max(1, last - first)
    axes.set_xlim(first - margin, last + margin)
    places = generation_ticks(first, last)
    axes.set_xticks(places if len(places) <= 6 else [*places[:-1:2], places[-1]] if len(places) % 2 else places[1::2])
    axes.set_xlabel("generation")
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _handle(curve: Curve) -> Line2D:
    look = LOOKS[curve.look]
    return Line2D(
        [], [], color=look.colour, linewidth=1.0, dashes=look.dashes or (None, None), marker=_SHAPES[look.shape],
        markersize=3.2, markeredgewidth=0.7, markerfacecolor=look.colour if look.filled else "white",
        label=symbols(curve.title),
    )  # fmt: skip
