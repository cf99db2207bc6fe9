"""Photographs of animals and people: the part of PASCAL VOC2012 that shows a cat, cow, dog, horse or sheep.

Scenario 1 of Sec. 4.1 on photographs that one machine can train on: 3,608 of VOC2012's 17,125 are chosen, those whose
annotation names a non-difficult object of the five animals. Six classes are kept: person, dog and cat are the majority,
sheep, horse and cow the minority; boxes of other classes are left out. Objects that are ``difficult`` are ignore
regions, in training and in scoring.

VOC2012's own lists divide classification and detection differently and are not used: a photograph is scored if the
sha256 of its file name, a whole number, is divisible by 4. That gives 878; splits are drawn from the other 2,730. A
fifth of what D_l leaves is D_u: preset photo passes over 500 photographs ten times, the paper over MS-COCO's 54 times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cissod_bench.annotations.voc import ANNOTATIONS, PHOTOGRAPHS, VocImage
from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Conversion, Task
from cissod_bench.splitting.voc_files import OFFICIAL, VOC2012, Photographs, write_voc

MAJORITY, MINORITY = ("person", "dog", "cat"), ("sheep", "horse", "cow")

# Counted on VOC2012 without its difficult objects; a copy that lacks those has the same numbers.
ANIMALS = Photographs(
    showing=("cat", "cow", "dog", "horse", "sheep"),
    years=MappingProxyType({"2007": 182, "2008": 1034, "2009": 763, "2010": 1322, "2011": 307}),
    boxes=MappingProxyType({"dog": 1571, "cat": 1266, "person": 1007, "sheep": 878, "horse": 760, "cow": 642}),
    all_boxes=6782,
)


def divided(images: Sequence[VocImage]) -> Mapping[str, Sequence[VocImage]]:
    """Return the photographs that are drawn from ("train") and those that are scored ("val")."""
    return {
        "train": [image for image in images if not is_scored(image.file_name)],
        "val": [image for image in images if is_scored(image.file_name)],
    }


def is_scored(file_name: str) -> bool:
    """Return whether a photograph is scored: a quarter of them, by name."""
    return int(hashlib.sha256(file_name.encode()).hexdigest(), 16) % 4 == 0


def write(data_root: Path, folder: Path) -> None:
    """Write the annotation files below ``folder``, unless they are there."""
    write_voc(folder, data_root, ANIMALS, (*MAJORITY, *MINORITY), divided)


SOURCES = MappingProxyType({"annotations": f"{VOC2012}/{ANNOTATIONS}", "images": f"{VOC2012}/{PHOTOGRAPHS}"})

TASK = Task(
    title="VOC animals",
    source="splits/voc_animals.py, after Sec. 4.1, scenario 1",
    inputs={"train": "annotations/train.json", "val": "annotations/val.json"},
    images={"train": SOURCES["images"], "val": SOURCES["images"]},
    groups=("maj", "min"),
    draw=draw_by_minority,
    iterations=1_100,
    minority=MINORITY,
    cover="useful",
    draw_defaults={"labelled_percent": 10.0, "min_instances": 10, "unlabelled_percent": 20.0},
    exif="ignore",  # boxes refer to the stored pixels
    crowd_ignored=True,  # difficult objects
    conversion=Conversion(SOURCES, write),
    preset="photo",
    official={"train": OFFICIAL, "val": OFFICIAL},
)
