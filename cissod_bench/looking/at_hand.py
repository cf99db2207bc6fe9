"""What of a split is at hand: its files, the validation file, the images, for whoever wants to look at them.

Records travel without their data, so all of it may be missing; then what is missing is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.figures.pictures import Pixels
from cissod_bench.files.exif_evidence import reading
from cissod_bench.files.images import read_image, safe_path
from cissod_bench.files.orientation import Reading, exif_of_role, reading_of
from cissod_bench.keeping.pack_format import SPLIT
from cissod_bench.records.run_folder import Run
from cissod_bench.split_folders.listing import scored_file, task_of
from cissod_bench.splitting.manifest import Manifest, read_manifest, split_folder


@dataclass(frozen=True)
class Places:
    """Where to look: the folder above the data sets and the one above splits and runs."""

    data_root: Path
    work_dir: Path


@dataclass(frozen=True)
class AtHand:
    """A split and what there is of it.

    Attributes:
        folder: of the split; its data files may be missing.
        manifest: of the split.
        root: what the paths in the manifest are relative to.
        within: the data root, in which links of images may lead anywhere.
        val: the validation file, None where it is not at hand.
        readings: role of an image folder -> how its images are turned.
    """

    folder: Path
    manifest: Manifest
    root: Path
    within: Path
    val: Path | None
    readings: Mapping[str, Reading] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """Return a data file of the split, None where it is not at hand or empty."""
        path = self.folder / name
        return path if path.is_file() and path.stat().st_size else None


def split_at_hand(folder: Path, places: Places, exif: Mapping[str, str] | None = None) -> AtHand:
    """Return what there is of a split.

    Args:
        folder: the split's.
        places: where its data may lie.
        exif: role -> how a run's images were turned, as its record says; None asks the task.

    Raises:
        DataFault: its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    root, val = scored_file(folder, places.data_root, places.work_dir)
    return AtHand(folder, manifest, root, places.data_root, val, _readings(manifest, places, exif or {}))


def run_at_hand(run: Run, places: Places) -> AtHand | None:
    """Return what there is of a run's split, None where no split of its hash is found."""
    record = run.record
    works = [run.folder.resolve().parents[5]] if len(run.folder.resolve().parents) > 5 else []
    folders = [split_folder(work, record.task, record.split_seed) for work in (places.work_dir, *works)]
    for folder in (*folders, run.folder / SPLIT):
        with suppress(DataFault):
            if read_manifest(folder).split_sha256 == record.split_sha256:
                return split_at_hand(folder, places, record.exif)
    return None


def _readings(manifest: Manifest, places: Places, exif: Mapping[str, str]) -> dict[str, Reading]:
    """Return how images are turned: as the record says, as the task says, or each as its size says."""
    readings = {role: reading_of("auto") for role in manifest.images}
    with suppress(UsageFault, DataFault):
        if task := task_of(manifest, places.data_root):
            readings |= {role: reading_of(exif_of_role(task.exif, role)) for role in manifest.images}
    return readings | {role: reading(word) for role, word in exif.items() if word in ("apply", "ignore", "none")}


@dataclass(frozen=True)
class Photos:
    """The images of an annotation file, with their boxes.

    Attributes:
        annotations: the columns of the file, which is closed.
        hand: its split.
        role: of the image folder of records that name none.
    """

    annotations: Annotations
    hand: AtHand
    role: str

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def name(self, row: int) -> str:
        """Return an image's name below its folder."""
        return self.annotations.file_names[row]

    def size(self, row: int) -> tuple[int, int]:
        """Return an image's width and height, pixels."""
        return int(self.annotations.widths[row]), int(self.annotations.heights[row])

    def boxes(self, row: int) -> Iterator[tuple[tuple[float, float, float, float], str, bool]]:
        """Yield x, y, width and height, the class's name, and whether it is a crowd or ignore region."""
        data = self.annotations
        for box in np.flatnonzero(data.box_image == row).tolist():
            x, y, width, height = data.boxes[box].tolist()
            yield (x, y, width, height), data.classes[data.box_class[box]], bool(data.crowd[box])

    def read(self, row: int) -> Pixels:
        """Return an image.

        Raises:
            DataFault: it is missing or broken, or the split names no folder of its role.
        """
        data, images = self.annotations, self.hand.manifest.images
        role = (data.roots[data.image_root[row]] if data.roots else "") or self.role
        if role not in images:
            raise DataFault(
                f"{data.path}: no image folder of the role {role!r} is known.", remedy="cissod-bench make-splits"
            )
        path = safe_path(self.hand.root / images[role], self.name(row), self.hand.within)
        return read_image(path, *self.size(row), self.hand.readings[role])


def photos_of(hand: AtHand, path: Path, role: str) -> Photos:
    """Return the images of one of a split's files or of its validation file.

    Args:
        hand: the split.
        path: of the file.
        role: "train", or "val" for the validation file.

    Raises:
        DataFault: the file breaks a rule.
    """
    manifest = hand.manifest
    named = manifest.images.get(role, "")
    folder = ImageFolder(hand.root / named, named) if role == "val" else None
    files = manifest.doubtful_sizes
    swapped, doubtful = (files, ()) if role == "val" else ((), files)
    with read_annotations(
        path, naming=manifest.naming, folder=folder, swapped=swapped, doubtful=doubtful
    ) as annotations:
        return Photos(annotations, hand, role)
