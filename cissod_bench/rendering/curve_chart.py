"""Panels of curves for the page, as SVG that follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from cissod_bench.rendering.curves import LOOKS, Curve, CurvePanel, generation_ticks, legend_curves, ticks
from cissod_bench.rendering.svg import LABEL_UNIT, Plane, document, mark, text

_WHOLE, _TALL, _LEFT, _GAP, _HEAD, _FOOT, _TOP, _LINE = 1090.0, 180.0, 34.0, 48.0, 30.0, 44.0, 14.0, 20.0  # pixels
_ROLES = {"circle": 0, "triangle": 1, "square": 2, "diamond": 3}


def curve_chart(panels: Sequence[CurvePanel], across: int, label: str) -> str:
    """Return the drawing.

    Args:
        panels: row by row.
        across: panels beside each other.
        label: what it shows, for those who cannot see it.
    """
    wide = (_WHOLE - _LEFT - (across - 1) * _GAP) / max(2, across)
    parts, under = _legend(legend_curves(panels))
    for number, panel in enumerate(panels):
        row, column = divmod(number, across)
        left, top = _LEFT + column * (wide + _GAP), under + row * (_HEAD + _TALL + _FOOT)
        parts.append(text(left, top + 20, panel.title, "panel"))
        parts += _panel(panel, Plane(left, top + _HEAD, wide, _TALL, _margins(panel.across), panel.ends))
    height = under + math.ceil(len(panels) / across) * (_HEAD + _TALL + _FOOT)
    return document(parts, _LEFT + across * (wide + _GAP) - _GAP + 20, height, label)


def _margins(across: tuple[int, int]) -> tuple[float, float]:
    first, last = across
    margin = 0.04 * max(1, last - first)
    return first - margin, last + margin


def _panel(panel: CurvePanel, plane: Plane) -> list[str]:
    parts = plane.frame({value: f"{value:g}" for value in ticks(*panel.ends)})
    for place in generation_ticks(*panel.across):
        parts.append(text(plane.x(place), plane.bottom + 15, str(place), "tick", "middle"))
    parts.append(text(plane.left + plane.wide / 2, plane.bottom + 30, "generation", "tick", "middle"))
    for curve in panel.curves:
        parts += _curve(curve, curve.title or panel.title, plane)
    return parts


def _curve(curve: Curve, title: str, plane: Plane) -> list[str]:
    look = curve.look
    parts = []
    for band in curve.bands:
        over = "L".join(f"{plane.x(x):.1f} {plane.y(min(high, plane.up[1])):.1f}" for x, _, high in band)
        under = "L".join(f"{plane.x(x):.1f} {plane.y(max(low, plane.up[0])):.1f}" for x, low, _ in reversed(band))
        parts.append(f'<path d="M{over}L{under}z" class="band l{look}"/>')
    for piece in curve.pieces:
        line = "L".join(f"{plane.x(x):.1f} {plane.y(y):.1f}" for x, y in piece)
        parts.append(f'<path d="M{line}" class="curve l{look}" style="{_dashes(look)}"/>')
    for point in curve.points:
        if point.y is not None:
            spread = "" if point.low is None or point.high is None else f" ({point.low:.4g} to {point.high:.4g})"
            tip = f"{title}, generation {point.x}: {point.y:.4g}{spread}"
            parts.append(_point(plane.x(point.x), plane.y(point.y), look, f"<title>{escape(tip)}</title>"))
    return parts


def _point(x: float, y: float, look: int, inside: str = "") -> str:
    shape = mark(x, y, _ROLES[LOOKS[look].shape], 3.2)
    return f'<path d="{shape}" class="{"dot" if LOOKS[look].filled else "ring"} l{look}">{inside}</path>'


def _dashes(look: int) -> str:
    return f"stroke-dasharray:{' '.join(f'{2 * length:g}' for length in LOOKS[look].dashes) or 'none'}"


def _legend(curves: Sequence[Curve]) -> tuple[list[str], float]:
    """Return the entries, as many in a line as fit, and the height they take."""
    parts, left, y = [], _LEFT, _TOP
    for curve in curves:
        wide = 34 + LABEL_UNIT * len(curve.title) + 22
        if left + wide > _WHOLE and left > _LEFT:
            left, y = _LEFT, y + _LINE
        look = curve.look
        line = f'<path d="M{left:.1f} {y:.1f}h26" class="curve l{look}" style="{_dashes(look)}"/>'
        parts += [line, _point(left + 13, y, look), text(left + 34, y + 4, curve.title, "name")]
        left += wide
    return parts, y + 8
