"""What annotation files that others published must fulfil before they become a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.overlaps import check_roots
from cissod_bench.annotations.reading import Annotations
from cissod_bench.annotations.same_files import check_files, listed
from cissod_bench.errors import DataFault
from cissod_bench.split_folders.ensure import check_classes
from cissod_bench.splitting.task import Task


def check_given(labelled: Annotations, unlabelled: Annotations, val: Annotations) -> None:
    """Refuse files that hold nothing, or other classes than the scored ones.

    Raises:
        DataFault: they do.
    """
    for data, what in ((labelled, "D_l"), (unlabelled, "D_u")):
        if not len(data.image_ids):
            raise DataFault(
                f"{data.path}: images is empty; {what} needs at least one.", remedy=f"list the images of {what} in it"
            )
        check_classes(data, val)
    if not labelled.instances().any():
        raise DataFault(
            f"{labelled.path}: annotations hold no box (crowd regions are none); D_l must show its boxes.",
            remedy="give the file with the boxes as --labelled, and the one without as --unlabelled",
        )


def check_apart(task: Task, labelled: Annotations, unlabelled: Annotations, val: Annotations, root: Path) -> None:
    """Refuse an image that is in two of D_l, D_u and the scored images, by its id or its file, or in one of them twice.

    Raises:
        DataFault: there is one, or an image names a folder the task does not have.
    """
    for data in (labelled, unlabelled):
        check_roots(data, task.images)
    shared = np.intersect1d(labelled.image_ids, unlabelled.image_ids)
    if len(shared):
        raise DataFault(
            f"{labelled.path} and {unlabelled.path} share {len(shared)} image ids, the first is {shared[0]}; an image "
            "is in D_l or in D_u.",
            remedy="take the images of D_l out of the unlabelled file; give images of two data sets distinct ids",
        )
    files = [listed(data, task.images, "train", root) for data in (labelled, unlabelled)]
    check_files([*files, listed(val, task.images, "val", root)], task.named)


def check_known(data: Annotations, sources: Mapping[str, Annotations]) -> None:
    """Refuse images that the task's own annotation files do not hold, as far as these are at hand.

    Images of the task's training file keep their ids; those of a further data set were given others, so that no id
    stands twice, and are known by their file.

    Args:
        data: what was published.
        sources: role -> the task's annotation file.

    Raises:
        DataFault: there is one, or an image has another file or size there.
    """
    for number, root in enumerate(data.roots):
        role = root or "train"
        if role in sources:
            rows = np.flatnonzero(data.image_root == number)
            source = sources[role]
            _check_images(data, rows, source, _by_id(data, source) if role == "train" else _by_file(data, source))


def _by_id(data: Annotations, source: Annotations) -> Ints:
    """Return the row in ``source`` of each image of ``data``, -1 where there is none."""
    places = np.full(len(data.image_ids), -1, np.int64)
    _, here, there = np.intersect1d(data.image_ids, source.image_ids, return_indices=True)
    places[here] = there
    return places


def _by_file(data: Annotations, source: Annotations) -> Ints:
    row_of = {name: row for row, name in enumerate(source.file_names)}
    return np.array([row_of.get(name, -1) for name in data.file_names], np.int64)


def _check_images(data: Annotations, rows: Ints, source: Annotations, places: Ints) -> None:
    unknown = rows[places[rows] < 0]
    if len(unknown):
        row = int(unknown[0])
        raise DataFault(
            f"{data.path}: images[{row}] ({data.image_ids[row]}, {data.file_names[row]}) is none of {source.path}. "
            f"Images that are none: {len(unknown)}.",
            remedy="add its record to the training file; images of another data set must say in which folder they lie: "
            '"root", see cissod-bench tasks NAME',
        )
    for row in rows.tolist():
        place = int(places[row])
        here = (data.file_names[row], int(data.widths[row]), int(data.heights[row]))
        there = (source.file_names[place], int(source.widths[place]), int(source.heights[place]))
        if here != there:
            raise DataFault(
                f"{data.path}: images[{row}] ({data.image_ids[row]}) is {here[0]}, {here[1]} x {here[2]} pixels; in "
                f"{source.path} it is {there[0]}, {there[1]} x {there[2]} pixels. Both must agree.",
                remedy="take the image's record as it stands in the training file; images are told apart by id",
            )
