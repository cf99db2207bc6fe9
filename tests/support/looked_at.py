"""A drawn split with images and runs with predictions on it, all of a few boxes, to be looked at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from score_records import finished
from split_folders import FILES

from cissod_bench.files.whole_files import write_json
from cissod_bench.looking.at_hand import Places
from cissod_bench.records import run_folder as runs
from cissod_bench.records.run_folder import Run, read_record
from cissod_bench.splitting.manifest import split_folder, split_sha256

CLASSES = ("dog", "sheep")
GROUPS = {"maj": ["dog"], "min": ["sheep"]}
DOG, SHEEP = 1, 2
SIZE = (64, 48)
BOXES = {1: [(DOG, [4, 4, 20, 20])], 2: [(SHEEP, [10, 10, 30, 30])], 3: [(SHEEP, [2, 2, 40, 40])], 4: []}
"""Image -> its boxes: the same in D_l, in D_u and among the scored images, whose ids are 0, 100 and 200 higher."""


def annotations(first: int, boxes: Mapping[int, Sequence[Any]] = BOXES, root: str = "") -> dict[str, Any]:
    width, height = SIZE
    return {
        "images": [
            {"id": first + i, "file_name": f"{root}{first + i}.png", "width": width, "height": height} for i in boxes
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
        "annotations": [
            {"id": 10 * (first + i) + place, "image_id": first + i, "category_id": kind, "bbox": box, "iscrowd": 0}
            for i, of_image in boxes.items()
            for place, (kind, box) in enumerate(of_image)
        ],
    }


def detected(image: int, kind: int, box: Sequence[float], score: float) -> dict[str, Any]:
    return {"image_id": 200 + image, "category_id": kind, "bbox": list(box), "score": score}


OURS = [
    detected(1, DOG, [4, 4, 20, 20], 0.9),
    detected(2, SHEEP, [10, 10, 30, 30], 0.8),
    detected(3, DOG, [2, 2, 40, 40], 0.7),
    detected(4, DOG, [2, 2, 4, 4], 0.1),
]
SOFT_TEACHER = [
    detected(1, DOG, [4, 4, 20, 20], 0.9),
    detected(2, DOG, [10, 10, 30, 30], 0.8),
    detected(3, SHEEP, [2, 2, 40, 40], 0.7),
]


@dataclass(frozen=True)
class Looked:
    """A data root and a work folder."""

    data: Path
    work: Path

    @property
    def places(self) -> Places:
        return Places(self.data, self.work)

    @property
    def options(self) -> tuple[str, ...]:
        return ("--work-dir", str(self.work), "--data-root", str(self.data))

    @property
    def split(self) -> Path:
        return split_folder(self.work, "mine", 0)

    def run(self, method: str, found: Sequence[Any] | None, seed: int = 0, **fields: Any) -> Run:
        """Write a finished run; without predictions where none are given."""
        folder = runs.run_folder(self.work, "mine", 0, method, "", "mini", "default", seed)
        if found is not None:
            write_json(folder / runs.PREDICTIONS, list(found))
        ap: dict[str, float | None] = {"all": 40.0, "maj": 60.0, "min": 20.0}
        per_class: dict[str, float | None] = {"dog": 60.0, "sheep": 20.0}
        sha256 = json.loads((self.split / "manifest.json").read_text())["split_sha256"]
        usual: dict[str, Any] = {"task": "mine", "title": "My task", "split_sha256": sha256, "groups": GROUPS}
        usual |= {"ap": {"teacher": ap}, "per_class": {"teacher": per_class}}
        runs.write_record(folder, finished(method, seed, **{**usual, **fields}))
        return Run(folder, read_record(folder))


def looked(folder: Path, **fields: Any) -> Looked:
    """Write a split of three images a part with their boxes, images and manifest; ``fields`` are the manifest's."""
    place = Looked(folder / "data", folder / "work")
    (place.data / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in (first + image for first in (0, 100, 200) for image in BOXES):
        cv2.imwrite(str(place.data / f"images/{number}.png"), rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))
    write_json(place.data / "val.json", annotations(200))
    place.split.mkdir(parents=True)
    contents = (annotations(0), {**annotations(100), "annotations": []}, annotations(100))
    for name, content in zip(FILES, contents, strict=True):
        write_json(place.split / name, content)
    val = {"path": "val.json", "sha256": hashlib.sha256((place.data / "val.json").read_bytes()).hexdigest()}
    files = {name: hashlib.sha256((place.split / name).read_bytes()).hexdigest() for name in FILES}
    counts = {"dog": 1, "sheep": 2}
    manifest = {
        **{"schema": 1, "task": "mine", "title": "My task", "split_seed": 0, "cover": "uniform", "algorithm": 1},
        **{"labelled_percent": 10.0, "min_instances": 1, "minority": ["sheep"], "dm_minority": "drop"},
        **{"counts": {"labelled": 4, "unlabelled": 4}, "boxes": {"labelled": 3, "ignored": 0, "hidden": 3}},
        **{"groups": GROUPS, "classes": list(CLASSES), "per_group": {}, "box_policy": {}, "imbalance": 1.0},
        **{"per_class": {name: {"images": 1, "boxes": boxes} for name, boxes in counts.items()}},
        **{"below_minimum": [], "images": {"train": "images", "val": "images"}, "metric": "coco", "max_dets": 100},
        **{"inputs": {"val": val}, "val": val, "files": files, "split_sha256": split_sha256(files), **fields},
    }
    write_json(place.split / "manifest.json", manifest)
    return place
