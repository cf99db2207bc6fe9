"""What boxes were taken for: a confusion matrix per method, the classes in order of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cissod_bench.figures.drawing import WIDTHS, Drawing, axes_at, show
from cissod_bench.figures.style import HAIR, INK, NAVY, SOFT, VERMILLION, WHITE, cut, fitted, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 24
"""A matrix of more classes cannot be read."""
_GAP, _HEAD, _LETTER, _LINE = 0.25, 0.25, 0.062, 0.19  # inches
_LABELS = 1.0  # inches: names of classes that take more are cut


@dataclass(frozen=True)
class ConfusionPanel:
    """One method's matrix.

    Attributes:
        title: above it.
        names: of the K classes, group by group.
        ends: place behind the last class of every group.
        shares: percent of the boxes of each class that were taken for each; the last column: missed; (K, K + 1).
        boxes: of each class, (K,).
    """

    title: str
    names: tuple[str, ...]
    ends: tuple[int, ...]
    shares: npt.NDArray[np.float64]
    boxes: tuple[int, ...]


def confusion_drawing(panels: Sequence[ConfusionPanel], stem: str) -> Drawing:
    """Return the matrices as a drawing."""
    return Drawing("What the boxes of every class were taken for", lambda place: _draw(panels, WIDTHS[place]), stem)


def _draw(panels: Sequence[ConfusionPanel], width: float) -> Figure:
    """Return the figure, so many inches wide."""
    from matplotlib.figure import Figure

    names = panels[0].names
    across = min(len(panels), max(1, int(width / (0.36 * (len(names) + 2)))), 3)
    labels = min(_LETTER * max(map(len, (*names, "missed"))) + 0.08, _LABELS)
    wide = min((width - across * labels - (across - 1) * _GAP) / across, 0.55 * (len(names) + 1))
    tall = max(_LINE, wide / (len(names) + 1) * 0.55) * len(names)
    row, rows = _HEAD + tall + labels, -(-len(panels) // across)
    whole = across * (labels + wide) + (across - 1) * _GAP
    figure = Figure(figsize=(whole, rows * row))
    for number, panel in enumerate(panels):
        below, beside = divmod(number, across)
        left, bottom = labels + beside * (labels + wide + _GAP), rows * row - (below + 1) * row + labels
        axes = axes_at(figure, left, bottom, wide, tall)
        _panel(axes, panel, 72 * wide, labels)
    return figure


def _panel(axes: Axes, panel: ConfusionPanel, points: float, labels: float) -> None:
    number = len(panel.names)
    axes.set_xlim(-0.5, number + 0.5)
    axes.set_ylim(number - 0.5, -0.5)
    heads, most = (*panel.names, "missed"), int((labels - 0.08) / _LETTER + 1e-9)
    names = [printable(cut(name, most)) for name in heads]
    axes.set_xticks(range(number + 1), names, rotation=90, parse_math=False)
    axes.set_yticks(range(number), names[:-1], parse_math=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    (title,), size = fitted([printable(panel.title)], points)
    axes.annotate(title, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=size, color=INK, parse_math=False)
    for row in range(number):
        for column in range(number + 1):
            _cell(axes, panel, row, column)
    for end in panel.ends[:-1]:
        axes.axhline(end - 0.5, color=SOFT, linewidth=0.6, zorder=4)
        axes.axvline(end - 0.5, color=SOFT, linewidth=0.6, zorder=4)
    axes.axvline(number - 0.5, color=SOFT, linewidth=0.6, zorder=4)


def _cell(axes: Axes, panel: ConfusionPanel, row: int, column: int) -> None:
    """Draw a cell: right ones in one colour, wrong ones in another, the stronger the more."""
    from matplotlib.patches import Rectangle

    share = float(panel.shares[row, column])
    known = np.isfinite(share)
    colour = NAVY if row == column else VERMILLION if column < len(panel.names) else SOFT
    patch = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=HAIR, linewidth=0.4)
    patch.set_alpha(min(1.0, max(share, 0.0) / 100) if known else 0.0)
    axes.add_patch(patch)
    what = "missed" if column == len(panel.names) else f"taken for {panel.names[column]}"
    show(patch, f"{panel.title}: of {panel.boxes[row]:,} {panel.names[row]}, {share:.1f} % {what}" if known else "")
    if known and share >= 0.5:
        size = 6 if len(panel.names) <= 12 else 4.5
        ink = WHITE if share >= 55 else INK
        axes.text(column, row, f"{share:.0f}", ha="center", va="center_baseline", fontsize=size, color=ink, zorder=5)
