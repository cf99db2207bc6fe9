"""The annotation files an import reads: those given, and of the task's own what is at hand."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cissod_bench.annotations.columns import Ints, Spans
from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import Progress
from cissod_bench.split_folders.ensure import at_hand, image_folder, input_path
from cissod_bench.split_folders.import_checks import check_apart, check_given, check_known
from cissod_bench.splitting.task import Task


@dataclass(frozen=True, kw_only=True)
class Given:
    """The annotation files to import.

    Attributes:
        labelled: images of D_l with their boxes.
        unlabelled: images of D_u; boxes in it are passed over.
        hidden: images of D_u with their boxes, for analysis only; None takes them from the task's own training file.
    """

    labelled: Path
    unlabelled: Path
    hidden: Path | None = None

    def paths(self) -> dict[str, Path]:
        """Return role -> file of those that are given."""
        files = {"labelled": self.labelled, "unlabelled": self.unlabelled, "hidden": self.hidden}
        return {role: path for role, path in files.items() if path is not None}


@dataclass(frozen=True)
class Files:
    """What was read.

    Attributes:
        val: the task's.
        labelled, unlabelled: those given.
        train: the task's own training file; None where it is not at hand.
        hidden: the images of D_u with their boxes; without any where nobody gave them.
        hidden_known: whether they were given.
        neither: images of ``train`` that are in neither of the files given.
    """

    val: Annotations
    labelled: Annotations
    unlabelled: Annotations
    train: Annotations | None
    hidden: Annotations
    hidden_known: bool
    neither: int


def read_files(task: Task, given: Given, root: Path, stack: ExitStack, progress: Progress | None) -> Files:
    """Read and check every file; the stack closes them.

    Raises:
        DataFault: one is missing or invalid, its classes are not the task's, or its images are not where they belong.
    """

    def read(
        path: Path, role: str = "train", swapped: tuple[str, ...] = (), classes_of: Annotations | None = None
    ) -> Annotations:
        folder = image_folder(task, role, root)
        return stack.enter_context(
            read_annotations(
                path, naming=task.naming, swapped=swapped, folder=folder, classes_of=classes_of, progress=progress
            )
        )

    val = read(input_path(task, "val", root), "val")
    labelled = read(given.labelled)
    unlabelled = read(given.unlabelled, classes_of=labelled)
    check_given(labelled, unlabelled, val)
    check_apart(task, labelled, unlabelled, val, root)
    others = {role: read(path, role, task.swapped) for role, path in at_hand(task, root).items() if role != "val"}
    check_known(labelled, others)
    check_known(unlabelled, others)
    train = others.get("train")
    source = read(given.hidden) if given.hidden is not None else train
    if source is None:
        hidden = _only(unlabelled, np.arange(len(unlabelled.image_ids)), boxes=False)
    else:
        hidden = _only(source, _rows(unlabelled, source))
    inside = 0 if train is None else len(np.intersect1d(train.image_ids, labelled.image_ids)) + len(hidden.image_ids)
    neither = 0 if train is None else len(train.image_ids) - inside
    return Files(val, labelled, unlabelled, train, hidden, source is not None, neither)


def _rows(unlabelled: Annotations, source: Annotations) -> Ints:
    """Return the rows in ``source`` of the images of D_u.

    Raises:
        DataFault: one is not there or has another file.
    """
    _, there, rows = np.intersect1d(unlabelled.image_ids, source.image_ids, return_indices=True)
    lost = np.setdiff1d(unlabelled.image_ids, source.image_ids)
    if len(lost):
        raise DataFault(
            f"{source.path}: {len(lost)} images of {unlabelled.path} are missing, the first is {lost[0]}; the boxes of "
            "D_u must come with all its images.",
            remedy="add the records of these images to it, or take them out of the unlabelled file",
        )
    for one, other in zip(there.tolist(), rows.tolist(), strict=True):
        if unlabelled.file_names[one] != source.file_names[other]:
            raise DataFault(
                f"{source.path}: image {source.image_ids[other]} is {source.file_names[other]!r}, but "
                f"{unlabelled.file_names[one]!r} in {unlabelled.path}; both must agree.",
                remedy="give an image the same id and file_name in both files",
            )
    return rows


def _only(data: Annotations, rows: Ints, *, boxes: bool = True) -> Annotations:
    """Return some images of a file, with their boxes or without any."""
    place = np.full(len(data.image_ids), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    keep = (place[data.box_image] >= 0) & boxes
    kept = data.with_boxes(keep)
    return replace(
        kept,
        image_ids=data.image_ids[rows],
        widths=data.widths[rows],
        heights=data.heights[rows],
        swapped=np.flatnonzero(np.isin(rows, data.swapped)),
        file_names=[data.file_names[row] for row in rows.tolist()],
        image_root=data.image_root[rows],
        image_spans=Spans(data.image_spans.offsets[rows], data.image_spans.lengths[rows]),
        box_image=place[kept.box_image],
        odd_images=None if data.odd_images is None else data.odd_images[rows],
        policy=replace(data.policy, clipped=tuple(kept.box_ids[kept.clipped].tolist()), crowd=int(kept.crowd.sum())),
    )
