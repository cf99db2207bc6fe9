"""Fig. 4 for the page: the panels of ``distributions.panels`` as SVG that follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from cissod_bench.rendering.distributions import NONE, Panel, class_ticks, group_words, log10, stretches
from cissod_bench.rendering.svg import Plane, document, legend, mark, text
from cissod_bench.reporting.groups import roles

_WIDE, _TALL, _STRIP, _HEAD, _FOOT, _LEFT, _GAP = 470.0, 210.0, 11.0, 30.0, 46.0, 56.0, 64.0  # pixels
_TOLD = 400  # classes up to which each says its counts where the pointer rests on it


def distribution_chart(panels: Sequence[Panel]) -> str:
    """Return the drawing: two panels a row, on one scale.

    Args:
        panels: one a split.
    """
    across = min(2, len(panels))
    strips = max(len(panel.groups) for panel in panels) * _STRIP
    top = max((math.log10(count) for panel in panels for count in panel.frame["boxes"] if count), default=0.0)
    lowest = NONE - 0.3 if any((panel.frame["boxes"] == 0).any() for panel in panels) else 0.0
    parts = legend(_entries(panels), _LEFT, 10)
    for number, panel in enumerate(panels):
        row, column = divmod(number, across)
        left = _LEFT + column * (_WIDE + _GAP)
        under = 24 + row * (_HEAD + _TALL + strips + _FOOT)
        parts.append(text(left, under + 20, panel.title, "panel"))
        parts += _panel(panel, left, under + _HEAD, (lowest, top + 0.25))
        parts += [_turned(left - 44, under + _HEAD + _TALL / 2, "log₁₀ (instances)")] if column == 0 else []
    rows = math.ceil(len(panels) / across)
    height = 24 + rows * (_HEAD + _TALL + strips + _FOOT)
    return document(parts, _LEFT + across * (_WIDE + _GAP) - _GAP + 24, height, "Boxes of every class, log10")


def _panel(panel: Panel, left: float, top: float, up: tuple[float, float]) -> list[str]:
    classes = panel.classes
    number = len(classes)
    plane = Plane(left, top, _WIDE, _TALL, (0.5, number + 0.5), up)
    values = {part: log10(classes[part]) for part in ("original", "labelled", "unlabelled")}
    ticks = {float(power): str(power) for power in range(math.floor(up[1]) + 1)} | ({NONE: "none"} if up[0] < 0 else {})
    role, group_of = roles(panel.groups), classes["group"].tolist()
    marks: dict[int, list[str]] = {}
    size = max(1.4, min(3.6, 0.9 * _WIDE / number))
    line = f"stroke-width:{min(1.4, size / 2.4):.1f}"
    for place, (group, value) in enumerate(zip(group_of, values["labelled"], strict=True), start=1):
        marks.setdefault(role[group], []).append(mark(plane.x(place), plane.y(_shown(value)), role[group], size))
    return [
        *_area(plane, values["original"]),
        *plane.frame(ticks),
        f'<path d="{_bars(plane, values["unlabelled"])}" class="hidden"/>',
        *(f'<path d="{"".join(marks[own])}" class="mark{own} g{own}" style="{line}"/>' for own in sorted(marks)),
        *_strips(plane, panel.groups, group_of),
        *(_tips(plane, panel) if number <= _TOLD else ()),
    ]


def _turned(x: float, y: float, content: str) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f}) rotate(-90)">{text(0, 0, content, "tick", "middle")}</g>'


def _shown(value: float) -> float:
    return NONE if math.isnan(value) else value


def _area(plane: Plane, values: Iterable[float]) -> list[str]:
    """Return the original data set: an area from log10(1) up, a step a class."""
    floor = plane.y(0)
    steps = "".join(
        f"L{plane.x(place - 0.5):.1f} {y:.1f}H{plane.x(place + 0.5):.1f}"
        for place, value in enumerate(values, start=1)
        for y in [floor if math.isnan(value) else plane.y(value)]
    )
    return [f'<path d="M{plane.left:.1f} {floor:.1f}{steps}V{floor:.1f}z" class="area"/>']


def _bars(plane: Plane, values: Iterable[float]) -> str:
    """Return D_u: a bar of one class's width a class."""
    return "".join(
        f"M{plane.x(place - 0.5):.1f} {plane.y(_shown(value)):.1f}H{plane.x(place + 0.5):.1f}"
        for place, value in enumerate(values, start=1)
    )


def _strips(plane: Plane, groups: Sequence[str], group_of: Sequence[str]) -> list[str]:
    """Return a strip a group below the panel, filled where a class belongs to it, and the horizontal scale."""
    role, parts = roles(groups), []
    for row, group in enumerate(groups):
        y = plane.bottom + 3 + row * _STRIP
        members = [place for place, own in enumerate(group_of, start=1) if own == group]
        bars = "".join(
            f"M{plane.x(first - 0.5):.1f} {y:.1f}H{plane.x(first + length - 0.5):.1f}v{_STRIP - 2}"
            f"H{plane.x(first - 0.5):.1f}z"
            for first, length in stretches(members)
        )
        parts += [f'<path d="{bars}" class="g{role[group]}"/>', text(plane.left - 6, y + 8, group, "small", "end")]
    under = plane.bottom + len(groups) * _STRIP + 16
    parts += [text(plane.x(place), under, str(place), "tick", "middle") for place in class_ticks(len(group_of))]
    return [*parts, text(plane.left + plane.wide / 2, under + 15, "class index, by frequency", "tick", "middle")]


def _tips(plane: Plane, panel: Panel) -> list[str]:
    """Return, over the panel, what each class's counts are, for the pointer that rests on it."""
    classes, wide = panel.classes, plane.wide / len(panel.classes)
    columns = (classes[key].tolist() for key in ("class", "group", "original", "labelled", "unlabelled"))
    return [
        f'<rect x="{plane.x(place - 0.5):.1f}" y="{plane.top:.1f}" width="{wide:.1f}" height="{plane.tall:.1f}" '
        f'class="tip"><title>{escape(f"{name} ({group}): {original:,} in the original data set, ")}'
        f"{labelled:,} in D_l, {unlabelled:,} hidden in D_u</title></rect>"
        for place, (name, group, original, labelled, unlabelled) in enumerate(zip(*columns, strict=True), start=1)
    ]


def _entries(panels: Sequence[Panel]) -> list[tuple[str, str]]:
    words = group_words([panel.groups for panel in panels])
    return [
        ('<path d="M0 -5H26V5H0z" class="area"/>', "original data set"),
        ('<path d="M0 0H26" class="hidden"/>', "D_u, hidden boxes"),
        *(
            (f'<path d="{mark(20, 0, role)}" class="mark{role} g{role}"/>', f"D_l, {own}")
            for role, own in words.items()
        ),
    ]
