"""The typed manifest and its file: order of keys, keys of older and of other versions, what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import content, folder, made_manifest

from cissod_bench.errors import DataFault
from cissod_bench.splitting.manifest import read_manifest

Call = Callable[..., Any]

KEYS = [
    "schema", "task", "title", "split_seed", "cover", "labelled_percent", "min_instances", "minority", "dm_minority",
    "unlabelled_percent", "stated", "algorithm", "tool_version", "counts", "left_out", "boxes", "per_group",
    "imbalance", "below_minimum", "per_class", "groups", "views", "classes", "images", "naming", "metric", "max_dets",
    "inputs", "val", "box_policy", "rewritten", "dropped", "offsets", "ids_sha256", "files", "split_sha256",
]  # fmt: skip
"""The keys of a drawn split that has nothing seldom, in the order in which every version has written them."""
YOUNGER = (
    "unlabelled_percent", "stated", "tool_version", "left_out", "views", "naming", "rewritten", "dropped", "offsets",
    "ids_sha256",
)  # fmt: skip
"""Keys that older manifests lack."""


def test_keys_stand_in_the_file_as_they_always_have(split: Call, tmp_path: Path) -> None:
    assert split().code == 0
    document = content(folder(tmp_path) / "manifest.json")
    assert list(document) == KEYS
    counts = ["images", "boxes", "unlabelled_images", "unlabelled_boxes"]
    counts += ["original_boxes", "dropped_boxes", "ignored_boxes"]
    assert {tuple(of_class) for of_class in document["per_class"].values()} == {tuple(counts)}


def test_seldom_keys_stand_behind_what_they_belong_to() -> None:
    seldom = {"normalised": {"val": {"decimals": 1}}, "doubtful_sizes": ["a.jpg"]}
    drawn = list(made_manifest(**seldom).document)
    assert drawn.index("doubtful_sizes") == drawn.index("naming") + 1
    assert drawn.index("normalised") == drawn.index("val") + 1
    imported = made_manifest(**seldom, imported=True, hidden_boxes="given", imported_files={}).document
    assert list(imported)[-4:] == ["split_sha256", "normalised", "imported", "hidden_boxes"]


def test_a_manifest_of_another_version_is_read_and_shown_as_it_stands(split: Call, call: Call, tmp_path: Path) -> None:
    split()
    path = folder(tmp_path) / "manifest.json"
    keys = [key for key in reversed(KEYS) if key not in YOUNGER]
    written = content(path)
    older = {key: written[key] for key in keys} | {"from_the_future": {"kept": [1, None]}}
    for counts in older["per_class"].values():
        del counts["original_boxes"]
    path.write_text(json.dumps(older), encoding="utf-8")
    manifest = read_manifest(folder(tmp_path))
    assert (manifest.naming, manifest.unlabelled_percent, manifest.stated) == ("file_name", 100.0, {})
    assert manifest.per_class["circle"].original_boxes is None
    assert manifest.held("stated", "task", "naming") == {"task": "tiny"}
    shown = json.loads(call("splits", "show", "tiny", "--work-dir", tmp_path / "work", "--json").out)
    shown.pop("dir")
    assert json.dumps(shown) == json.dumps(older) == json.dumps(manifest.document)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in YOUNGER])
def test_a_manifest_without_a_key_that_every_version_writes_is_refused(split: Call, tmp_path: Path, key: str) -> None:
    split()
    path = folder(tmp_path) / "manifest.json"
    document = content(path)
    del document[key]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataFault, match=f"lacks the key '{key}'"):
        read_manifest(folder(tmp_path))
