"""One rule, wherever a split is drawn, imported, verified, checked or trained on: an image file belongs to one record.

Ids tell nothing of it: two files that count from 1 share ids, and one photograph may stand under two. So paths are
compared: without regard to case, to "./", to doubled slashes, to backslashes in place of slashes and to the two ways in
which Unicode writes an accent; a folder that is a link counts as the one it leads to.

Paths are kept as one number each, so that the two million of Objects365 take 15 MB.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault

Places = npt.NDArray[np.int8]

TOLD = 3
"""Pairs of records that a message names."""
_BLOCK = 1 << 15  # paths normalised at a time


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The image records of one file; ``listed`` and ``keyed`` make it.

    Attributes:
        path: the annotation file.
        ids: of the images, int64 (M,).
        places: index into ``folders``, int8 (M,).
        folders: image folders.
        names: returns the names of some rows below their folders.
        root: what messages leave out at the beginning of a path.
        scored: whether the images are scored.
        keys: equal for equal paths, int64 (M,).
    """

    path: Path
    ids: Ints
    places: Places
    folders: Sequence[Path]
    names: Callable[[Ints], list[str]]
    root: Path = Path()
    scored: bool = False
    keys: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @cached_property
    def _real(self) -> list[str]:
        return [os.path.realpath(folder) for folder in self.folders]

    def normal(self, rows: Ints) -> list[str]:
        """Return the paths of some rows, written in one way."""
        real, places = self._real, self.places[rows].tolist()
        return normal_paths(f"{real[place]}/{name}" for place, name in zip(places, self.names(rows), strict=True))

    def shown(self, row: int) -> str:
        """Return the path of an image below the root, as its record writes it."""
        folder = self.folders[self.places[row]]
        below = folder.relative_to(self.root) if folder.is_relative_to(self.root) else folder
        name = self.names(np.array([row]))[0]
        return name if below == Path() else f"{below.as_posix()}/{name}"


def normal_paths(paths: Iterable[str]) -> list[str]:
    """Return paths so written that those of one file are equal; none may hold NUL, which no path can."""
    text = "\0".join(paths)  # at once: a call for each of millions of names would take seconds
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.lower().replace("\\", "/")
    for doubled in ("//", "/./"):
        while doubled in text:
            text = text.replace(doubled, "/")
    return text.split("\0")


def keyed(records: Listed) -> Listed:
    """Return the records with their keys."""
    keys = np.empty(len(records.ids), np.int64)
    for start in range(0, len(keys), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(keys)))
        keys[rows] = np.fromiter(map(hash, records.normal(rows)), np.int64, len(rows))
    return replace(records, keys=keys)


def listed(data: Annotations, images: Mapping[str, str], role: str, root: Path) -> Listed:
    """Return the images of an annotation file.

    Args:
        data: the file; its names are kept.
        images: role -> image folder below ``root``.
        role: of the records that name none.
        root: what the folders are relative to.
    """
    names = data.file_names
    usual = images.get(role, "")
    folders = [root / images.get(named or role, usual) for named in data.roots] or [root / usual]
    return keyed(
        Listed(
            path=data.path,
            ids=data.image_ids,
            places=data.image_root,
            folders=folders,
            names=lambda rows: [names[row] for row in rows.tolist()],
            root=root,
            scored=role == "val",
        )
    )


@dataclass(frozen=True)
class Shared:
    """Image files that stand in two records.

    Attributes:
        first, second: the lists that hold the two records; one list twice if both are in it.
        rows: of the records in each, int64 (N, 2), in the first one's order.
    """

    first: Listed
    second: Listed
    rows: Ints

    def __str__(self) -> str:
        count = len(self.rows)
        shown = self.first.shown(int(self.rows[0, 0]))
        rule, more = "an image file belongs to one record of one part", ""
        if self.first is self.second:
            files = "1 image file stands" if count == 1 else f"{count:,} image files stand"
            what = f"{self.first.path}: {files} in more than one record"
        else:
            files = "1 image file" if count == 1 else f"{count:,} image files"
            what = f"{self.first.path} and {self.second.path} share {files}"
            more = "; D_l, D_u and the scored images must share none"
            if self.first.scored or self.second.scored:
                rule = "an image that is scored must not be trained on"
        pairs = "; ".join(self._pair(a, b) for a, b in self.rows[:TOLD].tolist())
        share = f"{count:,} of {len(self.second.ids):,} images of {self.second.path}"
        return f"{what}, the first is {shown}; {rule}. {share}: {pairs}{', and so on' if count > TOLD else ''}{more}"

    def _pair(self, a: int, b: int) -> str:
        """Return two records as a message names them: place and id, and the path or paths they give."""
        records = f"images[{a}] (id {self.first.ids[a]}) and images[{b}] (id {self.second.ids[b]})"
        names = (self.first.shown(a), self.second.shown(b))
        return f"{records} are {names[0]}" if names[0] == names[1] else f"{records} are {names[0]} and {names[1]}"


def shared_files(lists: Sequence[Listed]) -> list[Shared]:
    """Return which records name a file that another one names, by the pair of lists they are in.

    Args:
        lists: of the parts of one task or split; no image file may stand twice in them.
    """
    keys = np.concatenate([np.empty(0, np.int64), *(one.keys for one in lists)])
    ascending = np.sort(keys)
    if not (ascending[1:] == ascending[:-1]).any():  # as nearly always; an order would take three times the memory
        return []
    order = np.argsort(keys, kind="stable")
    equal = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    pairs = np.stack([order[equal], order[equal + 1]], axis=1)
    pairs = pairs[np.argsort(pairs[:, 0])]
    begins = np.cumsum([0, *(len(one.keys) for one in lists)])
    owners = np.searchsorted(begins, pairs, side="right") - 1
    found = []
    for first, second in np.unique(owners, axis=0).tolist():
        rows = pairs[(owners == (first, second)).all(axis=1)] - begins[[first, second]]
        names = zip(lists[first].normal(rows[:, 0]), lists[second].normal(rows[:, 1]), strict=True)
        rows = rows[np.fromiter((one == other for one, other in names), np.bool_, len(rows))]  # a key may be met twice
        if len(rows):
            found.append(Shared(lists[first], lists[second], rows))
    return found


def check_files(lists: Sequence[Listed], task: str) -> None:
    """Refuse an image file that stands in two records.

    Args:
        lists: of the parts of one task or split.
        task: its name or file, for the remedy.

    Raises:
        DataFault: there is one; counts and the first pairs of records are told.
    """
    if found := shared_files(lists):
        raise fault_of(found, task)


def fault_of(found: Sequence[Shared], task: str) -> DataFault:
    """Return the fault that tells of files in two records.

    Args:
        found: at least one.
        task: name or file of the task, for the remedy.
    """
    remedies = []
    if any(one.first is not one.second for one in found):
        remedies.append(
            "take these images out of one of the files, or name the folder of each part (images under [train] and "
            "[val]) if they are other photographs"
        )
    if any(one.first is one.second for one in found):
        remedies.append("keep one record of each file and give its boxes that record's id")
    again = f"cissod-bench data check --task {task} looks again"
    return DataFault("\n".join(f"{one}." for one in found), remedy="; ".join([*remedies, again]))
