"""Panels of curves over generations or iterations, in colour and in grey: Fig. 3 and what a method's own state did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from cissod_bench.figures.drawing import WIDTHS, Drawing, axes_at, show
from cissod_bench.figures.style import BROWN, GREEN, INK, MARKS, PLUM, SOFT, Mark, fitted, lettered, symbols

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_LEFT, _RIGHT, _GAP, _TITLE, _FOOT, _LEGEND_LINE = 0.28, 0.08, 0.3, 0.2, 0.32, 0.13  # inches
_ROOMY = 2.5  # inches: a panel as wide has room for ten generations on its axis


@dataclass(frozen=True)
class Look(Mark):
    """How a curve is told from the others, with and without colour: by the mark at each point, and by its stroke.

    Attributes:
        dashes: lengths of strokes and gaps, in line widths; () for a solid line.
    """

    dashes: tuple[float, ...] = ()

    @property
    def style(self) -> dict[str, Any]:
        """What matplotlib calls it."""
        return {**super().style, "markeredgewidth": 0.7, "linewidth": 1.0, "dashes": self.dashes or (None, None)}


LOOKS = (
    *(Look(mark.colour, mark.shape, mark.filled) for mark in MARKS),
    Look(SOFT, "D", False, (3.2, 1.6)),
    Look(GREEN, "^", True, (5, 1.4, 1.2, 1.4)),
    Look(PLUM, "s", True, (1.2, 1.4)),
    Look(BROWN, "o", False, (3.2, 1.6)),
    Look(INK, "D", True, (1.2, 1.4)),
)
"""The first three are those of a group's role (``style.MARKS``); the fourth, dashed, is a baseline's."""

BASELINE = 3


@dataclass(frozen=True)
class Point:
    """A value with its spread.

    Attributes:
        x: the generation, from 1, or the iteration.
        y: None where it is undefined: the curve has a gap.
        low: lower end of the band around it; None without a band.
        high: upper end.
    """

    x: int
    y: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def around(cls, x: int, mean: float, std: float) -> Point:
        """Return a mean with one standard deviation on either side, not below 0; NaN is undefined, or no band."""
        if math.isnan(mean):
            return cls(x, None)
        return cls(x, mean) if math.isnan(std) else cls(x, mean, max(0.0, mean - std), mean + std)


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        title: in the legend; "" where the panel's says it all.
        look: its number among ``LOOKS``.
        points: from left to right.
    """

    title: str
    look: int
    points: tuple[Point, ...]

    @property
    def pieces(self) -> list[list[tuple[int, float]]]:
        """The stretches between gaps, as (x, y)."""
        pieces: list[list[tuple[int, float]]] = [[]]
        for point in self.points:
            if point.y is None:
                pieces.append([])
            else:
                pieces[-1].append((point.x, point.y))
        return [piece for piece in pieces if piece]

    @property
    def bands(self) -> list[list[tuple[int, float, float]]]:
        """The stretches with a band, as (x, low, high)."""
        bands: list[list[tuple[int, float, float]]] = [[]]
        for point in self.points:
            if point.y is None or point.low is None or point.high is None:
                bands.append([])
            else:
                bands[-1].append((point.x, point.low, point.high))
        return [band for band in bands if len(band) > 1]


@dataclass(frozen=True)
class CurvePanel:
    """A panel.

    Attributes:
        title: what is measured, of what, and its unit.
        curves: drawn in this order.
        up: ends of the vertical scale; None takes the greatest value.
        unit: what is counted from left to right.
    """

    title: str
    curves: tuple[Curve, ...]
    up: tuple[float, float | None] = (0.0, None)
    unit: str = "generation"

    @property
    def across(self) -> tuple[int, int]:
        """First and last place of any curve."""
        places = [point.x for curve in self.curves for point in curve.points] or [1]
        return min(places), max(places)

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the vertical scale, with room for every band."""
        low, high = self.up
        values = [value for curve in self.curves for p in curve.points for value in (p.y, p.high) if value is not None]
        return low, high if high is not None else max([low, *values]) * 1.06 or 1.0


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round values from ``low`` to ``high``, at most ``most`` steps apart."""
    steps = (digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 2.5, 5))
    step = next(step for step in steps if (high - low) / step <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 9) for place in range(first, last + 1)]


