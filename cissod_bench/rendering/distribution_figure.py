"""Fig. 4 for print: a panel a split, legible at the width of a page and of a column, in colour and in grey."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import offset_copy

from cissod_bench.rendering.distributions import NONE, Panel, class_ticks, group_words, log10, stretches
from cissod_bench.rendering.print_style import (
    HAIR,
    INK,
    MARKS,
    SHADE,
    SOFT,
    Mark,
    fitted,
    group_marks,
    lettered,
    symbols,
)

_NARROW = 4.0  # inches: a figure below it has its panels one under another


@dataclass(frozen=True)
class _Sheet:
    """Where things stand, in inches: ``across`` panels beside each other, a legend above them all."""

    width: float
    number: int
    across: int
    legend_lines: int

    left, right, gap, title, foot, strips, legend_line = 0.46, 0.12, 0.25, 0.2, 0.34, 0.2, 0.13

    @property
    def wide(self) -> float:
        """A panel's width."""
        return (self.width - self.left - self.right - (self.across - 1) * self.gap) / self.across

    @property
    def tall(self) -> float:
        """A panel's height."""
        return 1.25 if self.width < _NARROW else {1: 1.8, 2: 1.6}.get(self.across, 1.4)

    @property
    def cell(self) -> float:
        """Height from one row of panels to the next."""
        return self.title + self.tall + self.strips + self.foot

    @property
    def height(self) -> float:
        """The figure's height."""
        return self.head + math.ceil(self.number / self.across) * self.cell

    @property
    def head(self) -> float:
        """The legend's height."""
        return self.legend_lines * self.legend_line + 0.08

    def add(self, figure: Figure, number: int) -> tuple[Axes, Axes]:
        """Return the axes of a panel and those of its groups' strips right below it."""
        row, column = divmod(number, self.across)
        left = self.left + column * (self.wide + self.gap)
        middle = self.height - self.head - row * self.cell - self.title - self.tall
        places = ((left, middle, self.wide, self.tall), (left, middle - self.strips, self.wide, self.strips))
        first, second = (
            figure.add_axes((x / self.width, y / self.height, wide / self.width, tall / self.height))
            for x, y, wide, tall in places
        )
        return first, second


