"""Images of a folder or a pattern, without annotations: what is there, what is broken, and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from cissod_bench.errors import DataFault
from cissod_bench.files.image_files import is_image_name
from cissod_bench.files.images import check_header, safe_path
from cissod_bench.files.orientation import Reading, shown_size
from cissod_bench.loading.sources import Source

_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be read.

    Attributes:
        name: below the folder.
        reason: what is wrong with it.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Photographs:
    """Images to predict on.

    Attributes:
        folder: that their names are relative to.
        source: those whose headers can be read, in the order of their names, with ids from 1.
        skipped: the others.
        passed_over: how many files are no images by their names.
    """

    folder: Path
    source: Source
    skipped: tuple[Skipped, ...]
    passed_over: int

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return COCO's records of some images: id, file name, width and height as they are read."""
        sizes = {row: self.source.size(row) for row in rows}
        return [
            {
                "id": int(self.source.image_ids[row]),
                "file_name": self.source.name(row),
                "width": width,
                "height": height,
            }
            for row, (width, height) in sizes.items()
        ]


def listed(place: str) -> tuple[Path, list[Path]]:
    """Return a folder and all files below it that a place means, sorted; names that begin with a dot are left out.

    Args:
        place: a folder, which is searched through, a file, or a pattern as of a shell ("**" takes folders of any
            depth).

    Raises:
        DataFault: there is no such folder, and no file fits the pattern.
    """
    path = Path(place)
    files: Iterator[Path]
    if path.is_dir():
        folder, files = path, path.rglob("*")
    elif path.is_file():
        folder, files = path.parent, iter([path])
    else:
        before = list(takewhile(lambda part: not _WILD & set(part), path.parts))
        folder = Path(*before) if len(before) < len(path.parts) else path
        if not folder.is_dir():
            raise DataFault(f"{place}: there is no such folder, and no such file.", remedy=_REMEDY)
        files = folder.glob(str(Path(*path.parts[len(before) :])))
    return folder, sorted(file for file in files if not file.name.startswith(".") and file.is_file())


_REMEDY = "name a folder with images, or a pattern in quotes such as 'photos/*.jpg'"


def photographs(
    place: str,
    reading: Reading,
    skip: Callable[[Skipped], None] = lambda image: None,
    *,
    most: int | None = None,
    within: Path | None = None,
) -> Photographs:
    """Return the images of a place with their sizes, of which headers alone are read.

    Args:
        place: as for `listed`.
        reading: how they are turned.
        skip: takes those that are left out.
        most: how many of the first images are taken; None takes all.
        within: a data root, in which links may leave the folder; None keeps them in it.

    Raises:
        DataFault: there is no image that can be read.
    """
    folder, files = listed(place)
    images = [file for file in files if is_image_name(file.name)]
    others = len(files) - len(images)
    images = images[:most]
    names, sizes, skipped = list[str](), list[tuple[int, int]](), list[Skipped]()
    for file in images:
        name = file.relative_to(folder).as_posix()
        try:
            header = check_header(safe_path(folder, name, within), reading=reading)
        except DataFault as fault:
            skipped.append(Skipped(name, fault.message))
            skip(skipped[-1])
            continue
        names.append(name)
        stored = (header.width, header.height)
        sizes.append(shown_size(stored, header.tag) if reading.apply else stored)
    if not names:
        told = f"none of the {len(images)} images can be read" if images else "there is no image"
        raise DataFault(f"{place}: {told}.", remedy=_REMEDY)
    source = replace(_source(folder, names, sizes, reading), within=within)
    return Photographs(folder, source, tuple(skipped), others)


def _source(folder: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]], reading: Reading) -> Source:
    encoded = [name.encode("utf-8") for name in names]
    return Source(
        names=b"".join(encoded),
        name_ends=np.cumsum([len(name) for name in encoded], dtype=np.int64),
        folders=(folder,),
        image_folder=np.zeros(len(names), np.int8),
        image_ids=np.fromiter(count(1), np.int64, len(names)),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        box_ends=np.zeros(len(names), np.int64),
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        ignored=np.zeros(0, np.bool_),
        readings=(reading,),
    )
