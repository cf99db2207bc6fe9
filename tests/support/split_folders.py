"""Split folders of the tiny task, for tests of make-splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.splitting.manifest import Manifest

FILES = ("labelled.json", "unlabelled.json", "hidden.json")


def folder(tmp_path: Path, seed: int = 0, work: str = "work") -> Path:
    return tmp_path / work / "splits" / "tiny" / f"seed{seed}"


def made_manifest(**keys: Any) -> Manifest:
    """A manifest as an older version wrote it, of a split that holds hardly anything, with these keys."""
    val = {"path": "val.json", "sha256": "ab" * 32}
    document = {
        **{"schema": 1, "task": "mine", "title": "My task", "split_seed": 0, "cover": "uniform", "algorithm": 1},
        **{"labelled_percent": 10.0, "min_instances": 1, "minority": [], "dm_minority": "drop"},
        **{"counts": {"labelled": 0, "unlabelled": 0}, "boxes": {"labelled": 0, "ignored": 0, "hidden": 0}},
        **{"groups": {}, "classes": [], "per_group": {}, "per_class": {}, "box_policy": {}, "imbalance": None},
        **{"below_minimum": [], "images": {}, "metric": "coco", "max_dets": 100, "inputs": {"val": val}, "val": val},
        **{"files": {}, "split_sha256": ""},
    }
    return msgspec.convert({**document, **keys}, Manifest)


def content(path: Path) -> Any:
    return json.loads(path.read_bytes())


def data_bytes(path: Path) -> list[bytes]:
    return [(path / name).read_bytes() for name in FILES]
