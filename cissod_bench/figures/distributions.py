"""Fig. 4: how many boxes each class has in the original data set, in D_l and in D_u; a panel per split, one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from cissod_bench.errors import UsageFault
from cissod_bench.figures.class_axis import AxisLabels, axis_labels, class_ticks
from cissod_bench.figures.drawing import KINDS, NARROW, PAGE, WIDTHS, Drawing, axes_at, check_kinds, show_around
from cissod_bench.figures.style import (
    HAIR,
    INK,
    MARKS,
    SHADE,
    SOFT,
    Mark,
    fitted,
    group_marks,
    lettered,
    printable,
    symbols,
)
from cissod_bench.files.whole_files import make_folder, write_bytes
from cissod_bench.reporting.box_counts import Manifests, distribution_frame, log10
from cissod_bench.reporting.groups import WORDS, roles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

NONE = -0.6
"""Where a count of 0, which has no logarithm, is shown: below log10(1) = 0, with a label of its own."""
_TOLD = 400  # classes up to which the mouse shows the counts of each
_BESIDE = 2  # panels beside each other, more of which would all be taller for the upright names of one


@dataclass(frozen=True)
class SplitPanel:
    """One split's share of the figure.

    Attributes:
        title: the task's; with the split seed where the task is shown more than once.
        groups: the class groups, most frequent first.
        frame: the split's lines of ``distribution_frame``.
    """

    title: str
    groups: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def classes(self) -> pd.DataFrame:
        """A line per class, by its place: index from 1, columns "class", "group" and one per part with its boxes."""
        parts = {part: counts.set_index("index")["boxes"] for part, counts in self.frame.groupby("part")}
        names = self.frame[self.frame["part"] == "original"].set_index("index")[["class", "group"]]
        return names.assign(**parts)


def panels(manifests: Manifests) -> list[SplitPanel]:
    """Return a panel per split, in the same order.

    Raises:
        DataFault: a manifest lacks the counts.
    """
    tasks = [manifest.task for manifest in manifests]
    return [
        SplitPanel(
            manifest.title + (f", split seed {manifest.split_seed}" if tasks.count(manifest.task) > 1 else ""),
            tuple(group for group, names in manifest.groups.items() if names),
            distribution_frame([manifest]),
        )
        for manifest in manifests
    ]


def stretches(places: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first, length) of each stretch of successive places, of places that ascend."""
    cuts = np.flatnonzero(np.diff(places) > 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(np.asarray(places), cuts) if len(part)]


def group_words(panels: Sequence[Sequence[str]]) -> dict[Mark, str]:
    """Return mark -> the words for all groups that have it, for the one legend of all panels."""
    words: dict[int, dict[str, None]] = {}
    for groups in panels:
        for group, role in roles(groups).items():
            words.setdefault(min(role, len(MARKS) - 1), {})[WORDS.get(group, group)] = None
    order = sorted(words, key=lambda role: (role == 1, role))  # the least frequent last
    return {MARKS[role]: " / ".join(words[role]) for role in order}


@dataclass(frozen=True)
class _Sheet:
    """Where things stand, in inches: ``across`` panels beside each other, a legend above them all."""

    width: float
    number: int
    across: int
    legend_lines: int
    foot: float = 0.34

    left, right, gap, title, strips, legend_line = 0.46, 0.12, 0.25, 0.2, 0.2, 0.13

    @property
    def wide(self) -> float:
        """A panel's width."""
        return (self.width - self.left - self.right - (self.across - 1) * self.gap) / self.across

    @property
    def tall(self) -> float:
        """A panel's height."""
        return 1.25 if self.width < NARROW else {1: 1.8, 2: 1.6}.get(self.across, 1.4)

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
        panel = axes_at(figure, left, middle, self.wide, self.tall)
        return panel, axes_at(figure, left, middle - self.strips, self.wide, self.strips)


