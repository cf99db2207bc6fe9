"""A finished run with its split and its data, all of a few boxes; its record holds the AP that its predictions have."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from score_records import finished
from split_folders import FILES

from cissod_bench.files.whole_files import write_json
from cissod_bench.records import run_folder as runs
from cissod_bench.scoring.evaluate import score
from cissod_bench.splitting.manifest import split_sha256

CLASSES = ("disc", "star")
GROUPS = {"maj": ["disc"], "min": ["star"]}
VAL = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"image_id": 2, "category_id": 2, "bbox": [5, 5, 20, 20]},
    ],
}
DETECTED = [
    {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9},
    {"image_id": 2, "category_id": 2, "bbox": [5, 5, 20, 15], "score": 0.8},
]


@dataclass(frozen=True)
class Place:
    """A work folder with runs on a split of the task "mine", and its data root."""

    work: Path
    data: Path

    @property
    def options(self) -> tuple[Any, ...]:
        return ("--work-dir", self.work, "--data-root", self.data)

    def split_manifest(self, sha: str = "ab") -> dict[str, Any]:
        """The manifest of a split that was drawn for the validation file in the data root."""
        val = {"path": "val.json", "sha256": hashlib.sha256((self.data / "val.json").read_bytes()).hexdigest()}
        files = dict.fromkeys(FILES, sha * 32)
        return {
            **{"schema": 1, "task": "mine", "title": "My task", "split_seed": 0, "cover": "uniform", "algorithm": 1},
            **{"labelled_percent": 10.0, "min_instances": 1, "minority": ["star"], "dm_minority": "drop"},
            **{"counts": {"labelled": 0, "unlabelled": 0}, "boxes": {"labelled": 0, "ignored": 0, "hidden": 0}},
            **{"groups": GROUPS, "classes": list(CLASSES), "per_group": {}, "box_policy": {}, "imbalance": 1.0},
            **{"per_class": {name: {"images": 0, "boxes": 0} for name in CLASSES}, "below_minimum": ["star"]},
            **{"images": {}, "metric": "coco", "max_dets": 100, "inputs": {"val": val}, "val": val, "files": files},
            "split_sha256": split_sha256(files),
        }

    def run(self, seed: int = 0, **fields: Any) -> Path:
        """Write a run's folder: record, log, predictions of both models and a checkpoint of 5,000 bytes."""
        folder = runs.run_folder(self.work, "mine", 0, "ours", "", "mini", "default", seed)
        for name in (runs.PREDICTIONS, runs.STUDENT_PREDICTIONS):
            write_json(folder / name, DETECTED)
        scores = score(self.data / "val.json", folder / runs.PREDICTIONS, groups=GROUPS)
        both = ("teacher", "student")
        record = finished(
            "ours",
            seed,
            task="mine",
            split_sha256=self.split_manifest()["split_sha256"],
            groups=GROUPS,
            engine=scores.engine,
            ap=dict.fromkeys(both, scores.columns),
            per_class={who: dict(scores.per_class) for who in both},
        )
        runs.write_record(folder, replace(record, **fields))
        (folder / runs.LOG).write_text('{"iteration": 900}\n', encoding="utf-8")
        (folder / runs.CHECKPOINT).write_bytes(b"w" * 5_000)
        return folder


def place_in(folder: Path, *, split: bool = True) -> Place:
    """Make a work folder and a data root; the split is drawn or not."""
    place = Place(folder / "work", folder / "data")
    place.data.mkdir(parents=True)
    (place.data / "val.json").write_text(json.dumps(VAL), encoding="utf-8")
    if split:
        write_json(place.work / "splits" / "mine" / "seed0" / "manifest.json", place.split_manifest())
    return place