def generation_ticks(first: int, last: int) -> list[int]:
    """Return at most ten generations, the first and the last among them."""
    step = math.ceil((last - first) / 9) or 1
    inner = [place for place in range(first, last, step) if last - place >= step or place == first]
    return [*inner, last] if inner else [last]


def legend_curves(panels: Iterable[CurvePanel]) -> list[Curve]:
    """Return one curve of each look and title, for the one legend of all panels."""
    entries: dict[tuple[str, int], Curve] = {}
    for panel in panels:
        for curve in panel.curves:
            if curve.title:
                entries.setdefault((curve.title, curve.look), curve)
    return list(entries.values())


def looks_of(methods: Mapping[str, str]) -> dict[str, int]:
    """Return title -> look: the paper's method and its baseline have their own, the others what is left, in turn.

    Args:
        methods: title -> method, in the order of the legend; the first title of a method has its look.
    """
    own = {"ours": 0, "soft-teacher": BASELINE}
    free = cycle([look for look in range(len(LOOKS)) if look not in own.values()])
    return {title: own.pop(method) if method in own else next(free) for title, method in methods.items()}


def curve_drawing(label: str, layouts: Mapping[str, tuple[Sequence[CurvePanel], int]], stem: str) -> Drawing:
    """Return panels of curves as a drawing.

    Args:
        label: what it shows, for those who cannot see it.
        layouts: place of ``drawing.WIDTHS`` -> its panels row by row, and how many stand beside each other.
        stem: what its files are called, without place and ending.
    """

    def draw(place: str) -> Figure:
        panels, across = layouts[place]
        return draw_curves(panels, WIDTHS[place], across)

    return Drawing(label, draw, stem)


def draw_curves(panels: Sequence[CurvePanel], width: float, across: int) -> Figure:
    """Return the figure.

    Args:
        panels: row by row.
        width: inches.
        across: panels beside each other.
    """
    from matplotlib.figure import Figure

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
        axes = axes_at(figure, left, bottom, wide, tall)
        axes.set_title(symbols(titles[number]), loc="left", pad=3, fontsize=size)
        _panel(axes, panel, roomy=wide >= _ROOMY)
    handles = [_handle(curve) for curve in entries]
    if handles:
        figure.legend(handles=handles, loc="upper center", ncols=beside, borderaxespad=0.3)
    return figure


def _panel(axes: Axes, panel: CurvePanel, roomy: bool) -> None:
    low, high = panel.ends
    first, last = panel.across
    for order, curve in enumerate(panel.curves):
        _curve(axes, curve, f"{curve.title or panel.title}, {panel.unit}", panel.ends, zorder=4 + order)
    axes.set_ylim(low, high)
    axes.set_yticks(ticks(low, high))
    margin = 0.04 * max(1, last - first)
    axes.set_xlim(first - margin, last + margin)
    by_generation = panel.unit == "generation"
    axes.set_xticks(_places(first, last, roomy) if by_generation else ticks(first, last, 5 if roomy else 3))
    axes.set_xlabel(panel.unit)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _places(first: int, last: int, roomy: bool) -> list[int]:
    """Return the generations that an axis names: about half of them where there is little room."""
    places = generation_ticks(first, last)
    few = places if len(places) <= 6 else [*places[:-1:2], places[-1]] if len(places) % 2 else places[1::2]
    return places if roomy else few


def _curve(axes: Axes, curve: Curve, title: str, ends: tuple[float, float], zorder: int) -> None:
    """Draw a curve with its bands, which end where the panel does, and note each point's value for the mouse."""
    look, points = LOOKS[curve.look], {point.x: point for point in curve.points}
    low, high = ends
    for band in curve.bands:
        x, *edges = zip(*band, strict=True)
        under, over = ([min(max(y, low), high) for y in edge] for edge in edges)
        axes.fill_between(x, under, over, color=look.colour, alpha=0.15, linewidth=0, zorder=2)
    for piece in curve.pieces:
        x, y = zip(*piece, strict=True)
        (line,) = axes.plot(x, y, markersize=3.0, zorder=zorder, clip_on=False, **look.style)
        show(line, *(f"{title} {place}: {_value(points[place])}" for place in x))


def _value(point: Point) -> str:
    """Return a point's value with the ends of its band, in words."""
    spread = "" if point.low is None or point.high is None else f" ({point.low:.4g} to {point.high:.4g})"
    return f"{point.y:.4g}{spread}"


def _handle(curve: Curve) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], markersize=3.2, label=symbols(curve.title), **LOOKS[curve.look].style)
