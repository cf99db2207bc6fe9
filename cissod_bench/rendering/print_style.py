"""Print style of the figures: widths, sizes of type, marks that differ without colour, files that are equal again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure

from cissod_bench.errors import UsageFault, unknown_name
from cissod_bench.reporting.groups import roles

WIDTHS: Mapping[str, float] = MappingProxyType({"": 6.875, "_column": 3.25})
"""End of a file's name -> width in inches: the text and one column of the paper's own venue (ICCV)."""
DPI = 300
KINDS = ("png", "svg", "pdf")

INK, SOFT, HAIR, SHADE = "#1a1a1a", "#6e6e6e", "#d0d0d0", "#dedede"
# Navy, sky and vermillion stay apart for all common kinds of colour blindness, and in grey as dark, light and middle.
_COLOURS = ("#12406a", "#4aa3df", "#d55e00")

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
        "savefig.dpi": DPI,
    }
)
_METADATA: Mapping[str, Mapping[str, None]] = MappingProxyType(
    {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
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


MARKS = (
    Mark(_COLOURS[0], "o", True),  # majority, frequent
    Mark(_COLOURS[2], "^", False),  # minority, rare
    Mark(_COLOURS[1], "s", False),  # between them
)
"""Role of a group (``groups.roles``) -> its mark."""


def group_marks(groups: Sequence[str]) -> dict[str, Mark]:
    """Return a mark a group, by its role."""
    return {group: MARKS[min(role, 2)] for group, role in roles(groups).items()}


def symbols(text: str) -> str:
    """Return text as matplotlib shows it: D_l and D_u as the paper sets them, all else as it is."""
    return re.sub(r"\bD_([lmsu])\b", r"$D_\1$", text.replace("$", r"\$"))


def fitted(titles: Sequence[str], points: float) -> tuple[list[str], float]:
    """Return titles and the size of type, 5 to 7.5 points, in which the longest fits; one that never does is cut.

    Args:
        titles: of panels that are to look alike.
        points: width that each has.
    """
    letter = 0.57  # width of a letter by its size, on average
    size = min(7.5, max(5.0, points / (letter * max(map(len, titles)))))
    most = int(points / (letter * size) + 1e-9)
    return [title if len(title) <= most else f"{title[: most - 1]}…" for title in titles], size


def lettered(titles: Sequence[str]) -> list[str]:
    """Return titles with (a), (b), ... before them, where there are two or more."""
    if len(titles) < 2:
        return list(titles)
    return [f"({'abcdefghijklmnopqrstuvwxyz'[number % 26]}) {title}" for number, title in enumerate(titles)]


@contextmanager
def print_style() -> Iterator[None]:
    """Draw in the style of print inside the block; a figure is to be drawn and saved in one block."""
    with rc_context():
        rcdefaults()  # a user's matplotlibrc changes nothing
        rcParams.update(_STYLE)
        yield


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of ``KINDS``; without a date or a version in it, equal figures are equal bytes."""
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