def draw(panels: Sequence[SplitPanel], width: float, most: int = 4) -> Figure:
    """Return the figure, all panels on one scale.

    Args:
        panels: one per split, from left to right.
        width: inches; a narrow figure has its panels one under another.
        most: panels that may stand beside each other.
    """
    from matplotlib.figure import Figure

    number, narrow = len(panels), width < NARROW
    across = 1 if narrow else math.ceil(number / math.ceil(number / most))
    handles = _legend(panels)
    lines = math.ceil(len(handles) / 2) if narrow else 1
    sheet = _Sheet(width, number, across, lines)
    points = 72 * sheet.wide
    labels = [axis_labels(panel.classes["class"].tolist(), points, turned=across <= _BESIDE) for panel in panels]
    sheet = replace(sheet, foot=sheet.foot + max(of_panel.taller for of_panel in labels))
    figure = Figure(figsize=(width, sheet.height))
    titles, size = fitted(lettered([panel.title for panel in panels]), 72 * (sheet.wide + sheet.right))
    top = max(float(np.nanmax(log10(panel.frame["boxes"]), initial=0)) for panel in panels)
    empty = [bool((panel.frame["boxes"] == 0).any()) for panel in panels]
    for place, panel in enumerate(panels):
        marks = group_marks(panel.groups)
        axes, strips = sheet.add(figure, place)
        axes.set_title(symbols(titles[place]), loc="left", pad=3, fontsize=size)
        _counts(axes, panel, marks, points)
        _tell(axes, panel)
        row = slice(place // across * across, (place // across + 1) * across)
        _vertical(axes, top, any(empty[row]), first=place % across == 0)
        _members(strips, panel, marks, labels[place])
    figure.legend(handles=handles, loc="upper center", ncols=math.ceil(len(handles) / lines), borderaxespad=0.3)
    return figure


def _counts(axes: Axes, panel: SplitPanel, marks: Mapping[str, Mark], points: float) -> None:
    """Draw the original data set as an area, D_u as a bar per class on it, D_l as a mark per class."""
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
        members = (classes["group"] == group).to_numpy()
        axes.plot(
            x[members], labelled[members], linestyle="", markersize=size, markeredgewidth=min(0.7, size / 4),
            zorder=4, clip_on=False, **mark.style,
        )  # fmt: skip
    axes.set_xlim(0.5, len(x) + 0.5)
    axes.tick_params(bottom=False, labelbottom=False)


def _tell(axes: Axes, panel: SplitPanel) -> None:
    """Note each class's counts for the mouse that rests above or below it, unless there are too many to aim at."""
    classes = panel.classes
    if len(classes) > _TOLD:
        return
    columns = (classes[key].tolist() for key in ("class", "group", "original", "labelled", "unlabelled"))
    texts = [
        f"{name} ({group}): {original:,} in the original data set, {labelled:,} in D_l, {unlabelled:,} hidden in D_u"
        for name, group, original, labelled, unlabelled in zip(*columns, strict=True)
    ]
    show_around(axes, classes.index.tolist(), texts)


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
        _vertical_label(axes)
    else:
        axes.tick_params(left=False, labelleft=False)


def _vertical_label(axes: Axes) -> None:
    """Say what the scale shows, at one place whether its numbers are wide or not."""
    from matplotlib.transforms import offset_copy

    axes.set_ylabel("log₁₀ (instances)")
    outside = offset_copy(axes.transAxes, cast("Figure", axes.figure), x=-_Sheet.left + 0.13)  # inches
    axes.yaxis.set_label_coords(0, 0.5, transform=outside)


def _members(axes: Axes, panel: SplitPanel, marks: Mapping[str, Mark], labels: AxisLabels) -> None:
    """Draw a strip per group that is dark where a class belongs to it, and the classes below: names or indices."""
    classes = panel.classes
    for row, (group, mark) in enumerate(marks.items()):
        members = classes.index[classes["group"] == group].tolist()
        axes.broken_barh(
            [(start - 0.5, length) for start, length in stretches(members)],
            (row + 0.1, 0.8),
            color=mark.colour,
            lw=0,
        )
    count = len(classes)
    axes.set_xlim(0.5, count + 0.5)
    axes.set_ylim(len(marks), 0)
    axes.set_yticks(np.arange(len(marks)) + 0.5, list(map(printable, marks)), parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=5.5 if len(marks) < 3 else 5, pad=1.5)
    if labels.names:
        turn = 90 if labels.turned else 0
        axes.set_xticks(range(1, count + 1), labels.names, parse_math=False, fontsize=6, rotation=turn)
    else:
        axes.set_xticks(class_ticks(count))
    axes.set_xlabel("classes, by frequency" if labels.names else "class index, by frequency")
    axes.spines["left"].set_visible(False)


def _legend(panels: Sequence[SplitPanel]) -> list[Patch | Line2D]:
    """Return what stands for each part; groups that share a mark share an entry."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    groups = [panel.groups for panel in panels]
    return [
        Patch(facecolor=SHADE, edgecolor=SOFT, linewidth=0.5, label="original data set"),
        Line2D([], [], color=INK, linewidth=1.2, label=symbols("D_u, hidden boxes")),
        *(
            Line2D(
                [], [], linestyle="", markersize=3.4, markeredgewidth=0.7, label=symbols(f"D_l, {words}"), **mark.style
            )
            for mark, words in group_words(groups).items()
        ),
    ]


def distribution_drawing(manifests: Manifests) -> Drawing:
    """Return Fig. 4 of splits, a panel each from left to right; on the page two beside each other.

    Raises:
        DataFault: a manifest lacks the counts.
    """
    shown = panels(manifests)
    return Drawing(
        "Boxes of every class, log10",
        lambda place: draw(shown, WIDTHS[place], most=2 if place == PAGE else 4),
        stem="distributions",
    )


def distribution_files(manifests: Manifests, kind: str) -> dict[str, bytes]:
    """Return Fig. 4 in one format, file name -> bytes: for the text's width and, "_column", for one column.

    Args:
        manifests: of the splits, a panel each, from left to right.
        kind: "png", "svg", "pdf", or "csv" for the numbers. Equal manifests give equal bytes.

    Raises:
        DataFault: a manifest lacks the counts.
    """
    if kind == "csv":
        text = distribution_frame(manifests).to_csv(index=False, lineterminator="\n")
        return {"distributions.csv": text.encode()}
    return distribution_drawing(manifests).files(kind)


def plot_distributions(manifests: Manifests, out: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write Fig. 4 of the splits into a folder and return the files: two widths per format, one file for "csv".

    Args:
        manifests: of the splits, a panel each, from left to right.
        out: the folder; made where it lacks.
        formats: of "png", "svg", "pdf", "csv".

    Raises:
        UsageFault: there is no split, or a format is not known.
        DataFault: a manifest lacks the counts.
        EnvironmentFault: the folder cannot be written.
    """
    if not manifests:
        raise UsageFault("There is no split to draw.", remedy="cissod-bench make-splits")
    check_kinds(formats, (*KINDS, "csv"))
    files: dict[str, bytes] = {}
    for kind in dict.fromkeys(formats):
        files |= distribution_files(manifests, kind)
    for name, data in files.items():
        write_bytes(make_folder(out) / name, data)
    return [out / name for name in files]
