"""Pieces of drawings as SVG text; colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

LABEL_UNIT = 6.6  # pixels a letter takes, on average


@dataclass(frozen=True)
class Plane:
    """A rectangle of the drawing with a linear scale on either side.

    Attributes:
        left, top, wide, tall: its place, pixels.
        across: values at its left and right end.
        up: values at its lower and upper end.
    """

    left: float
    top: float
    wide: float
    tall: float
    across: tuple[float, float]
    up: tuple[float, float]

    @property
    def right(self) -> float:
        """Its right end, pixels."""
        return self.left + self.wide

    @property
    def bottom(self) -> float:
        """Its lower end, pixels."""
        return self.top + self.tall

    def x(self, value: float) -> float:
        """Return the pixel of a value on the horizontal scale."""
        return self.left + self.wide * (value - self.across[0]) / (self.across[1] - self.across[0])

    def y(self, value: float) -> float:
        """Return the pixel of a value on the vertical scale."""
        return self.bottom - self.tall * (value - self.up[0]) / (self.up[1] - self.up[0])

    def frame(self, ticks: Mapping[float, str], *, labelled: bool = True) -> list[str]:
        """Return grid lines at the vertical scale's ticks with what they are called, and the two axes."""
        parts = []
        for value, name in ticks.items():
            parts.append(f'<path d="M{self.left:.1f} {self.y(value):.1f}H{self.right:.1f}" class="grid"/>')
            parts += [text(self.left - 6, self.y(value) + 4, name, "tick", "end")] if labelled else []
        corner = f"M{self.left:.1f} {self.top:.1f}V{self.bottom:.1f}H{self.right:.1f}"
        return [*parts, f'<path d="{corner}" class="axis" fill="none"/>']


def mark(x: float, y: float, role: int, size: float = 3.6) -> str:
    """Return the outline of a group's mark as path commands: 0 is a circle, 1 a triangle, 2 a square, 3 a diamond.

    Args:
        x: of its middle, pixels.
        y: of its middle, pixels.
        role: of the group, see ``groups.roles``.
        size: half its width, pixels.
    """
    if role == 0:
        return f"M{x - size:.1f} {y:.1f}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z"
    if role == 1:
        return f"M{x:.1f} {y - size * 1.1:.1f}l{size * 1.1:.2f} {size * 1.9:.2f}h{-size * 2.2:.2f}z"
    if role == 3:
        edge = 1.2 * size
        return f"M{x:.1f} {y - edge:.1f}l{edge:.2f} {edge:.2f}l{-edge:.2f} {edge:.2f}l{-edge:.2f} {-edge:.2f}z"
    return f"M{x - size * 0.9:.1f} {y - size * 0.9:.1f}h{size * 1.8:.2f}v{size * 1.8:.2f}h{-size * 1.8:.2f}z"


def legend(entries: Sequence[tuple[str, str]], left: float, y: float) -> list[str]:
    """Return entries side by side: what is drawn at (0, 0) of 26 pixels, and the words behind it."""
    parts = []
    for drawing, words in entries:
        parts += [f'<g transform="translate({left:.1f} {y:.1f})">{drawing}</g>', text(left + 32, y + 4, words, "name")]
        left += 32 + LABEL_UNIT * len(words) + 22
    return parts


def document(parts: Sequence[str], width: float, height: float, label: str, kind: str = "bars") -> str:
    """Return the drawing as a whole.

    Args:
        parts: its elements.
        width: pixels; the page shrinks the drawing where it has less room.
        height: pixels.
        label: what it shows, for those who cannot see it.
        kind: its class in the style sheet.
    """
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> str:
    """Return a piece of text, escaped: its place in pixels, its class in the style sheet, what of it stands at x."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'