def draw(panels: Sequence[Panel], width: float) -> Figure:
    """Return the figure, all panels on one scale.

    Args:
        panels: one a split, from left to right.
        width: inches.
    """
    number, narrow = len(panels), width < _NARROW
    across = 1 if narrow else math.ceil(number / math.ceil(number / 4))
    handles = _legend(panels)
    lines = math.ceil(len(handles) / 2) if narrow else 1
    sheet = _Sheet(width, number, across, lines)
    figure = Figure(figsize=(width, sheet.height))
    titles, size = fitted(lettered([panel.title for panel in panels]), 72 * (sheet.wide + sheet.right))
    top = max(float(np.nanmax(log10(panel.frame["boxes"]), initial=0)) for panel in panels)
    empty = [bool((panel.frame["boxes"] == 0).any()) for panel in panels]
    for place, panel in enumerate(panels):
        marks = group_marks(panel.groups)
        axes, strips = sheet.add(figure, place)
        axes.set_title(symbols(titles[place]), loc="left", pad=3, fontsize=size)
        _counts(axes, panel, marks, points=sheet.wide * 72)
        row = slice(place // across * across, (place // across + 1) * across)
        _vertical(axes, top, any(empty[row]), first=place % across == 0)
        _members(strips, panel, marks)
    figure.legend(handles=handles, loc="upper center", ncols=math.ceil(len(handles) / lines), borderaxespad=0.3)
    return figure


def _counts(axes: Axes, panel: Panel, marks: Mapping[str, Mark], points: float) -> None:
    """Draw the original data set as an area, D_u as a bar a class on it, D_l as a mark a class."""
    classes = panel.classes
    x = classes.index.to_numpy()
    edges = np.append(x - 0.5, x[-1] + 0.5)
    original = log10(classes["original"])
    axes.stairs(np.nan_to_num(original), edges, fill=True, color=SHADE, zorder=1)
    axes.stairs(np.nan_to_num(original), edges, baseline=None, color=SOFT, linewidth=0.5, zorder=2)
    hidden = np.nan_to_num(log10(classes["unlabelled"]), nan=NONE)
    bars = (np.column_stack([x - 0.5, x + 0.5, x]).ravel(), np.column_stack([hidden, hidden, hidden * np.nan]).ravel())
    axes.plot(*bars, color=INK, linewidth=1.0, solid_capstyle="butt", zorder=3)
    size = float(np.clip(2.2 * points / len(x), 1.3, 3.6))  # points across; neighbours may overlap by half
    labelled = np.nan_to_num(log10(classes["labelled"]), nan=NONE)
    for group, mark in marks.items():
        own = (classes["group"] == group).to_numpy()
        axes.plot(
            x[own], labelled[own], linestyle="", marker=mark.shape, markersize=size, color=mark.colour,
            markerfacecolor=mark.face, markeredgewidth=min(0.7, size / 4), zorder=4, clip_on=False,
        )  # fmt: skip
    axes.set_xlim(0.5, len(x) + 0.5)
    axes.tick_params(bottom=False, labelbottom=False)


def _vertical(axes: Axes, top: float, empty: bool, first: bool) -> None:
    """Set the shared scale: whole powers of ten and, apart from them, "none"."""
    powers = list(range(math.floor(top) + 1))
    axes.set_ylim(NONE - 0.3 if empty else -0.15, top + 0.25)
    axes.set_yticks([NONE, *powers] if empty else powers)
    axes.set_yticklabels(["none", *map(str, powers)] if empty else list(map(str, powers)))
    axes.grid(axis="y", zorder=0)
    axes.set_axisbelow(True)
    if empty:
        axes.axhline(NONE / 2, color=HAIR, linewidth=0.6, linestyle=(0, (1, 1.5)))
    if first:
        axes.set_ylabel("log₁₀ (instances)")
        outside = offset_copy(
            axes.transAxes, cast(Figure, axes.figure), x=-_Sheet.left + 0.13
        )  # inches; numbers may be wide or not
        axes.yaxis.set_label_coords(0, 0.5, transform=outside)
    else:
        axes.tick_params(left=False, labelleft=False)


def _members(axes: Axes, panel: Panel, marks: Mapping[str, Mark]) -> None:
    """Draw a strip a group that is dark where a class belongs to it, and the horizontal scale below."""
    classes = panel.classes
    for row, (group, mark) in enumerate(marks.items()):
        own = classes.index[classes["group"] == group].to_numpy()
        axes.broken_barh(
            [(start - 0.5, length) for start, length in stretches(own.tolist())],
            (row + 0.1, 0.8),
            color=mark.colour,
            lw=0,
        )
    count = len(classes)
    axes.set_xlim(0.5, count + 0.5)
    axes.set_ylim(len(marks), 0)
    axes.set_yticks(np.arange(len(marks)) + 0.5, list(marks))
    axes.tick_params(axis="y", length=0, labelsize=5.5 if len(marks) < 3 else 5, pad=1.5)
    axes.set_xticks(class_ticks(count))
    axes.set_xlabel("class index, by frequency")
    axes.spines["left"].set_visible(False)


def _legend(panels: Sequence[Panel]) -> list[Patch | Line2D]:
    """Return what stands for each part; groups that share a mark share an entry."""
    groups = [panel.groups for panel in panels]
    return [
        Patch(facecolor=SHADE, edgecolor=SOFT, linewidth=0.5, label="original data set"),
        Line2D([], [], color=INK, linewidth=1.2, label=symbols("D_u, hidden boxes")),
        *(
            Line2D(
                [], [], linestyle="", marker=MARKS[role].shape, markersize=3.4, color=MARKS[role].colour,
                markerfacecolor=MARKS[role].face, markeredgewidth=0.7, label=symbols(f"D_l, {words}"),
            )
            for role, words in group_words(groups).items()
        ),
    ]  # fmt: skip
