"""A split's contract (``split.Split``), checked again from its files alone: no number of the manifest is believed.

Hashes tell whether the files are those that were written; this tells whether what was written is a split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.reading import Annotations, Bools, read_annotations
from cissod_bench.annotations.same_files import Listed, listed, shared_files
from cissod_bench.catalogue import list_tasks, load_task
from cissod_bench.controls import shown_name
from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.json_objects import Progress
from cissod_bench.splitting.data_files import FILES, HIDDEN, LABELLED, UNLABELLED
from cissod_bench.splitting.manifest import Manifest, read_manifest
from cissod_bench.splitting.parts import stated_parts
from cissod_bench.splitting.scenarios import boxes_of_classes, frequency_groups, images_of_classes
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.writing import ids_sha256


@dataclass(frozen=True)
class _File:
    """What the contract asks of one data file.

    Attributes:
        image_ids, box_ids: ascending; of all boxes, crowd regions too.
        crowd_ids: of the crowd and ignore regions, ascending.
        images, boxes: of the boxes that count, per class, (C,).
        classes: names in channel order.
        odd: boxes that the box policy drops or clips; a split holds none.
        files: the image files.
    """

    image_ids: Ints
    box_ids: Ints
    crowd_ids: Ints
    images: Ints
    boxes: Ints
    classes: tuple[str, ...]
    odd: tuple[int, ...]
    files: Listed


@dataclass(frozen=True)
class _Files:
    """The three data files.

    Attributes:
        parts: part ("D_m", "D_s", "" where none is said) -> ids of its images, ascending.
        minority_in_d_m: ids of boxes of the group "min" that count on images of D_m; there is to be none.
        scored: the image files of the validation file; None where that is not at hand.
    """

    labelled: _File
    unlabelled: _File
    hidden: _File
    parts: Mapping[str, Ints]
    minority_in_d_m: Ints
    scored: Listed | None


_Rule: TypeAlias = Callable[[_Files, Manifest], Iterator[str]]


def split_faults(
    folder: Path, progress: Progress | None = None, *, root: Path = Path(), val: Path | None = None
) -> list[str]:
    """Return everything that is wrong with a split's folder; nothing where it is sound.

    Args:
        folder: of the split.
        progress: called while its files are read.
        root: what its image folders are relative to.
        val: the validation file it was made for; where there is none, scored images are not looked at.
    """
    try:
        manifest = read_manifest(folder)
    except DataFault as fault:
        return [fault.message]
    faults = list(_changed(folder, manifest))
    try:
        files = _read(folder, manifest, progress, root, val)
    except DataFault as fault:
        return list(dict.fromkeys([*faults, fault.message]))
    rules: tuple[_Rule, ...] = (
        _classes_agree,
        _images_apart,
        _image_files_apart,
        _boxes_apart,
        _parts_kept,
        _counts_true,
        _classes_counted,
        _groups_true,
        _ids_true,
    )
    return faults + [f"{folder}: {text}" for rule in rules for text in rule(files, manifest)]


def _changed(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name in FILES:
        path, wanted = folder / name, manifest.files[name]
        try:
            sha256 = file_sha256(path)
        except FileNotFoundError:
            yield f"{path} does not exist."
        except OSError as error:
            yield f"{path} cannot be read: {error.strerror}."
        else:
            if sha256 != wanted:
                yield f"{path} has been changed: its sha256 is {sha256}, drawn was {wanted}."


def _read(folder: Path, manifest: Manifest, progress: Progress | None, root: Path, val: Path | None) -> _Files:
    """Read the data files one after the other; of the large ones only ids and counts are kept.

    Raises:
        DataFault: one breaks the rules of an annotation file.
    """
    naming, doubtful = manifest.naming, manifest.doubtful_sizes
    minority = manifest.groups.get("min", ())
    files = {}
    for name in FILES:
        with read_annotations(folder / name, naming=naming, doubtful=doubtful, progress=progress) as data:
            files[name] = _file(data, _listed(data, manifest, "train", root))
            if name == LABELLED:
                part_of = np.array(stated_parts(data), dtype=object)
                rows = np.array([row for row, name in enumerate(data.classes) if name in minority], np.int64)
                in_d_m = (part_of == "D_m")[data.box_image] & np.isin(data.box_class, rows) & data.instances()
                parts = {part: np.sort(data.image_ids[part_of == part]) for part in sorted(set(part_of.tolist()))}
                shown = np.sort(data.box_ids[in_d_m])
    scored = None
    if val is not None:
        images = manifest.images.get("val", "")
        place = ImageFolder(root / images, images)
        with read_annotations(val, naming=naming, doubtful=doubtful, folder=place, progress=progress) as data:
            scored = _listed(data, manifest, "val", root, place)
    return _Files(files[LABELLED], files[UNLABELLED], files[HIDDEN], parts, shown, scored)


def _listed(data: Annotations, manifest: Manifest, role: str, root: Path, folder: ImageFolder | None = None) -> Listed:
    """Return the image files of a data file without holding their names: for a message it is read again."""
    path, naming, doubtful = data.path, manifest.naming, manifest.doubtful_sizes

    def names(rows: Ints) -> list[str]:
        with read_annotations(path, naming=naming, doubtful=doubtful, folder=folder) as again:
            return [again.file_names[row] for row in rows.tolist()]

    return replace(listed(data, manifest.images, role, root), names=names)


def _file(data: Annotations, files: Listed) -> _File:
    counts: Bools = data.instances()
    policy = data.policy
    return _File(
        image_ids=np.sort(data.image_ids),
        box_ids=np.sort(data.box_ids),
        crowd_ids=np.sort(data.box_ids[data.crowd]),
        images=images_of_classes(data, counts),
        boxes=boxes_of_classes(data),
        classes=data.classes,
        odd=(*policy.degenerate, *policy.outside, *policy.clipped),
        files=files,
    )


def _classes_agree(files: _Files, manifest: Manifest) -> Iterator[str]:
    for name, file in zip(FILES, (files.labelled, files.unlabelled, files.hidden), strict=True):
        if list(file.classes) != manifest.classes:
            yield f"{name}: its categories are not the classes of the manifest."
        if file.odd:
            first = file.odd[0]
            yield f"{name}: {len(file.odd)} boxes are without area or reach out of their image, the first is {first}."


def _images_apart(files: _Files, manifest: Manifest) -> Iterator[str]:
    shared = np.intersect1d(files.labelled.image_ids, files.unlabelled.image_ids, assume_unique=True)
    if len(shared):
        yield f"{len(shared)} images are in D_l and in D_u, the first is {shared[0]}; they must be disjoint."
    if not np.array_equal(files.hidden.image_ids, files.unlabelled.image_ids):
        odd = np.setxor1d(files.hidden.image_ids, files.unlabelled.image_ids, assume_unique=True)
        both = f"{UNLABELLED} and {HIDDEN}"
        yield f"{both} must hold the same images; {len(odd)} are in one alone, the first is {odd[0]}."


def _image_files_apart(files: _Files, manifest: Manifest) -> Iterator[str]:
    parts = [files.labelled.files, files.unlabelled.files]
    for shared in shared_files(parts if files.scored is None else [*parts, files.scored]):
        yield f"{shared}; mend the annotation files and draw again."


def _boxes_apart(files: _Files, manifest: Manifest) -> Iterator[str]:
    if shown := len(files.unlabelled.box_ids):
        yield f"{UNLABELLED} shows {shown} boxes, the first is {files.unlabelled.box_ids[0]}; D_u must show none."
    shared = np.intersect1d(files.labelled.box_ids, files.hidden.box_ids, assume_unique=True)
    if len(shared):
        yield f"{len(shared)} boxes are in {LABELLED} and {HIDDEN}, the first is {shared[0]}; an id must stand once."


def _parts_kept(files: _Files, manifest: Manifest) -> Iterator[str]:
    parts = {name: count for name, count in manifest.counts.items() if name not in ("labelled", "unlabelled")}
    held = {name: len(ids) for name, ids in files.parts.items()}
    if set(held) - {""}:  # a task without parts names none
        for name in sorted(parts.keys() | held.keys()):
            if parts.get(name, 0) != held.get(name, 0):
                what = f"in {name}" if name else "in no part"
                yield _differs(f"{LABELLED}: images {what}", held.get(name, 0), parts.get(name, 0))
    elif any(parts.values()):
        yield f"{LABELLED}: no image says whether it is in {' or '.join(parts)}."
    shown = files.minority_in_d_m
    if len(shown):
        rule = "D_m shows the majority alone"
        yield f"{LABELLED}: {len(shown)} minority boxes of D_m are shown, the first is {shown[0]}; {rule}."
    ignored = np.array(manifest.rewritten.get("ignored", ()), np.int64)
    lost = np.setdiff1d(ignored, files.labelled.crowd_ids)
    if len(lost):
        yield f"{LABELLED}: {len(lost)} boxes must be ignore regions (iscrowd 1) and are not, the first is {lost[0]}."


def _counts_true(files: _Files, manifest: Manifest) -> Iterator[str]:
    facts = (
        ("counts.labelled", len(files.labelled.image_ids), manifest.counts["labelled"]),
        ("counts.unlabelled", len(files.unlabelled.image_ids), manifest.counts["unlabelled"]),
        ("boxes.labelled", int(files.labelled.boxes.sum()), manifest.boxes.labelled),
        ("boxes.hidden", int(files.hidden.boxes.sum()), manifest.boxes.hidden),
    )
    for place, count, stated in facts:
        if count != stated:
            yield _differs(place, count, stated)


def _classes_counted(files: _Files, manifest: Manifest) -> Iterator[str]:
    """Compare the counts of every class and group, and what follows from them."""
    classes = manifest.classes
    if any(list(file.classes) != classes for file in (files.labelled, files.hidden)):
        return  # told already; rows would be compared with other classes
    columns = {
        "images": files.labelled.images,
        "boxes": files.labelled.boxes,
        "unlabelled_images": files.hidden.images,
        "unlabelled_boxes": files.hidden.boxes,
    }
    for row, name in enumerate(classes):
        for key, counts in columns.items():
            stated = getattr(manifest.per_class[name], key)
            if stated is not None and stated != counts[row]:
                yield _differs(f"per_class.{name}.{key}", int(counts[row]), stated)
    for group, names in manifest.groups.items():
        rows = [classes.index(name) for name in names]
        yield from _group_counted(files, manifest, group, rows)


def _group_counted(files: _Files, manifest: Manifest, group: str, rows: Sequence[int]) -> Iterator[str]:
    """Compare the counts of one group, whose classes are some rows of the classes."""
    counts = {
        "classes": len(rows),
        "labelled": int(files.labelled.boxes[rows].sum()),
        "hidden": int(files.hidden.boxes[rows].sum()),
    }
    stated = manifest.per_group.get(group)
    for key, count in counts.items():
        if getattr(stated, key, None) != count:
            yield _differs(f"per_group.{group}.{key}", count, getattr(stated, key, None))
    below = [manifest.classes[row] for row in rows if files.labelled.boxes[row] < manifest.min_instances]
    if stated is not None and stated.below_minimum not in (None, below):
        yield _differs(f"per_group.{group}.below_minimum", below, stated.below_minimum)


def _groups_true(files: _Files, manifest: Manifest) -> Iterator[str]:
    """Compare the groups with the task's rule, and the boxes of the classes that D_l must cover with their minimum."""
    classes = tuple(manifest.classes)
    if files.labelled.classes != classes:
        return
    if set(manifest.groups) == {"f", "c", "r"}:
        for group, names in frequency_groups(classes, files.labelled.images, _bounds(manifest)).items():
            if odd := sorted(set(names) ^ set(manifest.groups[group])):
                what = f"{len(odd)} classes differ, the first is {odd[0]!r}"
                yield f"groups.{group} is not what the images of D_l give; {what}."
    covered = manifest.groups.get("min", classes)
    short = [name for name in covered if files.labelled.boxes[classes.index(name)] < manifest.min_instances]
    if sorted(short) != sorted(manifest.below_minimum):
        yield _differs("below_minimum", short, manifest.below_minimum)
    if short and manifest.was_drawn:
        told = ", ".join(map(shown_name, short))
        yield f"{LABELLED}: {len(short)} classes have fewer than {manifest.min_instances} boxes: {told}."


def _bounds(manifest: Manifest) -> tuple[int, int]:
    """Return the bounds of the frequency groups: the task's, as the catalogue or else the manifest has them."""
    if manifest.task in list_tasks():
        return load_task(manifest.task).frequency_bounds
    rare, common = manifest.stated.get("frequency_bounds", Task.frequency_bounds)
    return rare, common


def _ids_true(files: _Files, manifest: Manifest) -> Iterator[str]:
    known = {**files.parts, "D_l": files.labelled.image_ids, "unlabelled": files.unlabelled.image_ids}
    for name, stated in manifest.ids_sha256.items():
        ids = known.get(name, np.empty(0, np.int64))
        sha256 = ids_sha256(ids)
        if sha256 != stated:
            yield _differs(f"ids_sha256.{name}", sha256, stated)


def _differs(place: str, found: object, stated: object) -> str:
    return f"{place} is {found} by the files; the manifest says {stated}."
