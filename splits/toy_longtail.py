"""Toy long tail: the ten shapes of the toy task, the rarest a hundredth as frequent as the most frequent.

Scenario 2 of Sec. 4.1 on small drawn images: D_l and D_u share one extremely long-tailed distribution, 10 % of the
images are labelled, and classes are grouped by the number of images that show them in D_l. D_l has 200 images, a
fiftieth of LVIS's; so a class is rare up to 10 of them, as in LVIS, and common up to 40.

Val images show all shapes equally often: with a hundredth of them the rarest would be scored on a handful of boxes, and
its AP would be noise.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from cissod_bench.splitting.scenarios import draw_by_frequency
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.toy_images import write_shapes

COUNTS = MappingProxyType({"train": 2000, "val": 300})
SHAPES = ("square", "heart", "circle", "moon", "star", "triangle", "arrow", "ring", "hourglass", "cross")
IMBALANCE = 100.0  # the most frequent shape : the rarest


def prepare(folder: Path) -> None:
    """Draw the images and annotation files below ``folder``, unless they are there."""
    steps = len(SHAPES) - 1
    weights = {name: round(IMBALANCE ** (-rank / steps), 4) for rank, name in enumerate(SHAPES)}
    write_shapes(folder, COUNTS, weights, seed=1, most=6, own_weights={"val": dict.fromkeys(SHAPES, 1.0)})


TASK = Task(
    title="Toy shapes, long tail",
    source="drawn by splits/toy_longtail.py, after Sec. 4.1, scenario 2",
    inputs={"train": "annotations/train.json", "val": "annotations/val.json"},
    images={"train": "images/train", "val": "images/val"},
    groups=("f", "c", "r"),
    draw=draw_by_frequency,
    iterations=900,
    cover=None,
    frequency_bounds=(10, 40),
    draw_defaults={"min_instances": 1},
    crs_gamma=0.05,  # Sec. 4.2: everywhere but on MS-COCO
    exif="ignore",
    prepare=prepare,
)
