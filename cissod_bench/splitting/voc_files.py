"""Photographs of PASCAL VOC as annotation files: one for each role, written once below the work folder.

The photographs stay where they are; the folder that is written holds a link to them. It says what it was made from, and
is written again when that has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec

from cissod_bench.annotations.voc import (
    ANNOTATIONS,
    CLASSES,
    MOST_OBJECTS,
    PHOTOGRAPHS,
    VocFolder,
    VocImage,
    read_voc,
)
from cissod_bench.errors import DataFault, first_of
from cissod_bench.files.whole_files import make_once

DEVKIT = "VOCdevkit"
VOC2012 = f"{DEVKIT}/VOC2012"
OFFICIAL = (
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar (host.robots.ox.ac.uk, PASCAL VOC2012)"
)
VERSION = 1
"""Version of the files; it changes when the same photographs would give others, of any task."""

_SHOWN = 5  # missing files that a message names

Divide: TypeAlias = Callable[[Sequence[VocImage]], Mapping[str, Sequence[VocImage]]]
"""Takes all photographs of a task, by number, and returns role -> its own."""


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Which photographs a task is made of, and how many there are in a whole copy.

    Attributes:
        showing: classes; a photograph is chosen if an object of one of them is annotated that is not difficult.
        years: year in the names of the photographs -> how many are chosen.
        boxes: class -> objects on them that are not difficult, of some or all classes.
        all_boxes: such objects of all classes.
    """

    showing: tuple[str, ...]
    years: Mapping[str, int]
    boxes: Mapping[str, int]
    all_boxes: int


def write_voc(folder: Path, data_root: Path, photographs: Photographs, classes: Sequence[str], divide: Divide) -> None:
    """Write ``annotations/<role>.json`` below ``folder`` and link ``VOCdevkit`` there, unless both are there already.

    Objects of other classes are left out; difficult ones become ignore regions (iscrowd 1).

    Args:
        folder: where to; made whole or not at all.
        data_root: the folder that holds ``VOCdevkit``; only read.
        photographs: which are wanted; others are in no role.
        classes: names of the classes that are kept.
        divide: says which photographs belong to which role.

    Raises:
        DataFault: the copy is missing, partial or breaks a rule of VOC's annotations.
    """
    source = data_root / VOC2012
    stamp = {"version": VERSION, "classes": list(classes), "source": os.path.realpath(source), "files": _print(source)}

    def make(hidden: Path) -> None:
        images = whole(read_voc(source, showing=photographs.showing), photographs)
        (hidden / "annotations").mkdir()
        for role, of_role in divide(images).items():
            (hidden / "annotations" / f"{role}.json").write_bytes(annotation_file(of_role, classes))
        (hidden / DEVKIT).symlink_to(os.path.realpath(data_root / DEVKIT), target_is_directory=True)

    make_once(folder, stamp, make)


def _print(source: Path) -> str:
    """Return a hash that changes with the annotations and the names of the photographs."""
    digest = hashlib.sha256()
    for name in (ANNOTATIONS, PHOTOGRAPHS):
        try:
            with os.scandir(source / name) as entries:
                files = sorted((entry.name, entry) for entry in entries)
                for file, entry in files:
                    facts = (entry.stat().st_size, entry.stat().st_mtime_ns) if name == ANNOTATIONS else ()
                    digest.update(json.dumps([name, file, *facts]).encode("utf-8", "surrogatepass"))
        except OSError:  # reading it says why
            digest.update(b"not there")
    return digest.hexdigest()


def whole(found: VocFolder, photographs: Photographs) -> Sequence[VocImage]:
    """Return the photographs after counting them.

    Raises:
        DataFault: some are missing or there are others; the message says how many of which, by name where that is
            known. Counted are objects that are not difficult, so that a copy without the difficult ones passes.
    """
    images = found.images
    years = Counter(image.file_name[:4] for image in images)
    boxes = Counter(entry.name for image in images for entry in image.objects if not entry.difficult)
    wanted = sum(photographs.years.values())
    odd = [
        *(f"{year}: {years[year]:,} of {count:,} images" for year, count in photographs.years.items()
          if years[year] != count),
        *(f"{name}: {boxes[name]:,} of {count:,} boxes" for name, count in photographs.boxes.items()
          if boxes[name] != count),
    ]  # fmt: skip
    if boxes.total() != photographs.all_boxes:
        odd.append(f"all classes: {boxes.total():,} of {photographs.all_boxes:,} boxes")
    missing = [*(f"{PHOTOGRAPHS}/{name}" for name in found.lost), *(f"{ANNOTATIONS}/{name}" for name in found.unnamed)]
    if not odd and not found.lost and len(images) == wanted:
        return images
    named = f"; missing {first_of(sorted(missing), _SHOWN)}" if missing else ""
    counted = f" ({'; '.join(odd)})" if odd else ""
    shown = ", ".join(photographs.showing)
    raise DataFault(
        f"{found.path}: {len(images):,} of {wanted:,} images that show {shown}{named}{counted}.",
        remedy=f"unpack all of {OFFICIAL} into the data root",
    )


def annotation_file(images: Sequence[VocImage], classes: Sequence[str]) -> bytes:
    """Return photographs and their boxes of some classes as a COCO-style annotation file.

    Images and boxes have numbers made of the photograph's name, classes those of VOC: the file does not depend on
    what else is there.

    Args:
        images: of the file.
        classes: names of the classes that are kept.
    """
    numbers = {name: 1 + CLASSES.index(name) for name in classes}
    records, boxes = [], []
    for image in images:
        records.append({"id": image.number, "file_name": image.file_name, "width": image.width, "height": image.height})
        boxes += [
            {
                "id": (MOST_OBJECTS + 1) * image.number + place,
                "image_id": image.number,
                "category_id": numbers[found.name],
                "bbox": found.box,
                "area": round(found.box[2] * found.box[3], 4),
                "iscrowd": int(found.difficult),
            }
            for place, found in enumerate(image.objects, 1)
            if found.name in numbers
        ]
    categories = [{"id": number, "name": name} for name, number in sorted(numbers.items(), key=lambda pair: pair[1])]
    return msgspec.json.encode({"images": records, "annotations": boxes, "categories": categories})
