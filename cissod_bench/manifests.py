"""What was drawn from what: a split's folder and its manifest with options, counts and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from cissod_bench import __version__
from cissod_bench.annotations import Ints
from cissod_bench.atomic import folder_appearing, json_bytes
from cissod_bench.drawing import ALGORITHM, Split
from cissod_bench.errors import DataFault
from cissod_bench.spec import Task
from cissod_bench.split_files import FILES, Progress, hidden_boxes, write_data_files

MANIFEST = "manifest.json"
SCHEMA = 1
Manifest: TypeAlias = dict[str, Any]

_KEYS = ("schema", "task", "split_seed", "cover", "counts", "groups", "per_class", "files", "inputs", "split_sha256", "images", "classes", "val")


@dataclass(frozen=True)
class Input:
    """An annotation file a split was drawn from: its path relative to the data root, and the hash of its bytes."""

    path: str
    sha256: str


def split_folder(work_dir: Path, task: str, split_seed: int) -> Path:
    """Return ``work_dir/splits/<task>/seed<k>``; nothing is created."""
    return work_dir / "splits" / task / f"seed{split_seed}"


def write_split(folder: Path, split: Split, task: Task, inputs: Mapping[str, Input], progress: Progress | None = None) -> Manifest:
    """Write a split's folder, whole or not at all, in place of one that is there; return its manifest.

    Args:
        folder: the split's place, ``split_folder(...)``.
        split: what was drawn.
        task: the sub-task.
        inputs: role -> annotation file.
        progress: called every few thousand records.
    """
    with folder_appearing(folder) as hidden:
        files = write_data_files(hidden, split.source, progress)
        manifest = describe(split, task, inputs, files)
        (hidden / MANIFEST).write_bytes(json_bytes(manifest))
    return manifest


def describe(split: Split, task: Task, inputs: Mapping[str, Input], files: Mapping[str, str]) -> Manifest:
    """Return the manifest of a split whose data files have these hashes (none: not written). It holds no time and no absolute path."""
    options, source, data = split.options, split.source, split.source.annotations
    images = {name: len(rows) for name, rows in source.labelled.items()}
    counted = source.shown & data.instances() & ~source.ignored
    per_class = _per_class(split)
    return {
        "schema": SCHEMA,
        "task": task.name,
        "title": task.title,
        "split_seed": options.split_seed,
        "cover": options.cover,
        "labelled_percent": options.labelled_percent,
        "min_instances": options.min_instances,
        "minority": list(options.minority or ()),
        "dm_minority": options.dm_minority,
        "algorithm": ALGORITHM,
        "tool_version": __version__,
        "counts": {**images, "labelled": sum(images.values()), "unlabelled": len(source.unlabelled)},
        "boxes": {"labelled": int(counted.sum()), "ignored": int(source.ignored.sum()), "hidden": int((hidden_boxes(source) & data.instances()).sum())},
        "groups": {group: list(names) for group, names in split.groups.items()},
        "per_group": _per_group(split, per_class),
        "per_class": per_class,
        "below_minimum": [name for name in options.minority or () if per_class[name]["boxes"] < options.min_instances],
        "imbalance": _imbalance(per_class),
        "classes": list(data.classes),
        "images": dict(task.images),
        "metric": task.metric,
        "max_dets": task.max_dets,
        "inputs": {role: {"path": one.path, "sha256": one.sha256} for role, one in inputs.items()},
        "val": {"path": inputs["val"].path, "sha256": inputs["val"].sha256},
        "box_policy": data.policy.counts(),
        "rewritten": {
            "clipped": sorted(data.policy.clipped),
            "ignored": sorted(data.box_ids[source.ignored].tolist()),
            "dropped": {"degenerate": sorted(data.policy.degenerate), "outside": sorted(data.policy.outside)},
        },
        "ids_sha256": {name: _ids_sha256(data.image_ids[rows]) for name, rows in {**source.labelled, "unlabelled": source.unlabelled}.items()},
        "files": dict(files),
        "split_sha256": split_sha256(files) if files else None,
    }


def split_sha256(files: Mapping[str, str]) -> str:
    """Return the one hash of a split: over the lines "<sha256>  <file name>" of its data files, as sha256sum prints them."""
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in FILES).encode()).hexdigest()


def _ids_sha256(ids: Ints) -> str:
    return hashlib.sha256("".join(f"{number}\n" for number in np.sort(ids)).encode()).hexdigest()


def _per_class(split: Split) -> dict[str, dict[str, int]]:
    """Return class name -> images and boxes of D_l that count as its instances."""
    source, data = split.source, split.source.annotations
    counted = source.shown & data.instances() & ~source.ignored
    num = len(data.classes)
    boxes = np.bincount(data.box_class[counted], minlength=num)
    pairs = np.unique(data.box_image[counted].astype(np.int64) * num + data.box_class[counted])
    images = np.bincount(pairs % num, minlength=num)
    return {name: {"images": int(images[row]), "boxes": int(boxes[row])} for row, name in enumerate(data.classes)}


def _per_group(split: Split, per_class: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return group -> classes, boxes in D_l and hidden boxes of D_u."""
    data = split.source.annotations
    hidden = hidden_boxes(split.source) & data.instances()
    in_hidden = dict(zip(data.classes, np.bincount(data.box_class[hidden], minlength=len(data.classes)).tolist(), strict=True))
    return {
        group: {"classes": len(names), "labelled": sum(per_class[name]["boxes"] for name in names), "hidden": sum(in_hidden[name] for name in names)}
        for group, names in split.groups.items()
    }


def _imbalance(per_class: Mapping[str, Mapping[str, int]]) -> float | None:
    """Return boxes of the most frequent class over boxes of the rarest one in D_l; None if a class has none."""
    boxes = [counts["boxes"] for counts in per_class.values()]
    return round(max(boxes) / min(boxes), 2) if min(boxes) else None


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a split's folder.

    Raises:
        DataFault: there is none, it is no JSON, lacks a key or is of a newer schema.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, NotADirectoryError):
        raise DataFault(f"{folder} holds no split: {MANIFEST} is missing.", remedy="cissod-bench make-splits") from None
    except (msgspec.DecodeError, OSError) as error:
        raise DataFault(f"{path} cannot be read: {error}.", remedy="cissod-bench make-splits --force") from None
    if missing := [key for key in _KEYS if key not in manifest]:
        raise DataFault(f"{path} lacks the key {missing[0]!r}.", remedy="cissod-bench make-splits --force")
    if not isinstance(manifest["schema"], int) or manifest["schema"] > SCHEMA:
        raise DataFault(f"{path} has schema {manifest['schema']!r}; this version reads up to {SCHEMA}.", remedy="update cissod-bench")
    return manifest


def verify(folder: Path) -> Manifest:
    """Return the manifest after comparing every data file with its hash.

    Raises:
        DataFault: a file is missing or differs from what was drawn.
    """
    manifest = read_manifest(folder)
    for name in FILES:
        path = folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            raise DataFault(f"{path} cannot be read ({error.strerror}).", remedy="cissod-bench make-splits --force") from None
        if found != manifest["files"].get(name):
            raise DataFault(f"{path} has been changed: its sha256 is {found}, drawn was {manifest['files'].get(name)}.", remedy="cissod-bench make-splits --force")
    return manifest


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
