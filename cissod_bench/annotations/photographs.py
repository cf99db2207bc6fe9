"""Photographs without labels: which lie in a folder, how large each is, and which of them are known already.

An image is one file however it is reached: over a link, by a second name, or as a copy of the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cissod_bench.controls import has_control
from cissod_bench.errors import DataFault
from cissod_bench.files.image_files import ENDINGS, images_below, unread_below
from cissod_bench.files.images import check_end, check_header
from cissod_bench.files.orientation import Reading, shown_size

_THREADS = 8  # reading a header is waiting for a disk
_BLOCK = 1 << 20


class Photograph(NamedTuple):
    """A photograph: the number of its folder, its name below it, its path and its size in bytes."""

    folder: int
    name: str
    path: Path
    bytes: int


def photographs_below(folder: Path, number: int = 0) -> list[Photograph]:
    """Return the photographs of a folder and of the folders in it, by name.

    Links are followed, but no folder is entered twice. Hidden files are none, nor are names with control characters.

    Args:
        folder: where to look.
        number: of the folder, for ``Photograph.folder``.

    Raises:
        DataFault: the folder is missing, cannot be read or holds no image.
    """
    names = [name for name in images_below(folder) if not has_control(name)]
    found = [photograph(folder, name, number) for name in names]
    if not found:
        others = unread_below(folder)
        unread = f"; {len(others):,} pictures are of formats that are not read, such as {others[0]}" if others else ""
        raise DataFault(
            f"{folder} holds no image ({', '.join(ENDINGS)}){unread}.",
            remedy="write them as JPEG or PNG" if others else "name the folder that holds the photographs",
        )
    return found


def photograph(folder: Path, name: str, number: int = 0) -> Photograph:
    """Return a photograph by its name below a folder; one that is not there has -1 bytes."""
    path = folder / name
    try:
        return Photograph(number, name, path, path.stat().st_size)
    except OSError:
        return Photograph(number, name, path, -1)


class Known:
    """Tells files that are known already, by the file itself or by equal bytes.

    Only files of equal size are read, so this costs little where there are no copies.

    Args:
        paths: the known files; those that are not there are passed over.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files: set[Hashable] = set()
        self._by_size: dict[int, list[Path]] = {}
        self._hashes: dict[int, set[bytes]] = {}
        for path in paths:
            if (identity := _identity(path)) is not None:
                self._files.add(identity[:2])
                self._by_size.setdefault(identity[2], []).append(path)

    def is_file(self, path: Path) -> bool:
        """Return whether a file is one of the known ones; copies are other files."""
        identity = _identity(path)
        return identity is not None and identity[:2] in self._files

    def holds(self, path: Path) -> bool:
        """Return whether a file is one of the known ones, or a copy of one."""
        identity = _identity(path)
        if identity is None:
            return False
        if identity[:2] in self._files:
            return True
        same_size = self._by_size.get(identity[2])
        if not same_size or not identity[2]:
            return False
        if identity[2] not in self._hashes:
            self._hashes[identity[2]] = {_digest(known) for known in same_size}
        return _digest(path) in self._hashes[identity[2]]


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return device, number and size of the file that a path leads to; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size


def _digest(path: Path) -> bytes:
    """Return a hash of a file's bytes; of one that cannot be read, of its path, which no other file shares."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError:
        return os.fsencode(path)
    return digest.digest()


def without_repeats(photographs: Iterable[Photograph]) -> Iterator[Photograph]:
    """Yield each file once: folders may overlap, and links may lead to a file that lies there anyway."""
    seen: set[Hashable] = set()
    for one in photographs:
        identity = _identity(one.path)
        if identity is None or identity[:2] not in seen:
            seen.add(identity and identity[:2])
            yield one


def sizes_of(paths: Sequence[Path], reading: Reading) -> list[tuple[int, int] | DataFault]:
    """Return width and height in pixels of each image by its header, or the fault of one that has none or is cut off.

    Args:
        paths: image files.
        reading: whether they are turned as their EXIF orientation says.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_size, reading=reading), paths))


def _size(path: Path, reading: Reading) -> tuple[int, int] | DataFault:
    try:
        width, height, tag = check_header(path)
        check_end(path)
    except DataFault as fault:
        return fault
    return shown_size((width, height), tag) if reading.turns((width, height), tag, (None, None)) else (width, height)
