"""What is known of a split: its manifest with options, counts and hashes, as a typed object and as the file.

A manifest is checked once, when it is read; who holds a ``Manifest`` can trust its keys, their types and what they say
of each other. Keys that this version does not know are kept in ``document``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.annotations.naming import Naming
from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.splitting.data_files import FILES

MANIFEST = "manifest.json"
SCHEMA = 1
UNKNOWN = "unknown"
"""Value of ``hidden_boxes`` where nobody gave the boxes of D_u."""

_SELDOM = ("doubtful_sizes", "score_floor", "normalised", "imported", "imported_files", "hidden_boxes")
"""Keys that are written only where they say something."""
_AGAIN = "cissod-bench make-splits --force"


class HashedFile(msgspec.Struct, frozen=True):
    """A file and the sha256 of its bytes."""

    path: str
    sha256: str


class BoxCounts(msgspec.Struct, frozen=True):
    """Boxes that D_l shows, those of them that are ignore regions, and boxes that D_u hides."""

    labelled: int
    ignored: int
    hidden: int


class GroupCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Number of classes of a group, their boxes in D_l and in D_u, and which have too few in D_l (None: not said)."""

    classes: int
    labelled: int
    hidden: int
    below_minimum: list[str] | None = None


class ClassCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of one class; None is what an older version or an import does not say.

    Attributes:
        images: images of D_l that show a box of it.
        boxes: its boxes in D_l.
        unlabelled_images: images of D_u with a box of it.
        unlabelled_boxes: its boxes hidden in D_u.
        original_boxes: its boxes in the whole data set.
        dropped_boxes: its boxes on images of D_l that D_l does not show.
        ignored_boxes: its boxes that became ignore regions.
    """

    images: int
    boxes: int
    unlabelled_images: int | None = None
    unlabelled_boxes: int | None = None
    original_boxes: int | None = None
    dropped_boxes: int | None = None
    ignored_boxes: int | None = None


class Offset(msgspec.Struct, frozen=True):
    """What is added to the ids of one further data set."""

    images: int
    annotations: int


class Manifest(msgspec.Struct, kw_only=True, frozen=True, dict=True):
    """All that a split says of itself; the fields stand in the order of the file's keys.

    Fields with a default are keys that older manifests lack, or that only some splits have.

    Attributes:
        schema: version of the layout, 1.
        task, title: of the sub-task.
        split_seed, cover, labelled_percent, min_instances, minority, dm_minority, unlabelled_percent: how it was drawn
            (``DrawOptions``).
        stated: all that the task stated then (``statements.stated``); empty in an older manifest.
        algorithm: version of the drawing.
        tool_version: of cissod-bench; "?" in an older manifest.
        counts: images of D_m and D_s ("labelled" is D_l in all) and of D_u ("unlabelled").
        left_out: reason -> images that are in no part.
        boxes: boxes of D_l and D_u; crowd and ignore regions are none.
        per_group: group -> its counts.
        imbalance: most boxes of a class in D_l over fewest, >= 1; None where D_l shows none.
        below_minimum: classes that D_l must cover and that have fewer than ``min_instances`` boxes there.
        per_class: name of a class -> its counts.
        groups: group -> names of its classes in channel order; every class is in one.
        views: view -> other groups to score by.
        classes: names in channel order.
        images: role -> image folder below the data root.
        naming: how image records name their files.
        doubtful_sizes: files whose annotated width and height were exchanged: ``read_annotations`` takes them as
            ``doubtful`` for the split's own files, and as ``swapped`` for the validation file, which is as published.
        metric: "coco" or "lvis".
        max_dets: detections that are scored.
        score_floor: detections at or below this score are not scored; None where the split does not say.
        inputs: role -> annotation file it was drawn from, below the data root.
        val: the one that is scored against.
        normalised: role -> what was normalised when that file was read (``lenient.WORDS``) -> in how many records.
        box_policy: what became of odd boxes -> how many.
        rewritten: "clipped", "ignored", "swapped" -> ids of the records that had to be changed; the key "part" of
            labelled images, what is ``normalised`` and the ids of a further data set are not among them.
        dropped: "degenerate", "outside" -> ids of the boxes that were left out.
        offsets: role of a further data set -> what is added to its ids.
        ids_sha256: part -> hash of its image ids, ascending, one a line.
        files: data file -> sha256; empty for a split that is not written.
        split_sha256: hash over these; "" for a split that is not written.
        imported: whether others drew it.
        imported_files: "labelled", "unlabelled", "hidden" -> the file that was imported.
        hidden_boxes: where an import has the boxes of D_u from; ``UNKNOWN`` where nobody knows them.
    """

    schema: int
    task: str
    title: str
    split_seed: int
    cover: str | None
    labelled_percent: float
    min_instances: int
    minority: list[str]
    dm_minority: str
    unlabelled_percent: float = 100.0
    stated: dict[str, Any] = {}
    algorithm: int
    tool_version: str = "?"
    counts: dict[str, int]
    left_out: dict[str, int] = {}
    boxes: BoxCounts
    per_group: dict[str, GroupCounts]
    imbalance: float | None
    below_minimum: list[str]
    per_class: dict[str, ClassCounts]
    groups: dict[str, list[str]]
    views: dict[str, dict[str, list[str]]] = {}
    classes: list[str]
    images: dict[str, str]
    naming: Naming = "file_name"
    doubtful_sizes: list[str] = []
    metric: str
    max_dets: int
    score_floor: float | None = None
    inputs: dict[str, HashedFile]
    val: HashedFile
    normalised: dict[str, dict[str, int]] = {}
    box_policy: dict[str, int]
    rewritten: dict[str, list[int]] = {}
    dropped: dict[str, list[int]] = {}
    offsets: dict[str, Offset] = {}
    ids_sha256: dict[str, str] = {}
    files: dict[str, str]
    split_sha256: str
    imported: bool = False
    imported_files: dict[str, HashedFile] = {}
    hidden_boxes: str = ""

    @cached_property
    def document(self) -> dict[str, Any]:
        """The manifest as plain JSON: of one that was read what stands in the file, else what is to be written."""
        written: dict[str, Any] = msgspec.to_builtins(self)
        for key in _SELDOM:
            if not written[key]:
                del written[key]
        if not self.files:
            written["split_sha256"] = None
        if self.imported:  # these keys are about the imported files and stand together behind all others
            last = [key for key in ("normalised", "imported", "imported_files", "hidden_boxes") if key in written]
            written |= {key: written.pop(key) for key in last}
        return written

    def held(self, *keys: str) -> dict[str, Any]:
        """Return those of the keys that the file holds, as plain JSON; an older one lacks the newest."""
        return {key: self.document[key] for key in keys if key in self.document}

    @property
    def group_of(self) -> dict[str, str]:
        """Name of a class -> its group."""
        return {name: group for group, names in self.groups.items() for name in names}

    @property
    def hidden_known(self) -> bool:
        """Whether the boxes of D_u are known; some who publish a split keep them, own photographs have none."""
        return self.hidden_boxes != UNKNOWN

    @property
    def was_drawn(self) -> bool:
        """Whether D_l was drawn from a labelled set, and is neither imported nor a part that somebody had."""
        return not self.imported and self.hidden_known


_REQUIRED = tuple(field.name for field in msgspec.structs.fields(Manifest) if field.required)


def split_folder(work_dir: Path, task: str, split_seed: int) -> Path:
    """Return ``work_dir/splits/<task>/seed<k>``; nothing is created."""
    return work_dir / "splits" / task / f"seed{split_seed}"


def split_sha256(files: Mapping[str, str]) -> str:
    """Return the one hash of a split: over the lines that sha256sum prints for its three data files."""
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in FILES).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a split's folder; its keys, their types and what they say of each other are checked.

    Raises:
        DataFault: there is none, it is no JSON, is of a newer schema, or a key is missing or contradicts another one.
    """
    path = folder / MANIFEST
    document = _read_document(folder)
    if missing := [key for key in _REQUIRED if key not in document]:
        raise DataFault(f"{path} lacks the key {missing[0]!r}.", remedy=_AGAIN)
    if isinstance(document["schema"], int) and document["schema"] > SCHEMA:
        message = f"{path} has schema {document['schema']!r}; this version reads up to {SCHEMA}."
        raise DataFault(message, remedy="update cissod-bench")
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise DataFault(f"{path}: {error}.", remedy=_AGAIN) from None
    if rule := _broken_rule(manifest):
        raise DataFault(f"{path}: {rule}.", remedy=_AGAIN)
    vars(manifest)["document"] = document
    return manifest


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        document: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, NotADirectoryError):
        raise DataFault(f"{folder} holds no split: {MANIFEST} is missing.", remedy="cissod-bench make-splits") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise DataFault(f"{path} cannot be read: {error}.", remedy=_AGAIN) from None
    return document


