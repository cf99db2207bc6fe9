"""Whether the images that an annotation file names are there, stay in their folder and decode to the stated size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cissod_bench.errors import DataFault
from cissod_bench.files.image_files import is_image_name
from cissod_bench.files.images import read_image, safe_path
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.orientation import AS_STORED, Reading

FIRST = 10
"""How many of the faulty images are named; the others are counted."""

_MOST_THREADS = 8
_TELL_EVERY = 64


@dataclass(frozen=True)
class Named:
    """Images by name: what one annotation file says of the images of one folder.

    Attributes:
        folder: where they must lie.
        names: their paths below the folder, as ``Annotations.file_names`` gives them.
        widths, heights: pixels, int32 (M,).
        within: the data root, in which links may leave the folder; None keeps them in it.
    """

    folder: Path
    names: Sequence[str]
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    within: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, name: str) -> Path:
        """Return the path of an image or of a folder of images.

        Raises:
            DataFault: the name is unsafe, or a link on the way leaves the folder and the data root.
        """
        return safe_path(self.folder, name, self.within)


@dataclass(frozen=True)
class ImageFaults:
    """What is wrong with images.

    Attributes:
        checked: how many were looked at.
        faulty: how many of them have a fault.
        first: what is wrong with the first ``FIRST`` of those, by file.
    """

    checked: int
    faulty: int
    first: tuple[str, ...]


def without_missing_folders(images: Named) -> tuple[Named, list[Path]]:
    """Return the images whose folders exist, and the folders that do not: those have not been fetched yet."""
    exists = {parent: (images.folder / parent).is_dir() for parent in {_parent(name) for name in images.names}}
    if all(exists.values()):
        return images, []
    rows = [row for row, name in enumerate(images.names) if exists[_parent(name)]]
    names = [images.names[row] for row in rows]
    kept = replace(images, names=names, widths=images.widths[rows], heights=images.heights[rows])
    return kept, sorted(images.folder / parent for parent, there in exists.items() if not there)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def listed(images: Named, progress: Progress | None = None) -> ImageFaults:
    """Compare the images with listings of their folders: one call a folder instead of one an image.

    An image is at fault if it is not there, is a folder, or is reached through a link that leaves ``images.folder`` and
    ``images.within``.

    Args:
        images: what is wanted.
        progress: called for every folder.
    """
    by_parent: dict[str, list[int]] = {}
    for row, name in enumerate(images.names):
        by_parent.setdefault(_parent(name), []).append(row)
    faults: list[tuple[int, str]] = []
    done = 0
    for parent, rows in by_parent.items():
        faults += _in_folder(images, parent, rows)
        done += len(rows)
        if progress is not None:
            progress(f"Listing {images.folder}", done, len(images))
    return _counted(len(images), (text for _, text in sorted(faults)))


def _in_folder(images: Named, parent: str, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Yield row and fault of the images that lie directly in one folder."""
    place = images.folder / parent
    try:
        if parent:
            images.path(parent)
        with os.scandir(place) as entries:
            kinds = {entry.name: _kind(entry) for entry in entries}
    except DataFault as fault:
        yield from ((row, f"{images.folder / images.names[row]}: {fault.message}") for row in rows)
        return
    except OSError as error:
        yield from ((row, f"{images.folder / images.names[row]}: {place}: {error.strerror}") for row in rows)
        return
    all_there = all(images.names[row].rpartition("/")[2] in kinds for row in rows)
    stems = {} if all_there else {_stem(name): name for name in sorted(kinds) if is_image_name(name)}
    for row in rows:
        path = images.folder / images.names[row]
        kind = kinds.get(images.names[row].rpartition("/")[2])
        if kind is None:
            alike = stems.get(_stem(images.names[row].rpartition("/")[2]))
            yield row, f"{path} is missing{f'; there is {alike}' if alike else ''}"
        elif kind == "folder":
            yield row, f"{path} is a folder"
        elif kind == "link":
            try:
                if not images.path(images.names[row]).exists():
                    yield row, f"{path} is a link to nothing"
            except DataFault as fault:
                yield row, fault.message


def _stem(name: str) -> str:
    """Return a name without its ending and its capital letters, by which a missing file is looked for."""
    return name.rpartition(".")[0].casefold()


def _kind(entry: os.DirEntry[str]) -> str:
    return "link" if entry.is_symlink() else "folder" if entry.is_dir() else "file"


def chosen(images: Named, most: int | None) -> range:
    """Return the rows of at most so many images, spread evenly; None takes all."""
    return range(0, len(images), max(1, -(-len(images) // most)) if most is not None else 1)


def decoded(
    images: Named, *, most: int | None = None, progress: Progress | None = None, reading: Reading = AS_STORED
) -> ImageFaults:
    """Decode the images and compare their sizes with those stated; a few threads, a bounded number at a time.

    Args:
        images: what is wanted.
        most: decode only so many of them, spread evenly; None decodes all.
        progress: called now and then.
        reading: how they are turned.
    """
    rows = chosen(images, most)

    def results() -> Iterator[str | None]:
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[str | None]] = deque()
            for done, row in enumerate(rows):
                waiting.append(pool.submit(_decode, images, row, reading))
                if len(waiting) > 4 * threads:  # not all at once: a million futures would fill the memory
                    yield waiting.popleft().result()
                if progress is not None and done % _TELL_EVERY == 0:
                    progress(f"Decoding {images.folder}", done, len(rows))
            while waiting:
                yield waiting.popleft().result()
        if progress is not None:
            progress(f"Decoding {images.folder}", len(rows), len(rows))

    return _counted(len(rows), (fault for fault in results() if fault is not None))


def _decode(images: Named, row: int, reading: Reading) -> str | None:
    """Return what is wrong with an image, or None."""
    try:
        path = images.path(images.names[row])
        read_image(path, int(images.widths[row]), int(images.heights[row]), reading)
    except DataFault as fault:
        return fault.message
    return None


def _counted(checked: int, faults: Iterable[str]) -> ImageFaults:
    first: list[str] = []
    faulty = 0
    for text in faults:
        faulty += 1
        if faulty <= FIRST:
            first.append(text)
    return ImageFaults(checked, faulty, tuple(first))
