"""What a run reads: the images of a part with their boxes, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.reading import Annotations
from cissod_bench.contract.parts import Promoted
from cissod_bench.files.images import read_image, safe_path
from cissod_bench.files.orientation import AS_STORED, Reading
from cissod_bench.loading.image_folders import check_folders, parents_of, places_of

COLUMNS = (
    *("names", "name_ends", "image_folder", "image_ids", "sizes"),
    *("box_ends", "boxes", "labels", "ignored"),
)
"""Fields of a `Source` that are a row per image, per box or per letter of a name."""
_BLOCK = 1 << 16  # boxes at once: copies of 25 million take gigabytes


@dataclass(frozen=True)
class Source:
    """The images of one annotation file with their boxes, as arrays (a worker's fork copies none of them).

    Attributes:
        names: file names, joined, bytes or uint8; image i's is ``names[name_ends[i - 1]:name_ends[i]]`` in UTF-8.
        name_ends: shape (I,).
        folders: the image folders of the task, the same for all sources of a run.
        image_folder: place in ``folders`` of the one each image lies in, shape (I,).
        image_ids: shape (I,).
        sizes: width and height in pixels, shape (I, 2).
        box_ends: image i's boxes are rows ``box_ends[i - 1]:box_ends[i]``, shape (I,).
        boxes: xyxy, shape (B, 4).
        labels: channels, shape (B,).
        ignored: crowd boxes and ignore regions, shape (B,).
        readings: how the images of each of ``folders`` are turned; as they are stored where it is empty.
        within: the data root, in which links may leave an image's folder; None keeps them in it.
        parents: (place in ``folders``, folder below it, images in it), as ``image_folders.parents_of`` gives them.
    """

    names: bytes | npt.NDArray[np.uint8]
    name_ends: npt.NDArray[np.int64]
    folders: tuple[Path, ...]
    image_folder: npt.NDArray[np.int8]
    image_ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    box_ends: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    readings: tuple[Reading, ...] = ()
    within: Path | None = None
    parents: tuple[tuple[int, str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def name(self, index: int) -> str:
        """Return the name of an image below its folder."""
        begin = int(self.name_ends[index - 1]) if index else 0
        return bytes(self.names[begin : int(self.name_ends[index])]).decode("utf-8")

    def names_of(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the names of some images; of many that follow each other in a third of the time."""
        if len(rows) < 2 or rows[-1] - rows[0] + 1 != len(rows) or (np.diff(rows) != 1).any():
            return [self.name(row) for row in rows.tolist()]
        begin = int(self.name_ends[rows[0] - 1]) if rows[0] else 0
        stops = (self.name_ends[rows] - begin).tolist()
        text = bytes(self.names[begin : begin + stops[-1]])
        return [text[start:stop].decode("utf-8") for start, stop in zip([0, *stops], stops, strict=False)]

    def file(self, index: int) -> Path:
        """Return the path of an image, inside its folder or the data root."""
        return safe_path(self.folders[self.image_folder[index]], self.name(index), self.within)

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Return an image as ``read_image`` does."""
        return read_image(self.file(index), *self.size(index), self.reading(index))

    def reading(self, index: int) -> Reading:
        """Return how an image is turned."""
        return self.readings[self.image_folder[index]] if self.readings else AS_STORED

    def size(self, index: int) -> tuple[int, int]:
        """Return the width and height that an image's record states, pixels."""
        width, height = (int(side) for side in self.sizes[index])
        return width, height

    def box_rows(self, index: int) -> slice:
        """Return the rows of an image's boxes."""
        return slice(int(self.box_ends[index - 1]) if index else 0, int(self.box_ends[index]))

    def rows_of(self, image_ids: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the rows of the images with some ids, ascending; ids of other sources have none."""
        return np.flatnonzero(np.isin(self.image_ids, np.asarray(image_ids, np.int64)))

    def landscape(self) -> npt.NDArray[np.int8]:
        """Return 1 for images at least as wide as high, else 0, shape (I,)."""
        return (self.sizes[:, 0] >= self.sizes[:, 1]).astype(np.int8)

    def classes_of_images(self) -> tuple[tuple[int, ...], ...]:
        """Return the sorted channels of every image's boxes that are not ignored."""
        rows = (self.box_rows(i) for i in range(len(self)))
        return tuple(tuple(np.unique(self.labels[r][~self.ignored[r]]).tolist()) for r in rows)

    def boxes_of_classes(self, num_classes: int) -> tuple[int, ...]:
        """Return the number of boxes per channel that are not ignored."""
        return tuple(np.bincount(self.labels[~self.ignored], minlength=num_classes).tolist())

    def without_boxes(self) -> Source:
        """Return the same images with no box: what training may know of D_u (B10)."""
        none = np.zeros(0, np.int64)
        return replace(
            self,
            box_ends=np.zeros(len(self), np.int64),
            boxes=np.zeros((0, 4), np.float32),
            labels=none,
            ignored=none.astype(np.bool_),
        )

    def with_promoted(self, promoted: Promoted, first: int) -> Source:
        """Return the same images with further boxes on those that had none.

        Args:
            promoted: boxes; ``promoted.images`` counts from ``first``.
            first: row of the first image that may get boxes; none from there on has any.
        """
        assert first == 0 or self.box_ends[-1] == self.box_ends[first - 1], "images from `first` on have no box yet"
        order = np.argsort(promoted.images, kind="stable")
        ends = self.box_ends.copy()
        ends[first:] += np.cumsum(np.bincount(promoted.images, minlength=len(self) - first))
        return replace(
            self,
            box_ends=ends,
            boxes=np.concatenate([self.boxes, promoted.boxes[order].astype(np.float32)]),
            labels=np.concatenate([self.labels, promoted.labels[order].astype(np.int64)]),
            ignored=np.concatenate([self.ignored, promoted.ignored[order].astype(np.bool_)]),
        )

    def __add__(self, other: Source) -> Source:
        """Return the images of both, e.g. of D_l and of D_u with its hidden boxes."""
        if self.folders != other.folders:
            raise ValueError(f"Sources of one run share their image folders. Got {self.folders} and {other.folders}.")
        columns = ("image_folder", "image_ids", "sizes", "boxes", "labels", "ignored")
        joined: dict[str, Any] = {c: np.concatenate([getattr(self, c), getattr(other, c)]) for c in columns}
        return Source(
            names=bytes(self.names) + bytes(other.names),
            name_ends=np.concatenate([self.name_ends, other.name_ends + len(self.names)]),
            box_ends=np.concatenate([self.box_ends, other.box_ends + len(self.boxes)]),
            folders=self.folders,
            readings=self.readings,
            within=self.within,
            parents=self.parents + other.parents,
            **joined,
        )


def source_of(
    annotations: Annotations,
    folders: Mapping[str, Path],
    role: str,
    readings: Mapping[str, Reading] | None = None,
    *,
    within: Path | None = None,
    at_hand: bool = True,
) -> Source:
    """Return the columns of an annotation file that training needs.

    Args:
        annotations: as read; channels are its categories in the order of their ids.
        folders: role -> folder of images; a record's ``root`` is the role of its own.
        role: of the records that name no root: "train" or "val".
        readings: role -> how its images are turned; None reads all as they are stored.
        within: the data root, in which links may leave an image's folder.
        at_hand: refuse folders of images that are not there.

    Raises:
        DataFault: a record names a role that has no folder, or a folder that images lie in is missing.
    """
    image_folder, places = places_of(annotations, folders, role), tuple(folders.values())
    source = columns_of(annotations, image_folder)
    if at_hand:
        check_folders(annotations.path, places, source.parents)
    turned = tuple(readings[name] for name in folders) if readings else ()
    return replace(source, folders=places, readings=turned, within=within)


def columns_of(annotations: Annotations, image_folder: npt.NDArray[np.int8]) -> Source:
    """Return images and boxes of an annotation file; where the images lie is not looked at.

    Args:
        annotations: as read; boxes come in the order of their images.
        image_folder: place of each image's folder, shape (M,).
    """
    names = [name.encode("utf-8") for name in annotations.file_names]
    images = annotations.box_image
    order = None if (images[1:] >= images[:-1]).all() else np.argsort(images, kind="stable")
    boxes = np.empty((len(images), 4), np.float32)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        corners = annotations.boxes[block if order is None else order[block]]
        boxes[block, :2], boxes[block, 2:] = corners[:, :2], corners[:, :2] + corners[:, 2:]
    every = slice(None) if order is None else order
    return Source(
        names=b"".join(names),
        name_ends=np.cumsum([len(n) for n in names], dtype=np.int64),
        folders=(),
        image_folder=image_folder,
        image_ids=np.asarray(annotations.image_ids, np.int64),
        sizes=np.stack([annotations.widths, annotations.heights], axis=1).astype(np.int32),
        box_ends=np.cumsum(np.bincount(images, minlength=len(names)), dtype=np.int64),
        boxes=boxes,
        labels=annotations.box_class[every].astype(np.int64),
        ignored=annotations.crowd[every].astype(np.bool_),
        parents=parents_of(annotations.file_names, image_folder),
    )
