"""Drawings as SVG text that takes its colours from the page's style sheet, so that it follows light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from cissod_bench.rendering.svg import LABEL_UNIT, document, text
from cissod_bench.reporting.groups import roles
from cissod_bench.scoring.points import AP

LINE, GAP, BAR, HEAD, FOOT, PANEL = 19, 48, 11, 38, 22, 190  # pixels


@dataclass(frozen=True)
class Panel:
    """One method's bars.

    Attributes:
        title: above the bars.
        values: class -> mean AP in points, None where undefined.
        spreads: class -> standard deviation over seeds, None below two.
    """

    title: str
    values: Mapping[str, AP]
    spreads: Mapping[str, AP]


def _scale(panels: Sequence[Panel]) -> int:
    """Return the end of the axis: the next multiple of 20 above the longest bar, so that panels compare."""
    longest = max([0.0, *(value for panel in panels for value in panel.values.values() if value is not None)])
    return min(100, 20 * (int(longest) // 20 + 1))


def _bars(panel: Panel, left: float, order: Sequence[tuple[str, int, float]], end: int) -> list[str]:
    parts = []
    for name, group, y in order:
        value, spread = panel.values.get(name), panel.spreads.get(name)
        if value is None:
            parts.append(text(left + 4, y + 4, "n/a", "value"))
            continue
        x = left + PANEL * min(max(value, 0), end) / end
        tip = f"{panel.title}, {name}: {value:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
        parts.append(
            f'<rect x="{left:.1f}" y="{y - BAR / 2:.1f}" width="{max(x - left, 0.5):.1f}" height="{BAR}" rx="2" '
            f'class="g{group}"><title>{escape(tip)}</title></rect>'
        )
        reach = x
        if spread is not None:
            low, high = (left + PANEL * min(max(value + sign * spread, 0), end) / end for sign in (-1, 1))
            parts.append(f'<path d="M{low:.1f} {y:.1f}H{high:.1f}" class="whisker"/>')
            reach = max(reach, high)
        parts.append(text(reach + 4, y + 4, f"{value:.1f}", "value"))
    return parts


def class_bars(panels: Sequence[Panel], groups: Mapping[str, Sequence[str]]) -> str:
    """Return bars of every class's AP, a panel a method side by side, classes in rows by group.

    Args:
        panels: methods from left to right.
        groups: group -> classes, drawn top down in this order; the group gives the colour.
    """
    classes = [name for names in groups.values() for name in names]
    head = HEAD if any(" (" in panel.title for panel in panels) else HEAD - 12
    labels = LABEL_UNIT * max(len(name) for name in [*classes, *groups]) + 12
    end = _scale(panels)
    left = [labels + number * (PANEL + GAP) for number in range(len(panels))]
    order: list[tuple[str, int, float]] = []
    colours = roles(list(groups))
    parts: list[str] = []
    y = float(head)
    for title, names in groups.items():
        y += 16
        parts.append(text(0, y, title, "group"))
        parts.append(f'<path d="M{labels:.1f} {y - 4:.1f}H{left[-1] + PANEL:.1f}" class="rule"/>')
        y += 4
        for name in names:
            order.append((name, colours[title], y + LINE / 2))
            parts.append(text(labels - 8, y + LINE / 2 + 4, name, "name", "end"))
            y += LINE
    height, width = y + FOOT, left[-1] + PANEL + GAP
    grid = []
    for panel, x in zip(panels, left, strict=True):
        for tick in range(0, end + 1, 20 if end > 40 else 10):
            at = x + PANEL * tick / end
            grid.append(f'<path d="M{at:.1f} {head}V{y:.1f}" class="{"axis" if tick == 0 else "grid"}"/>')
            grid.append(text(at, y + 15, str(tick), "tick", "middle"))
        name, bracket, detail = panel.title.partition(" (")
        parts += [text(x, 14, name, "panel"), text(x, 28, bracket[1:] + detail, "value")]
        parts += _bars(panel, x, order, end)
    return document([*grid, *parts], width, height, "AP of every class")
