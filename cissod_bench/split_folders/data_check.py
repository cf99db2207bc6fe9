"""Whether the data of the sub-tasks is there and sound; it only reads, and fetches nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from cissod_bench.annotations.image_check import FIRST, ImageFaults, Named, decoded, listed
from cissod_bench.annotations.overlaps import (
    Signatures,
    box_signatures,
    check_roots,
    paths,
    same_content,
    trained_elsewhere,
)
from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.annotations.same_files import fault_of
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.orientation import AS_STORED, Reading
from cissod_bench.split_folders.ensure import check_classes, image_folder, input_path, shared_inputs, task_data_root
from cissod_bench.split_folders.exif_check import Orientations, There, orientations, there_of
from cissod_bench.splitting.drawing import minority_rows
from cissod_bench.splitting.task import Conversion, Task

State: TypeAlias = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found of one annotation file or one image folder.

    Attributes:
        role: "train", "val" or what else the task names.
        what: "annotations" or "images".
        path: where it is, or should be.
        state: "ok", "missing" or "broken".
        counts: of annotations images, boxes, classes, what the box policy met and what was normalised; of images how
            many are named, are to be there (their folders are, and the release is not known to lack them), looked at
            and at fault; where they were decoded, how many bear an EXIF orientation ("oriented").
        faults: what is wrong, each with its place.
        missing: the file or folders that are not there at all.
        source: where it officially comes from; "" where the task does not say.
        exif: of images that bear an EXIF orientation, whether they are turned: "apply" or "ignore".
    """

    role: str
    what: Literal["annotations", "images"]
    path: str
    state: State
    counts: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    source: str = ""
    exif: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskCheck:
    """What was found of a task.

    Attributes:
        task: its name.
        checks: of each of its files and folders.
        faults: what is wrong between them.
        warnings: what must not be done with it.
        draws_its_own: it is a toy task whose images have not been drawn yet.
    """

    task: str
    checks: tuple[Check, ...]
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    draws_its_own: bool = False

    @property
    def state(self) -> State:
        """The worst state of its parts."""
        states = {check.state for check in self.checks}
        if self.faults or "broken" in states:
            return "broken"
        return "missing" if "missing" in states else "ok"


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How closely images are looked at.

    Attributes:
        deep: decode them, instead of listing their folders.
        most: decode only so many of each folder, spread evenly; None decodes all.
    """

    deep: bool = False
    most: int | None = None


@dataclass(frozen=True)
class _Read:
    """An annotation file after reading: the columns of its images, and what is kept of its boxes."""

    data: Annotations
    boxes: Signatures
    counts: Mapping[str, int]


class DataCheck:
    """Checks tasks one after the other and remembers what they share.

    Args:
        data_root: where data sets lie.
        work_dir: where toy tasks draw theirs.
        others: every task there is, for images that one task scores and another trains on.
        depth: how closely images are looked at.
        progress: called while files are read and images are looked at.
        within: where links of images may lead; None takes the data root.
    """

    def __init__(
        self,
        data_root: Path,
        work_dir: Path,
        *,
        others: Iterable[Task] = (),
        depth: Depth | None = None,
        progress: Progress | None = None,
        within: Path | None = None,
    ) -> None:
        self._data_root, self._work_dir, self._within = data_root, work_dir, within or data_root
        self._others = tuple(others)
        self._depth, self._progress = depth or Depth(), progress
        self._files: dict[Any, _Read | DataFault] = {}
        self._images: dict[Any, ImageFaults] = {}

    def check(self, task: Task) -> TaskCheck:
        """Return what is there of a task's data, and what is wrong with it."""
        if task.conversion is not None:
            return self._converted(task, task.conversion)
        root = task_data_root(task, self._data_root, self._work_dir)
        if task.is_toy and not root.exists():
            return TaskCheck(task=task.name, checks=(), draws_its_own=True)
        read: dict[str, Annotations] = {}
        checks: list[Check] = []
        for role in task.inputs:
            checks.append(self._annotations(task, role, root, read))
        named = {role: there_of(read[role], task, role, root, self._within) for role in task.images if role in read}
        turned = orientations(task, named, self._depth.most) if self._depth.deep else Orientations()
        for role in task.images:
            checks.append(self._folder(task, role, root, named.get(role), turned, read.get(role)))
        faults, warnings = self._between(task, read, root)
        return TaskCheck(task=task.name, checks=tuple(checks), faults=(*turned.faults, *faults), warnings=warnings)

    def _converted(self, task: Task, conversion: Conversion) -> TaskCheck:
        """Check data of another format: what its conversion refuses, and then the files that this gives."""
        source, path = task.official.get("train", ""), str(self._data_root / conversion.sources["annotations"])
        blank = Check(role="all", what="annotations", path=path, state="ok", source=source)
        if gone := conversion.missing(self._data_root):
            return TaskCheck(task=task.name, checks=(replace(blank, state="missing", missing=gone),))
        with tempfile.TemporaryDirectory() as place:
            root = Path(place) / task.name
            try:
                notes = conversion.write(self._data_root, root) or ()
            except DataFault as fault:
                return TaskCheck(task=task.name, checks=(replace(blank, state="broken", faults=(str(fault),)),))
            links = {link for folder in task.images.values() if (link := root / folder).is_symlink()}
            names = {str(link): os.path.realpath(link) for link in sorted(links, reverse=True)}  # "…-2" comes first
            names[str(root)] = str(self._data_root)
            progress = self._progress and _renaming(self._progress, names)
            inner = DataCheck(root, self._work_dir, depth=self._depth, progress=progress, within=self._data_root)
            found = inner.check(replace(task, conversion=None))
        for there, here in names.items():
            found = _told_of(found, there, here)
        return replace(found, warnings=(*notes, *found.warnings))

    def _read(self, task: Task, role: str, path: Path) -> _Read:
        """Return a file that may have been read for another task already.

        Raises:
            DataFault: it breaks a rule.
        """
        folder = image_folder(task, role, task_data_root(task, self._data_root, self._work_dir))
        key = (path, task.naming, task.swapped, folder)
        if key not in self._files:
            try:
                with read_annotations(
                    path, naming=task.naming, swapped=task.swapped, folder=folder, progress=self._progress
                ) as annotations:
                    self._files[key] = _Read(
                        _without_boxes(annotations), box_signatures(annotations), _counts(annotations)
                    )
            except DataFault as fault:
                self._files[key] = fault
        found = self._files[key]
        if isinstance(found, DataFault):
            raise found
        return found

    def _annotations(self, task: Task, role: str, root: Path, read: dict[str, Annotations]) -> Check:
        """Check an annotation file and add it to ``read`` if it is sound."""
        place, source = str(root / task.inputs[role]), task.official.get(role, "")
        check = Check(role=role, what="annotations", path=place, state="ok", source=source)
        try:
            path = input_path(task, role, root)
        except DataFault:
            return replace(check, state="missing", missing=(place,))
        try:
            found = self._read(task, role, path)
            check_roots(found.data, task.images)
        except DataFault as fault:
            return replace(check, path=str(path), state="broken", faults=(fault.message,))
        read[role] = found.data
        return replace(check, path=str(path), counts=found.counts)

    def _folder(
        self,
        task: Task,
        role: str,
        root: Path,
        named: There | None,
        turned: Orientations,
        data: Annotations | None,
    ) -> Check:
        """Check the images of one role; without their annotations, only whether the folder is there."""
        source = task.official.get(f"{role}_images") or task.official.get(role, "")
        folder = root / task.images[role]
        check = Check(role=role, what="images", path=str(folder), state="ok", source=source)
        if not folder.is_dir():
            return replace(check, state="missing", missing=(str(folder),))
        if named is None or data is None:
            return check
        looked_at = [
            self._looked_at(images, data.path, turned.readings.get(of_role, AS_STORED))
            for of_role, images in named.images.items()
        ]
        counts = {
            "named": len(data.file_names),
            "there": sum(len(images) for images in named.images.values()),
            "checked": sum(one.checked for one in looked_at),
            "faulty": sum(one.faulty for one in looked_at),
        }
        if self._depth.deep:
            counts["oriented"] = turned.tagged.get(role, 0)
        return replace(
            check,
            state="broken" if counts["faulty"] else "missing" if named.missing else "ok",
            counts=counts,
            faults=tuple(text for one in looked_at for text in one.first)[:FIRST],
            missing=named.missing,
            exif=turned.words.get(role, "") if counts.get("oriented") else "",
        )

    def _looked_at(self, images: Named, file: Path, reading: Reading) -> ImageFaults:
        key = (images.folder, file, len(images), reading)
        if key not in self._images:
            if self._depth.deep:
                most, progress = self._depth.most, self._progress
                self._images[key] = decoded(images, most=most, progress=progress, reading=reading)
            else:
                self._images[key] = listed(images, self._progress)
        return self._images[key]

    def _between(
        self, task: Task, read: Mapping[str, Annotations], root: Path
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return faults and warnings that concern more than one file, or two records of one."""
        shared = shared_inputs(task, read, root)
        faults = [str(fault_of(shared, task.named))] if shared else []
        if "val" not in read:
            return tuple(faults), ()
        warnings = tuple(_trap(task, paths(read["val"], task.images, "val"), self._training_folders(task)))
        if "train" not in read:
            return tuple(faults), warnings
        try:
            check_classes(read["train"], read["val"])
            if task.file and task.minority:
                minority_rows(task.minority, read["train"].classes)
        except (DataFault, UsageFault) as fault:
            faults.append(str(fault) if isinstance(fault, UsageFault) else fault.message)
        if not shared:
            signatures = tuple(self._read(task, role, read[role].path).boxes for role in ("train", "val"))
            faults += _copies(read["train"], read["val"], (signatures[0], signatures[1]))
        return tuple(faults), warnings

    def _training_folders(self, task: Task) -> dict[str, set[str]]:
        """Return other task -> the folders that hold its training images."""
        return {other.name: self._folders_of(other) for other in self._others if other.name != task.name}

    def _folders_of(self, other: Task) -> set[str]:
        if other.lies_in_work:  # its images are its own
            return set()
        folders: set[str] = set()
        for role, folder in other.images.items():
            if role == "val":
                continue
            of_role = image_folder(other, role, self._data_root)
            found = self._files.get((_there(other, role, self._data_root), other.naming, other.swapped, of_role))
            if isinstance(found, _Read):
                folders |= {path.rpartition("/")[0] for path in paths(found.data, other.images, role)}
            elif other.naming != "coco_url":  # the URL alone tells in which of the folders below an image lies
                folders.add(folder)
        return folders


def _renaming(progress: Progress, names: Mapping[str, str]) -> Progress:
    """Return a progress that tells folders by other names: a folder that is gone soon says nothing to anybody."""

    def renamed(what: str, done: int, total: int) -> None:
        for there, here in names.items():
            what = what.replace(there, here)
        progress(what, done, total)

    return renamed


def _told_of(found: TaskCheck, there: str, here: str) -> TaskCheck:
    """Return what was found with another folder's name in place of the one it was found in."""

    def told(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(text.replace(there, here) for text in texts)

    checks = tuple(
        replace(check, path=check.path.replace(there, here), faults=told(check.faults), missing=told(check.missing))
        for check in found.checks
    )
    return replace(found, checks=checks, faults=told(found.faults), warnings=told(found.warnings))


def _there(task: Task, role: str, root: Path) -> Path | None:
    try:
        return input_path(task, role, root)
    except DataFault:
        return None


def _without_boxes(data: Annotations) -> Annotations:
    """Return the same images without boxes: those of Objects365 would take a gigabyte while other files are read."""
    kept = data.with_boxes(np.zeros(len(data.boxes), np.bool_))
    return replace(kept, image_spans=kept.box_spans, odd_images=None, odd_boxes=None)


def _counts(data: Annotations) -> dict[str, int]:
    counts = {"images": len(data.image_ids), "boxes": int(data.instances().sum()), "classes": len(data.classes)}
    named = [role for role, root in enumerate(data.roots) if root.startswith("unlabelled")]
    photographs = int(np.isin(data.image_root, named).sum())
    counts |= {"unlabelled": photographs} if photographs else {}
    return {**counts, **data.policy.counts(), **data.normalised}


def _copies(train: Annotations, val: Annotations, boxes: tuple[Signatures, Signatures]) -> list[str]:
    """Return a fault for images that a task both trains on and scores, in two folders."""
    copies = same_content(train, val, boxes)
    if not len(copies):
        return []
    return [
        f"{len(copies):,} of {len(val.image_ids):,} images of {val.path} have id, name, size and boxes of an image of "
        f"{train.path}, the first is {copies[0]}; an image that is scored must not be trained on."
    ]


def _trap(task: Task, scored: Sequence[str], trained: Mapping[str, Iterable[str]]) -> Iterable[str]:
    """Yield what must not be done because another task trains on images that this one scores."""
    for folder, (count, tasks) in trained_elsewhere(scored, trained).items():
        others = ", ".join(tasks)
        yield (
            f"{task.name}: {count:,} of its {len(scored):,} val images lie in {folder}, which {others} train on. "
            f"Never start {task.name} from a detector or checkpoint trained on {others}, nor add their D_l or D_u to "
            "it: it would be scored on images it has been trained on."
        )
