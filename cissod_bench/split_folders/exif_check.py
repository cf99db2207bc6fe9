"""What ``data check --deep`` says of EXIF orientations: how many there are, and whether they are decided."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cissod_bench.annotations.image_check import Named, chosen
from cissod_bench.errors import DataFault
from cissod_bench.files.exif_evidence import Evidence, Item, decide, look, reading
from cissod_bench.files.images import safe_path
from cissod_bench.files.orientation import Reading, exif_of_role, reading_of
from cissod_bench.splitting.task import Task


class _There(Protocol):
    @property
    def images(self) -> Mapping[str, Named]: ...


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


def orientations(task: Task, files: Mapping[str, _There], most: int | None) -> Orientations:
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
                path = safe_path(images.folder, images.names[row])
            except DataFault:
                continue
            yield path, int(images.widths[row]), int(images.heights[row])
