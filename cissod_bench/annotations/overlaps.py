"""Images that are trained on and scored: copies within a task are a fault, images of another task a trap.

LVIS is the trap (Sec. 4.1's second scenario): it divides the images of COCO anew, and most of its val images are
COCO's training images. Within LVIS all is well; a detector that has seen COCO has seen LVIS's answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault
from cissod_bench.files.hashing import splitmix64

Signatures = npt.NDArray[np.uint64]


def box_signatures(data: Annotations) -> Signatures:
    """Return a hash of the boxes of every image, uint64 (M,); 0 for an image without any.

    It depends on the classes' ids and on the boxes to a hundredth of a pixel, not on their order or ids.
    """
    signatures = np.zeros(len(data.image_ids), np.uint64)
    ids = np.array(data.category_ids, np.int64).astype(np.uint64)
    block = 1 << 16  # the intermediate arrays of 25 million boxes at once would take gigabytes
    for start in range(0, len(data.boxes), block):
        rows = slice(start, start + block)
        mixed = splitmix64(ids[data.box_class[rows]])
        for side in (data.boxes[rows] * 100).round().astype(np.int64).astype(np.uint64).T:
            mixed = splitmix64(mixed ^ side)
        np.add.at(signatures, data.box_image[rows], mixed)
    return signatures


def check_roots(data: Annotations, folders: Collection[str]) -> None:
    """Refuse images that name a folder their task does not have.

    Args:
        data: an annotation file of the task.
        folders: roles of the task's image folders.

    Raises:
        DataFault: they do.
    """
    for root in data.roots:
        if root and root not in folders:
            known = ", ".join(folders)
            raise DataFault(
                f"{data.path}: images name the root {root!r}; the task's image folders are {known}.",
                remedy='make "root" of these image records one of them, or leave it out for images of the first',
            )


def paths(data: Annotations, folders: Mapping[str, str], role: str) -> list[str]:
    """Return the path of every image below the data root.

    Args:
        data: an annotation file.
        folders: role -> image folder below the data root.
        role: of the images that name none.
    """
    of_root = [folders[root or role] for root in data.roots]
    return [f"{of_root[root]}/{name}" for root, name in zip(data.image_root.tolist(), data.file_names, strict=True)]


def same_content(train: Annotations, val: Annotations, boxes: tuple[Signatures, Signatures]) -> Ints:
    """Return the ids of images that are one image in two folders.

    Ids and names alone prove nothing: many data sets count both from 1. So the same id, name, size and boxes are
    wanted, and at least one box.

    Args:
        train: one annotation file.
        val: the other one.
        boxes: their ``box_signatures``.
    """
    ids, first, second = np.intersect1d(train.image_ids, val.image_ids, return_indices=True)
    same = (boxes[0][first] == boxes[1][second]) & (boxes[0][first] != 0)
    same &= (train.widths[first] == val.widths[second]) & (train.heights[first] == val.heights[second])
    for row in np.flatnonzero(same):
        trained, scored = train.file_names[first[row]], val.file_names[second[row]]
        same[row] = trained.rpartition("/")[2] == scored.rpartition("/")[2]
    same_ids: Ints = ids[same]
    return same_ids


def trained_elsewhere(val: Sequence[str], trained: Mapping[str, Iterable[str]]) -> dict[str, tuple[int, list[str]]]:
    """Return image folder -> how many images of ``val`` lie in it, and which other tasks train on that folder.

    Args:
        val: paths below the data root of the images that a task scores.
        trained: other task -> folders of its training images; only folders that hold nothing but them.
    """
    counts: dict[str, int] = {}
    for path in val:
        folder = path.rpartition("/")[0]
        counts[folder] = counts.get(folder, 0) + 1
    tasks: dict[str, list[str]] = {}
    for task, folders in trained.items():
        for folder in set(folders) & counts.keys():
            tasks.setdefault(folder, []).append(task)
    return {folder: (counts[folder], sorted(names)) for folder, names in sorted(tasks.items())}