def _broken_rule(manifest: Manifest) -> str | None:
    """Return the rule between keys that a manifest breaks, or None."""
    if absent := [key for key in ("labelled", "unlabelled") if key not in manifest.counts]:
        return f"counts lacks the key {absent[0]!r}"
    if manifest.files.keys() != set(FILES):
        return f"files must name {', '.join(FILES)}, and names {', '.join(manifest.files) or 'none'}"
    if manifest.split_sha256 != (right := split_sha256(manifest.files)):
        return f"split_sha256 must be the hash over files, {right}, and is {manifest.split_sha256!r}"
    if manifest.inputs.get("val") != manifest.val:
        return "inputs must hold under 'val' what val holds"
    return _broken_class_rule(manifest)


def _broken_class_rule(manifest: Manifest) -> str | None:
    """Return the rule about classes and their groups that a manifest breaks, or None."""
    classes = manifest.classes
    named = [name for names in manifest.groups.values() for name in names]
    if len(set(classes)) < len(classes):
        return "classes names a class twice"
    if sorted(named) != sorted(classes):
        odd = sorted(set(named) ^ set(classes)) or [name for name in classes if named.count(name) > 1]
        return f"groups must hold every one of classes once; {odd[0]!r} breaks that"
    if manifest.minority and sorted(manifest.minority) != sorted(manifest.groups.get("min", [])):
        return "groups.min must hold the names of minority"
    if manifest.per_class.keys() != set(classes):
        return "per_class must hold every one of classes"
    return None


def verify(folder: Path) -> Manifest:
    """Return the manifest after comparing every data file with its hash.

    Raises:
        DataFault: a file is missing or differs from what was drawn.
    """
    manifest = read_manifest(folder)
    for name in FILES:
        path, drawn = folder / name, manifest.files[name]
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            raise DataFault(f"{path} cannot be read ({error.strerror}).", remedy=_AGAIN) from None
        if sha256 != drawn:
            raise DataFault(f"{path} has been changed: its sha256 is {sha256}, drawn was {drawn}.", remedy=_AGAIN)
    return manifest
