"""Panels of curves over generations: what print (``curve_figure``) and the page (``curve_chart``) draw alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How a curve is told from the others, with and without colour.

    Attributes:
        colour: for print; the page has its own, by the look's number.
        dashes: lengths of strokes and gaps, in line widths; () for a solid line.
        shape: "circle", "triangle", "square" or "diamond", at each point.
        filled: whether the shape is filled.
    """

    colour: str
    dashes: tuple[float, ...]
    shape: str
    filled: bool


LOOKS = (
    Look("#12406a", (), "circle", True),
    Look("#d55e00", (), "triangle", False),
    Look("#4aa3df", (), "square", False),
    Look("#6e6e6e", (3.2, 1.6), "diamond", False),
    Look("#007a5a", (5, 1.4, 1.2, 1.4), "triangle", True),
    Look("#a3447f", (1.2, 1.4), "square", True),
    Look("#8a5a00", (3.2, 1.6), "circle", False),
    Look("#1a1a1a", (1.2, 1.4), "diamond", True),
)
"""The first three are those of a group's role (``groups.roles``); the fourth, dashed, is a baseline's."""

BASELINE = 3


@dataclass(frozen=True)
class Point:
    """A value with its spread.

    Attributes:
        x: the generation, from 1.
        y: None where it is undefined: the curve has a gap.
        low: lower end of the band around it; None without a band.
        high: upper end.
    """

    x: int
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        title: in the legend; "" where the panel's says it all.
        look: its number among ``LOOKS``.
        points: by generation.
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
    """

    title: str
    curves: tuple[Curve, ...]
    up: tuple[float, float | None] = (0.0, None)

    @property
    def across(self) -> tuple[int, int]:
        """First and last generation of any curve."""
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
    found: dict[tuple[str, int], Curve] = {}
    for panel in panels:
        for curve in panel.curves:
            if curve.title:
                found.setdefault((curve.title, curve.look), curve)
    return list(found.values())


def looks(number: int, taken: Sequence[int] = ()) -> list[int]:
    """Return the looks of ``number`` curves, without those that are taken."""
    free = [look for look in range(len(LOOKS)) if look not in taken]
    return [free[place % len(free)] for place in range(number)]


def curve_files(stem: str, drawn: Mapping[str, tuple[Sequence[CurvePanel], int]], kind: str) -> dict[str, bytes]:
    """Return a figure for print, file name -> bytes; equal panels give equal bytes.

    Args:
        stem: the files' name without ending.
        drawn: end of the name, of ``plotting.WIDTHS`` -> panels and how many stand beside each other.
        kind: "png", "svg" or "pdf".
    """
    from cissod_bench.rendering.curve_figure import draw_curves
    from cissod_bench.rendering.print_style import WIDTHS, figure_bytes, print_style

    files = {}
    with print_style():
        for suffix, (panels, across) in drawn.items():
            files[f"{stem}{suffix}.{kind}"] = figure_bytes(draw_curves(panels, WIDTHS[suffix], across), kind)
    return files
