"""Photographs of animals, long tail: nine classes of VOC2012, the rarest about a hundredth as frequent as the first.

Scenario 2 of Sec. 4.1 on the photographs of ``voc-animals``: D_l and D_u share one extremely long-tailed distribution,
10 % of the images are labelled, and classes are grouped by the number of images that show them in D_l.

Classes: the six of voc-animals, and of chair, pottedplant, car, sofa and bottle those with at least 20 boxes among the
scored photographs (38, 25 and 27; sofa has 12, bottle 8, whose AP would be noise).

The tail: of the photographs that are drawn from, 1,023 show dog and 53 car, so the natural tail is a short one. It is
made longer by leaving photographs out. Classes are ranked by the photographs that show them; the k-th of 9 is to be in
1023 / 100^((k - 1) / 8) of them, a hundredth at the end, and is in so many of those it is in now: its share. A
photograph stays if its draw, a number in [0, 1) that its name alone decides, is below the smallest share of the classes
that it shows. D_l has about 175 images, as in toy-longtail; so a class is rare up to 10 of them, as in LVIS, and
common up to 40.

Scored are the same photographs as in voc-animals, of which none is left out: else the AP of the rarest would be noise.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cissod_bench.annotations.voc import VocImage
from cissod_bench.splitting.scenarios import draw_by_frequency
from cissod_bench.splitting.task import Conversion, Task
from cissod_bench.splitting.voc_files import OFFICIAL, write_voc

from .voc_animals import ANIMALS, MAJORITY, MINORITY, SOURCES, divided

CLASSES = (*MAJORITY, *MINORITY, "chair", "pottedplant", "car")
IMBALANCE = 100.0  # the photographs of the most frequent class : those of the rarest


def thinned(images: Sequence[VocImage]) -> Mapping[str, Sequence[VocImage]]:
    """Return the photographs that are drawn from, with a longer tail ("train"), and those that are scored ("val")."""
    parts = divided(images)
    shares = tail_shares(parts["train"])
    kept = [
        image
        for image in parts["train"]
        if draw_of(image.file_name) < min((shares[name] for name in image.shown if name in shares), default=1.0)
    ]
    return {"train": kept, "val": parts["val"]}


def tail_shares(images: Sequence[VocImage]) -> Mapping[str, float]:
    """Return class -> the share of its photographs that the long tail leaves, in (0, 1]."""
    held = Counter(name for image in images for name in image.shown if name in CLASSES)
    ranked = sorted(held, key=lambda name: (-held[name], name))
    steps = max(len(ranked) - 1, 1)
    wanted = {name: held[ranked[0]] * IMBALANCE ** (-rank / steps) for rank, name in enumerate(ranked)}
    return {name: min(1.0, wanted[name] / held[name]) for name in ranked}


def draw_of(file_name: str) -> float:
    """Return a number in [0, 1) for a photograph: the first 53 bits of the sha256 of "long tail/" and its name."""
    digest = hashlib.sha256(f"long tail/{file_name}".encode()).digest()
    return float((int.from_bytes(digest[:8], "big") >> 11) / 2**53)


def write(data_root: Path, folder: Path) -> None:
    """Write the annotation files below ``folder``, unless they are there."""
    write_voc(folder, data_root, ANIMALS, CLASSES, thinned)


TASK = Task(
    title="VOC animals, long tail",
    source="splits/voc_animals_longtail.py, after Sec. 4.1, scenario 2",
    inputs={"train": "annotations/train.json", "val": "annotations/val.json"},
    images={"train": SOURCES["images"], "val": SOURCES["images"]},
    groups=("f", "c", "r"),
    draw=draw_by_frequency,
    iterations=1_100,
    cover=None,
    frequency_bounds=(10, 40),
    draw_defaults={"min_instances": 1, "unlabelled_percent": 35.0},
    crs_gamma=0.05,  # Sec. 4.2: everywhere but on MS-COCO
    exif="ignore",  # boxes refer to the stored pixels
    crowd_ignored=True,  # difficult objects
    conversion=Conversion(SOURCES, write),
    preset="photo",
    official={"train": OFFICIAL, "val": OFFICIAL},
)
