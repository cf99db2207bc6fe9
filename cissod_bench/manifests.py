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
from cissod_bench.annotations import Annotations, Bools
from cissod_bench.atomic import folder_appearing, json_bytes
from cissod_bench.drawing import ALGORITHM
from cissod_bench.errors import DataFault
from cissod_bench.json_files import Progress, file_sha256
from cissod_bench.spec import DrawOptions, Task
from cissod_bench.split import Source, Split
from cissod_bench.split_files import FILES, hidden_boxes, write_data_files

MANIFEST = "manifest.json"
SCHEMA = 1
Manifest: TypeAlias = dict[str, Any]


class _File(msgspec.Struct):
    path: str
    sha256: str


class _Boxes(msgspec.Struct):
    labelled: int
    ignored: int
    hidden: int


class _OfGroup(msgspec.Struct):
    classes: int
    labelled: int
    hidden: int


class _OfClass(msgspec.Struct):
    images: int
    boxes: int


class _Layout(msgspec.Struct):
    """The keys that programs rely on, and their types; a manifest may hold more."""

    schema: int
    task: str
    title: str
    split_seed: int
    cover: str | None
    labelled_percent: float
    min_instances: int
    minority: list[str]
    dm_minority: str
    algorithm: int
    counts: dict[str, int]
    boxes: _Boxes
    per_group: dict[str, _OfGroup]
    imbalance: float
    below_minimum: list[str]
    per_class: dict[str, _OfClass]
    groups: dict[str, list[str]]
    classes: list[str]
    images: dict[str, str]
    metric: str
    max_dets: int
    inputs: dict[str, _File]
    val: _File
    box_policy: dict[str, int]
    files: dict[str, str]
    split_sha256: str


@dataclass(frozen=True)
class Input:
    """An annotation file a split was drawn from: its path relative to the data root, and the hash of its bytes."""

    path: str
    sha256: str


def split_folder(work_dir: Path, task: str, split_seed: int) -> Path:
    """Return ``work_dir/splits/<task>/seed<k>``; nothing is created."""
    return work_dir / "splits" / task / f"seed{split_seed}"


def write_split(
    folder: Path, split: Split, task: Task, inputs: Mapping[str, Input], progress: Progress | None = None
) -> Manifest:
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
    """Return the manifest of a split; it holds no time and no absolute path, so equal draws give equal manifests.

    Args:
        split: what was drawn.
        task: the sub-task.
        inputs: role -> annotation file.
        files: data file -> sha256; empty for a split that is not written.
    """
    classes = list(split.source.annotations.classes)
    return {
        "schema": SCHEMA,
        "task": task.name,
        "title": task.title,
        **_options(split.options),
        "algorithm": ALGORITHM,
        "tool_version": __version__,
        **_counts(split),
        "groups": {group: list(names) for group, names in split.groups.items()},
        "classes": classes,
        "images": dict(task.images),
        "metric": task.metric,
        "max_dets": task.max_dets,
        "inputs": {role: {"path": one.path, "sha256": one.sha256} for role, one in inputs.items()},
        "val": {"path": inputs["val"].path, "sha256": inputs["val"].sha256},
        **_rewritten(split.source),
        "ids_sha256": _ids_sha256(split.source),
        "files": dict(files),
        "split_sha256": split_sha256(files) if files else None,
    }


def _options(options: DrawOptions) -> Manifest:
    return {**vars(options), "minority": list(options.minority or ())}


def _counts(split: Split) -> Manifest:
    """Return images and boxes of D_l and D_u: in all, a group and a class. Crowd and ignore regions are no boxes."""
    source, data, options = split.source, split.source.annotations, split.options
    images = {name: len(rows) for name, rows in source.labelled.items()}
    shown = source.shown & data.instances() & ~source.ignored
    hidden = hidden_boxes(source) & data.instances()
    per_class = _per_class(data, shown)
    in_d_u = {name: counts["boxes"] for name, counts in _per_class(data, hidden).items()}
    in_d_l = {name: counts["boxes"] for name, counts in per_class.items()}
    held = [count for count in in_d_l.values() if count]
    return {
        "counts": {**images, "labelled": sum(images.values()), "unlabelled": len(source.unlabelled)},
        "boxes": {"labelled": int(shown.sum()), "ignored": int(source.ignored.sum()), "hidden": int(hidden.sum())},
        "per_group": {
            group: {
                "classes": len(names),
                "labelled": sum(in_d_l[name] for name in names),
                "hidden": sum(in_d_u[name] for name in names),
            }
            for group, names in split.groups.items()
        },
        "imbalance": round(max(held) / min(held), 2),
        "below_minimum": [name for name in options.minority or () if in_d_l[name] < options.min_instances],
        "per_class": per_class,
    }


