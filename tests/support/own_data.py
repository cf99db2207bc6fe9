"""A harbour: labelled images, photographs without labels and images to score, as somebody has them before any task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shapes import drawn

from cissod_bench.catalogue.task_files import find_task
from cissod_bench.split_folders.ensure import SplitOnDisk, draw_options, ensure_split

WEIGHTS = {"circle": 2.0, "square": 1.5, "heart": 1.0, "arrow": 0.8}
LABELLED, VAL = 12, 6
TASK = """title = "Harbour"
minority = ["heart", "arrow"]

[labelled]
annotations = "labelled.json"
images = "photos"

[unlabelled]
images = "unlabelled"

[val]
annotations = "val.json"
images = "photos"
"""


def harbour(root: Path, task: str = TASK) -> Path:
    """Make ``harbour.toml`` and the data it names below a folder: 12 labelled, 28 unlabelled and 6 scored images."""
    files = drawn({"train": 40, "val": VAL}, WEIGHTS, 3)
    (root / "photos").mkdir(parents=True)
    (root / "unlabelled" / "quay").mkdir(parents=True)
    train, val = (json.loads(files[f"annotations/{role}.json"]) for role in ("train", "val"))
    shown = {image["id"]: image["file_name"] for image in train["images"][:LABELLED]}
    for image in train["images"]:
        place = "photos" if image["id"] in shown else "unlabelled/quay" if image["id"] % 2 else "unlabelled"
        (root / place / f"a{image['file_name']}").write_bytes(files[f"images/train/{image['file_name']}"])
    for image in val["images"]:
        (root / "photos" / f"b{image['file_name']}").write_bytes(files[f"images/val/{image['file_name']}"])
    labelled = {
        "images": [{**image, "file_name": f"a{image['file_name']}"} for image in train["images"][:LABELLED]],
        "annotations": [box for box in train["annotations"] if box["image_id"] in shown],
        "categories": train["categories"],
    }
    scored = {**val, "images": [{**image, "file_name": f"b{image['file_name']}"} for image in val["images"]]}
    write(root / "labelled.json", labelled)
    write(root / "val.json", scored)
    path = root / "harbour.toml"
    path.write_text(task, encoding="utf-8")
    return path


def split_of(task_file: Path, work: Path | None = None, **given: Any) -> SplitOnDisk:
    """Return the split of a task file, made below its folder's neighbour."""
    task, work_dir = find_task(str(task_file)), work or task_file.parents[1] / "work"
    force = given.pop("force", False)
    return ensure_split(task, task_file.parents[1] / "data", work_dir, draw_options(task, **given), force=force)


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def read(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
