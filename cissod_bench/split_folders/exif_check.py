"""What images of a task are there, and what ``data check --deep`` says of their EXIF orientations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cissod_bench.annotations.image_check import Named, chosen, without_missing_folders
from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault
from cissod_bench.files.exif_evidence import Evidence, Item, decide, look, reading
from cissod_bench.files.orientation import Reading, exif_of_role, reading_of
from cissod_bench.splitting.task import Task


@dataclass(frozen=True)
class There:
    """The images of a file by the role of the folder they lie in, and the folders that are missing."""

    images: Mapping[str, Named]
    missing: tuple[str, ...]


def there_of(data: Annotations, task: Task, role: str, root: Path, within: Path) -> There:
    """Return the images of a file; only records that name a "root" lie in the folder of another role.

    Files that the release is known to lack are left out.

    Args:
        data: the file.
        task: names the folders.
        role: of the file.
        root: what folders are relative to.
        within: the data root, in which links of images may lead anywhere.
    """
    absent = frozenset(task.absent)
    kept = np.fromiter((name not in absent for name in data.file_names), np.bool_, len(data.file_names))
    found: dict[str, Named] = {}
    missing: list[str] = []
    for number, named in enumerate(data.roots):
        rows = np.flatnonzero(kept & (data.image_root == number))
        names = [data.file_names[row] for row in rows.tolist()]
        images = Named(root / task.images[named or role], names, data.widths[rows], data.heights[rows], within)
        found[named or role], gone = without_missing_folders(images)
        missing += map(str, gone)
    return There(found, tuple(missing))


@dataclass(frozen=True)
class Orientations:
    """What the images of a task say.

    Attributes:
        tagged: role of an image folder -> images that bear an orientation other than 1, of those looked at.
        readings: role -> how its images are turned.
        words: role -> "apply", "ignore", "sizes", "none" where no image bears one, "auto" where they do not tell.
        faults: what is wrong where they do not tell.
    """

    tagged: Mapping[str, int] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def orientations(task: Task, files: Mapping[str, There], most: int | None) -> Orientations:
    """Return what the headers of images say.

    Args:
        task: says how images are turned, or leaves it open.
        files: role -> the images of its annotation file by the role of their folder.
        most: look at so many of each folder only, spread evenly; None looks at all.
    """
    evidence = dict.fromkeys(task.images, Evidence())
    for file in files.values():
        for role, images in file.images.items():
            evidence[role] += look(_items(images, chosen(images, most), frozenset(task.swapped)))
    words = {role: str(exif_of_role(task.exif, role)) for role in task.images}
    readings = {role: reading_of(exif_of_role(task.exif, role)) for role in task.images}
    faults: tuple[str, ...] = ()
    try:
        decided = decide({role: evidence[role] for role, word in words.items() if word == "auto"})
    except DataFault as fault:
        faults = (str(fault),)
    else:
        words |= decided
        readings |= {role: reading(word) for role, word in decided.items()}
    return Orientations({role: one.tagged for role, one in evidence.items()}, readings, words, faults)


def _items(images: Named, rows: range, doubtful: Collection[str]) -> Iterator[Item]:
    for row in rows:
        if images.names[row] not in doubtful:
            try:
                path = images.path(images.names[row])
            except DataFault:
                continue
            yield path, int(images.widths[row]), int(images.heights[row])
