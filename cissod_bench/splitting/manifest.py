"""What was drawn from what: a split's folder and its manifest with options, counts and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench import __version__
from cissod_bench.annotations.lenient import normalised
from cissod_bench.annotations.naming import Naming
from cissod_bench.annotations.reading import Bools
from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.whole_files import folder_appearing, json_bytes
from cissod_bench.splitting.data_files import FILES, write_data_files
from cissod_bench.splitting.drawing import ALGORITHM
from cissod_bench.splitting.manifest_counts import counts_of
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.split import Source, Split
from cissod_bench.splitting.statements import stated
from cissod_bench.splitting.task import Task

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
    below_minimum: list[str] | None = None


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
    imbalance: float | None
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


class _MoreOfClass(msgspec.Struct):
    unlabelled_images: int | None = None
    unlabelled_boxes: int | None = None
    original_boxes: int | None = None
    dropped_boxes: int | None = None
    ignored_boxes: int | None = None


class _Offset(msgspec.Struct):
    images: int
    annotations: int


class _Optional(msgspec.Struct):
    """Keys that older manifests lack or that only some splits have, and their types."""

    per_class: dict[str, _MoreOfClass] = {}
    left_out: dict[str, int] = {}
    naming: Naming = "file_name"
    doubtful_sizes: list[str] = []
    views: dict[str, dict[str, list[str]]] = {}
    rewritten: dict[str, list[int]] = {}
    dropped: dict[str, list[int]] = {}
    offsets: dict[str, _Offset] = {}
    ids_sha256: dict[str, str] = {}
    unlabelled_percent: float = 100.0
    imported: bool = False
    imported_files: dict[str, _File] = {}
    hidden_boxes: str = ""
    normalised: dict[str, dict[str, int]] = {}
    stated: dict[str, Any] = {}


@dataclass(frozen=True)
class Input:
    """An annotation file a split was drawn from.

    Attributes:
        path: relative to the data root.
        sha256: hash of its bytes.
        normalised: what was normalised when it was read (``lenient.WORDS``) -> in how many records.
    """

    path: str
    sha256: str
    normalised: Mapping[str, int] = field(default_factory=dict)


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
        files = write_data_files(hidden, split, progress)
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
    return {
        "schema": SCHEMA,
        "task": task.name,
        "title": task.title,
        **_options(split.options),
        "stated": stated(task),
        "algorithm": ALGORITHM,
        "tool_version": __version__,
        **counts_of(split),
        "groups": {group: list(names) for group, names in split.groups.items()},
        "views": {
            view: {group: list(names) for group, names in groups.items()} for view, groups in split.views.items()
        },
        "classes": list(split.classes),
        "images": dict(task.images),
        "naming": task.naming,
        **({"doubtful_sizes": list(task.swapped)} if task.swapped else {}),
        "metric": task.metric,
        "max_dets": task.max_dets,
        "inputs": {role: {"path": one.path, "sha256": one.sha256} for role, one in inputs.items()},
        "val": {"path": inputs["val"].path, "sha256": inputs["val"].sha256},
        **normalised({role: one.normalised for role, one in inputs.items()}),
        **_rewritten(split),
        "ids_sha256": _ids_sha256(split),
        "files": dict(files),
        "split_sha256": split_sha256(files) if files else None,
    }


def _options(options: DrawOptions) -> Manifest:
    return {**vars(options), "minority": list(options.minority or ())}


def _rewritten(split: Split) -> Manifest:
    """Return what became of odd boxes, and the ids of all records that are not the input's bytes.

    Records of a further source are all rewritten: their ids are offset and their classes those of the first.
    """
    policies = [source.annotations.policy for source in split.sources]
    data = [source.annotations for source in split.sources]
    offsets = split.offsets()
    return {
        "box_policy": {rule: sum(one.counts()[rule] for one in policies) for rule in policies[0].counts()},
        "rewritten": {
            "clipped": sorted(number for one in policies for number in one.clipped),
            "ignored": sorted(n for source in split.sources for n in _ids_of_boxes(source, source.ignored)),
            "swapped": sorted(number for one in data for number in one.image_ids[one.swapped].tolist()),
        },
        "dropped": {
            "degenerate": sorted(number for one in policies for number in one.degenerate),
            "outside": sorted(number for one in policies for number in one.outside),
        },
        "offsets": {
            source.root: {"images": images, "annotations": boxes}
            for source, (images, boxes) in zip(split.sources, offsets, strict=True)
            if images or boxes
        },
    }


def _ids_of_boxes(source: Source, boxes: Bools) -> list[int]:
    numbers: list[int] = source.annotations.box_ids[boxes].tolist()
    return numbers


def _ids_sha256(split: Split) -> dict[str, str]:
    """Return part -> hash of its image ids, ascending, one a line."""
    parts: dict[str, list[npt.NDArray[np.int64]]] = {}
    for source, (offset, _) in zip(split.sources, split.offsets(), strict=True):
        for name, rows in {**source.labelled, "unlabelled": source.unlabelled}.items():
            parts.setdefault(name, []).append(source.annotations.image_ids[rows] + offset)
    hashes = {}
    for name, ids in parts.items():
        lines = "".join(f"{number}\n" for number in np.sort(np.concatenate(ids)).tolist())
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
        msgspec.convert(manifest, _Optional)
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