def _per_class(data: Annotations, boxes: Bools) -> dict[str, dict[str, int]]:
    """Return class name -> images and boxes, of the chosen boxes."""
    num = len(data.classes)
    counts = np.bincount(data.box_class[boxes], minlength=num)
    pairs = np.unique(data.box_image[boxes].astype(np.int64) * num + data.box_class[boxes])
    images = np.bincount(pairs % num, minlength=num)
    return {name: {"images": int(images[row]), "boxes": int(counts[row])} for row, name in enumerate(data.classes)}


def _rewritten(source: Source) -> Manifest:
    """Return what became of odd boxes, and the ids of all records that are not the input's bytes."""
    policy = source.annotations.policy
    return {
        "box_policy": policy.counts(),
        "rewritten": {
            "clipped": sorted(policy.clipped),
            "ignored": sorted(source.annotations.box_ids[source.ignored].tolist()),
        },
        "dropped": {"degenerate": sorted(policy.degenerate), "outside": sorted(policy.outside)},
    }


def _ids_sha256(source: Source) -> dict[str, str]:
    """Return part -> hash of its image ids, ascending, one a line."""
    hashes = {}
    for name, rows in {**source.labelled, "unlabelled": source.unlabelled}.items():
        lines = "".join(f"{number}\n" for number in np.sort(source.annotations.image_ids[rows]).tolist())
        hashes[name] = hashlib.sha256(lines.encode()).hexdigest()
    return hashes


def split_sha256(files: Mapping[str, str]) -> str:
    """Return the one hash of a split: over the lines that sha256sum prints for its three data files."""
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in FILES).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a split's folder; its keys, their types and what they say of each other are checked.

    Raises:
        DataFault: there is none, it is no JSON, is of a newer schema, or a key is missing or contradicts another one.
    """
    path = folder / MANIFEST
    again = "cissod-bench make-splits --force"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, NotADirectoryError):
        raise DataFault(f"{folder} holds no split: {MANIFEST} is missing.", remedy="cissod-bench make-splits") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise DataFault(f"{path} cannot be read: {error}.", remedy=again) from None
    if missing := [key for key in _Layout.__struct_fields__ if key not in manifest]:
        raise DataFault(f"{path} lacks the key {missing[0]!r}.", remedy=again)
    if isinstance(manifest["schema"], int) and manifest["schema"] > SCHEMA:
        message = f"{path} has schema {manifest['schema']!r}; this version reads up to {SCHEMA}."
        raise DataFault(message, remedy="update cissod-bench")
    try:
        rule = _broken_rule(msgspec.convert(manifest, _Layout))
    except msgspec.ValidationError as error:
        rule = str(error)
    if rule:
        raise DataFault(f"{path}: {rule}.", remedy=again)
    return manifest


def _broken_rule(layout: _Layout) -> str | None:
    """Return the rule between keys that a manifest breaks, or None."""
    named = [name for names in layout.groups.values() for name in names]
    if absent := [key for key in ("labelled", "unlabelled") if key not in layout.counts]:
        return f"counts lacks the key {absent[0]!r}"
    if layout.files.keys() != set(FILES):
        return f"files must name {', '.join(FILES)}, and names {', '.join(layout.files) or 'none'}"
    if layout.split_sha256 != split_sha256(layout.files):
        return f"split_sha256 must be the hash over files, {split_sha256(layout.files)}, and is {layout.split_sha256!r}"
    if layout.inputs.get("val") != layout.val:
        return "inputs must hold under 'val' what val holds"
    if len(set(layout.classes)) < len(layout.classes):
        return "classes names a class twice"
    if sorted(named) != sorted(layout.classes):
        odd = sorted(set(named) ^ set(layout.classes)) or [name for name in layout.classes if named.count(name) > 1]
        return f"groups must hold every one of classes once; {odd[0]!r} breaks that"
    if layout.minority and sorted(layout.minority) != sorted(layout.groups.get("min", [])):
        return "groups.min must hold the names of minority"
    if layout.per_class.keys() != set(layout.classes):
        return "per_class must hold every one of classes"
    return None


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
            raise DataFault(
                f"{path} cannot be read ({error.strerror}).", remedy="cissod-bench make-splits --force"
            ) from None
        if found != manifest["files"][name]:
            raise DataFault(
                f"{path} has been changed: its sha256 is {found}, drawn was {manifest['files'][name]}.",
                remedy="cissod-bench make-splits --force",
            )
    return manifest
