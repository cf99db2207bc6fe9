"""Style of the figures: colours, sizes of type, marks that differ without colour, and how names become their text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cissod_bench.reporting.groups import roles

INK, SOFT, HAIR, SHADE, WHITE = "#1a1a1a", "#6e6e6e", "#d0d0d0", "#dedede", "#ffffff"
# Navy, sky and vermillion stay apart for all common kinds of colour blindness, and in grey as dark, light and middle.
NAVY, VERMILLION, SKY, GREEN, PLUM, BROWN = "#12406a", "#d55e00", "#4aa3df", "#007a5a", "#a3447f", "#8a5a00"

VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "--ink",
        SOFT: "--soft",
        HAIR: "--line",
        SHADE: "--area",
        WHITE: "--card",
        NAVY: "--navy",
        VERMILLION: "--vermillion",
        SKY: "--sky",
        GREEN: "--green",
        PLUM: "--plum",
        BROWN: "--brown",
    }
)
"""Colour in print -> the variable of the page's style sheet that stands for it, with a value for light and for dark."""

_STYLE: Any = MappingProxyType(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so a figure looks alike everywhere
        "font.size": 7,
        "axes.titlesize": 7.5,
        "axes.labelsize": 7,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 6.5,
        "mathtext.fontset": "dejavusans",
        "axes.linewidth": 0.6,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.2,
        "ytick.major.size": 2.2,
        "xtick.major.pad": 2,
        "ytick.major.pad": 2,
        "axes.labelpad": 2.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": HAIR,
        "grid.linewidth": 0.4,
        "legend.frameon": False,
        "legend.handlelength": 1.8,
        "legend.columnspacing": 1.4,
        "legend.borderpad": 0.1,
        "svg.fonttype": "path",  # no font has to be there where it is shown
        "svg.hashsalt": "cissod-bench",  # ids are random otherwise
        "pdf.fonttype": 42,
        "savefig.dpi": 300,
    }
)


@dataclass(frozen=True)
class Mark:
    """How a class group is told from the others without its colour.

    Attributes:
        colour: of its edge, and of its face where it is filled.
        shape: matplotlib's name of it.
        filled: whether it is filled.
    """

    colour: str
    shape: str
    filled: bool

    @property
    def face(self) -> str:
        """The face's colour: white where it is not filled."""
        return self.colour if self.filled else "white"

    @property
    def style(self) -> dict[str, Any]:
        """What matplotlib calls it."""
        return {"color": self.colour, "marker": self.shape, "markerfacecolor": self.face}


MARKS = (
    Mark(NAVY, "o", True),  # majority, frequent
    Mark(VERMILLION, "^", False),  # minority, rare
    Mark(SKY, "s", False),  # between them
)
"""Role of a group (``groups.roles``) -> its mark."""

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def mark_of(role: int) -> Mark:
    """Return a role's mark; all groups between the most and the least frequent share one."""
    return MARKS[min(role, len(MARKS) - 1)]


def group_marks(groups: Sequence[str]) -> dict[str, Mark]:
    """Return group -> its mark, by its role."""
    return {group: mark_of(role) for group, role in roles(groups).items()}


def printable(text: str) -> str:
    """Return text as an SVG file can hold it: a sign in place of every letter that no such file may have."""
    return _UNPRINTABLE.sub("\ufffd", text)


def symbols(text: str) -> str:
    """Return text as matplotlib shows it in the style in use: in print D_l as the paper sets it, all else as it is."""
    from matplotlib import rcParams

    if not rcParams["text.parse_math"]:
        return printable(text)
    return re.sub(r"\bD_([lmsu])\b", r"$D_\1$", printable(text).replace("$", r"\$"))


def fitted(titles: Sequence[str], points: float) -> tuple[list[str], float]:
    """Return titles and the size of type, 5 to 7.5 points, in which the longest fits; one that never does is cut.

    Args:
        titles: of panels that are to look alike.
        points: width that each has.
    """
    letter = 0.57  # width of a letter by its size, on average
    size = min(7.5, max(5.0, points / (letter * max(1, *map(len, titles)))))
    most = int(points / (letter * size) + 1e-9)
    return [cut(title, most) for title in titles], size


def cut(text: str, most: int) -> str:
    """Return a text with so many letters at most; an ellipsis is the last one where it was longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def lettered(titles: Sequence[str]) -> list[str]:
    """Return titles with (a), (b), ... before them, where there are two or more."""
    if len(titles) < 2:
        return list(titles)
    return [f"({'abcdefghijklmnopqrstuvwxyz'[number % 26]}) {title}" for number, title in enumerate(titles)]


@contextmanager
def drawing_style(*, text_as_text: bool = False) -> Iterator[None]:
    """Draw in this style inside the block; a figure is to be drawn and saved in one block.

    Args:
        text_as_text: letters of an SVG file stay text, in whatever font its reader has and without formulas, whose
            letters have places of their own; else they become outlines.
    """
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context():
        rcdefaults()  # a user's matplotlibrc changes nothing
        rcParams.update(_STYLE)
        if text_as_text:
            rcParams.update({"svg.fonttype": "none", "text.parse_math": False})
        yield
