"""Toy task: ten shapes on small drawn images; six are the majority, four the minority. Needs no data, drawn in seconds.

All shapes are about equally frequent in the source, so the imbalance is the split's alone: the minority has ten boxes
a class in D_l and hundreds in D_u, as in scenario 1 of Sec. 4.1.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.toy_images import write_shapes

COUNTS = MappingProxyType({"train": 2000, "val": 300})
WEIGHTS = MappingProxyType({
    "circle": 1.2, "heart": 1.0, "square": 1.1, "arrow": 1.0, "triangle": 1.1, "star": 1.0, "moon": 1.0, "cross": 1.0,
    "hourglass": 1.0, "ring": 1.0,
})  # fmt: skip


def prepare(folder: Path) -> None:
    """Draw the images and annotation files below ``folder``, unless they are there."""
    write_shapes(folder, COUNTS, WEIGHTS, seed=0, most=6)


TASK = Task(
    title="Toy shapes",
    source="drawn by splits/toy.py, after Sec. 4.1, scenario 1",
    inputs={"train": "annotations/train.json", "val": "annotations/val.json"},
    images={"train": "images/train", "val": "images/val"},
    groups=("maj", "min"),
    draw=draw_by_minority,
    iterations=900,
    minority=("heart", "arrow", "moon", "hourglass"),
    cover="useful",
    draw_defaults={"labelled_percent": 10.0},
    exif="ignore",
    prepare=prepare,
)
