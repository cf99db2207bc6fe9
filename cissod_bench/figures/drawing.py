"""A figure of a report: drawn by one function of matplotlib, written as files for print and as SVG into the page."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from cissod_bench.errors import UsageFault, unknown_name
from cissod_bench.figures.page_svg import TIPS, ZONE, page_svg
from cissod_bench.figures.style import drawing_style, printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = "page"
WIDTHS: Mapping[str, float] = MappingProxyType({"": 6.875, "_column": 3.25, PAGE: 9.0})
"""Where a figure is shown -> its width in inches: the text and one column of the paper's own venue (ICCV), the page."""
PRINT = ("", "_column")
"""The places in print, which are the ends of its files' names."""
NARROW = 4.0
"""Inches; a figure below it has its panels one under another or two by two."""
KINDS = ("png", "svg", "pdf")

_METADATA: Mapping[str, Mapping[str, None]] = MappingProxyType(
    {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
)


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn when it is asked for.

    Attributes:
        label: what it shows, for those who cannot see it.
        draw: draws it for a place of ``WIDTHS``; called inside ``drawing_style``. Equal numbers give equal figures.
        stem: what its files for print are called, without place and ending.
    """

    label: str
    draw: Callable[[str], Figure]
    stem: str = ""

    def files(self, kind: str) -> dict[str, bytes]:
        """Return it for print in one format of ``KINDS``: file name -> bytes, one file for each place of ``PRINT``."""
        with drawing_style():
            return {f"{self.stem}{place}.{kind}": print_bytes(self.draw(place), kind) for place in PRINT}

    def page(self) -> str:
        """Return it as SVG for the page: safe to embed, with what the mouse shows, in the page's own colours."""
        with drawing_style(text_as_text=True), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's own font draws the letters
            figure = self.draw(PAGE)
            for ground in (figure.patch, *(axes.patch for axes in figure.axes)):
                ground.set_visible(False)
            return page_svg(_saved(figure, "svg"), self.label)


def safe_stem(text: str) -> str:
    """Return text as a file's name. Names come from files; those that had to be changed stay different by a hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    odd = re.search(r"[^A-Za-z0-9_\[\]() -]", text)
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if odd else plain


def axes_at(figure: Figure, left: float, bottom: float, wide: float, tall: float) -> Axes:
    """Add axes to a figure at a place and of a size in inches, counted from its lower left corner."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, bottom / height, wide / width, tall / height))


def show(artist: Artist, *texts: str) -> None:
    """Note what the mouse shows on the page where it rests on an artist: one text, or one for each of its markers."""
    artist.set_gid(TIPS + json.dumps([printable(text) for text in texts]))


def show_around(axes: Axes, places: Sequence[float], texts: Sequence[str]) -> None:
    """Note what the mouse shows on the page anywhere above or below places that are 1 apart; print has no trace."""
    from matplotlib.collections import PolyCollection

    corners = [[(x - 0.5, 0), (x - 0.5, 1), (x + 0.5, 1), (x + 0.5, 0)] for x in places]
    zones = PolyCollection(corners, transform=axes.get_xaxis_transform(), facecolor=(0, 0, 0, 0), linewidth=0, zorder=9)
    zones.set_gid(ZONE + json.dumps(list(map(printable, texts))))
    zones.set_in_layout(False)
    axes.add_collection(zones, autolim=False)


def print_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of ``KINDS`` without what is for the mouse; equal figures are equal bytes."""
    for artist in figure.findobj(lambda artist: artist.get_gid() is not None):
        if str(artist.get_gid()).startswith(ZONE):
            artist.set_visible(False)
        artist.set_gid(None)
    return _saved(figure, kind)


def _saved(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file, without a date or a version in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, metadata=dict(_METADATA[kind]))
    return stream.getvalue()


def check_kinds(kinds: Sequence[str], known: Sequence[str] = KINDS) -> None:
    """Refuse formats that are not drawn.

    Raises:
        UsageFault: a format is not known, or none is named.
    """
    if not kinds:
        raise UsageFault(f"No format to draw is named. Known: {', '.join(known)}.", remedy="--format png,svg")
    for kind in kinds:
        if kind not in known:
            raise unknown_name("format of figures", kind, known)
