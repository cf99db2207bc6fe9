"""Whether boxes refer to images as they are stored or as they are shown: what the sizes of a data set's images fit.

A record's width and height are those that the annotation tool saw. An image whose orientation exchanges its sides tells
which they are, unless it is square; one that is turned by 180 degrees or mirrored cannot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from cissod_bench.errors import DataFault, first_of
from cissod_bench.files.images import read_header
from cissod_bench.files.orientation import UPRIGHT, Reading, shown_size

SAMPLE = 2_000
"""Unlabelled images of a folder that are looked at, spread evenly; labelled and scored ones are all looked at."""

_FIRST = 3
_PIECE = 4096
_THREADS = 8  # reading a header is waiting for a disk

Decided: TypeAlias = Literal["apply", "ignore", "none"]
Item: TypeAlias = tuple[Path, int, int]
"""An image file and the width and height that its record states."""


@dataclass(frozen=True)
class Evidence:
    """What the images of one folder say.

    Attributes:
        apply: images with an orientation whose stated size is that of the image as it is shown, and only that.
        ignore: likewise, as it is stored.
        unclear: images with an orientation whose stated size is both.
        misfit: images with an orientation whose stated size is neither.
    """

    apply: tuple[Path, ...] = ()
    ignore: tuple[Path, ...] = ()
    unclear: tuple[Path, ...] = ()
    misfit: tuple[Path, ...] = ()

    def __add__(self, other: Evidence) -> Evidence:
        """Return what the images of both say."""
        return Evidence(
            self.apply + other.apply,
            self.ignore + other.ignore,
            self.unclear + other.unclear,
            self.misfit + other.misfit,
        )

    @property
    def tagged(self) -> int:
        """How many images bear an orientation other than 1."""
        return len(self.apply) + len(self.ignore) + len(self.unclear) + len(self.misfit)


def look(images: Iterable[Item], progress: Callable[[int], None] = lambda done: None) -> Evidence:
    """Return what images say; headers alone are read, and files that cannot be read are passed over.

    Args:
        images: files and stated sizes.
        progress: told now and then how many are done.
    """
    found: dict[str, list[Path]] = {name: [] for name in ("apply", "ignore", "unclear", "misfit")}
    every, done = iter(images), 0
    with ThreadPoolExecutor(min(_THREADS, 4 * (os.cpu_count() or 1))) as pool:
        while piece := list(islice(every, _PIECE)):  # not all at once: a million futures would fill the memory
            for (path, _, _), what in zip(piece, pool.map(_says, piece), strict=True):
                if what is not None:
                    found[what].append(path)
            done += len(piece)
            progress(done)
    return Evidence(**{name: tuple(paths) for name, paths in found.items()})


def _says(item: Item) -> str | None:
    path, *stated = item
    try:
        with path.open("rb") as stream:
            width, height, tag = read_header(path, stream)
    except (DataFault, OSError):
        return None
    if tag == UPRIGHT:
        return None
    stored, shown = [width, height], list(shown_size((width, height), tag))
    fits = (stated == stored, stated == shown)
    return {(True, True): "unclear", (True, False): "ignore", (False, True): "apply"}.get(fits, "misfit")


def decide(evidence: Mapping[str, Evidence]) -> dict[str, Decided]:
    """Return role -> how its images are read; one that does not tell goes with the others if these agree.

    Args:
        evidence: role of an image folder -> what its images say.

    Raises:
        DataFault: images of one folder contradict each other, or no image tells how those that bear an orientation are
            meant; names examples.
    """
    decided: dict[str, Decided] = {}
    for role, one in evidence.items():
        if one.apply and one.ignore:
            raise _mixed(role, one)
        if one.apply or one.ignore:
            decided[role] = "apply" if one.apply else "ignore"
    agreed = set(decided.values())
    for role, one in evidence.items():
        if role in decided:
            continue
        if one.unclear and len(agreed) != 1:
            raise _undecided(role, one)
        decided[role] = next(iter(agreed)) if one.unclear else "none"
    return {role: decided[role] for role in evidence}


def reading(decided: str) -> Reading:
    """Return how images are read after a decision; one not looked at may still be as its size says."""
    return Reading(apply=decided == "apply", by_size=True)


def _mixed(role: str, one: Evidence) -> DataFault:
    return DataFault(
        f"The {role} images contradict each other about their EXIF orientation: the stated size is that of the image "
        f"as shown in {len(one.apply):,} ({first_of(one.apply, _FIRST)}) and as stored in {len(one.ignore):,} "
        f"({first_of(one.ignore, _FIRST)}). Boxes of one of the two would be misplaced.",
        remedy="write all images upright, without EXIF orientation, and let the annotation file have the sizes and "
        "boxes of the upright images; `cissod-bench data check --deep` with this --task looks at them",
    )


def _undecided(role: str, one: Evidence) -> DataFault:
    return DataFault(
        f"{len(one.unclear):,} of the {role} images bear an EXIF orientation ({first_of(one.unclear, _FIRST)}), and no "
        "stated size tells whether boxes refer to the image as shown or as stored.",
        remedy='write into the task file exif = "apply" (boxes refer to images as viewers show them) or '
        'exif = "ignore" (as they are stored)',
    )
