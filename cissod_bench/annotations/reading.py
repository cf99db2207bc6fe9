"""COCO-style annotation files as columns of numbers, beside the untouched bytes of every record.

Drawing a split needs ids, sizes, classes and boxes, never polygons. So each record is decoded once, strictly, into
numbers; its bytes stay in the file and are copied from there when a split is written. Nothing of a record is lost.

What becomes of odd boxes (``BoxPolicy``; every case is counted, and listed in the manifest):

* width or height is zero or negative, or the box lies wholly outside its image: dropped;
* the box reaches out of its image by more than half a pixel: clipped to it (COCO's own rounding stays as it is);
* nearly all boxes reach out, and make sense as corner pairs: refused, because they are [x1, y1, x2, y2]; likewise
  centre boxes and boxes relative to their image (``box_convention``);
* crowd regions (``iscrowd`` 1): kept as they are, and never counted as instances of a class.

NaN and Infinity are no JSON and are refused, as are strings where numbers belong. Ids in text and whole numbers such as
1.0 are read as they are meant (``lenient``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.box_policy import BoxPolicy, ConventionCheck, Judged, judge
from cissod_bench.annotations.columns import BoxColumns, ImageColumns, Ints, Spans, decode_categories
from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.ids import id_twice, row_finder
from cissod_bench.annotations.lenient import IMAGE_LIST, ROOT_CLASSES, root_classes, shown_id
from cissod_bench.annotations.naming import Naming
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import JsonFile, Progress

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
K = TypeVar("K", np.int16, np.int32)

_BLOCK = 1 << 16  # the intermediate arrays of 25 million boxes at once would take gigabytes
_MOST_CLASSES = 32_767


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """One annotation file. Images and boxes keep the file's order; a row is an index into these arrays.

    Attributes:
        file: the open file; ``read`` copies records from it.
        sha256: hash of the file as it lies on disk.
        image_ids: int64 (M,).
        widths, heights: int32 (M,), pixels, >= 1.
        swapped: rows of the images whose annotated width and height were exchanged.
        file_names: of the images, relative to their image folder, without "..".
        roots: roles of image folders that image records name ("root"); "" where they name none.
        image_root: index into ``roots``, int8 (M,).
        image_spans: where the M image records stand.
        box_ids: int64 (N,).
        box_image: row of each box's image, int32 (N,).
        box_class: row of each box's class, int16 (N,).
        boxes: x, y, width, height in pixels after clipping, float64 (N, 4); both sides > 0.
        crowd: bool (N,).
        clipped: bool (N,): the box differs from the record's.
        box_spans: where the N box records stand.
        category_ids: in ascending order, (C,); this order is that of the classifier's channels.
        classes: names of the C classes in that order.
        categories: the C records of the classes in that order, bytes.
        policy: what was dropped or clipped.
        extras: text of "info" and "licenses" where the file has them.
        odd_images: images whose records are not plain (``lenient``), to be written anew, bool (M,); None where all are.
        odd_boxes: boxes likewise, bool (N,).
        normalised: what was normalised (``lenient.WORDS``) -> in how many records.
    """

    file: JsonFile
    sha256: str
    image_ids: Ints
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    swapped: Ints
    file_names: list[str]
    roots: tuple[str, ...]
    image_root: npt.NDArray[np.int8]
    image_spans: Spans
    box_ids: Ints
    box_image: npt.NDArray[np.int32]
    box_class: npt.NDArray[np.int16]
    boxes: Floats
    crowd: Bools
    clipped: Bools
    box_spans: Spans
    category_ids: tuple[int, ...]
    classes: tuple[str, ...]
    categories: tuple[bytes, ...]
    policy: BoxPolicy = field(default_factory=BoxPolicy)
    extras: Mapping[str, bytes] = field(default_factory=dict)
    odd_images: Bools | None = None
    odd_boxes: Bools | None = None
    normalised: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file as the user named it."""
        return self.file.path

    def __enter__(self) -> Annotations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the columns stay, the records' bytes can no longer be read."""
        self.file.close()

    def instances(self) -> Bools:
        """Return which boxes count as instances of their class: those that are no crowd region, bool (N,)."""
        return ~self.crowd

    def with_boxes(self, keep: Bools) -> Annotations:
        """Return all images with some of the boxes, bool (N,), of a file that was read with its records."""
        return replace(
            self,
            box_ids=self.box_ids[keep],
            box_image=self.box_image[keep],
            box_class=self.box_class[keep],
            boxes=self.boxes[keep],
            crowd=self.crowd[keep],
            clipped=self.clipped[keep],
            box_spans=self.box_spans.only(keep),
            odd_boxes=None if self.odd_boxes is None else self.odd_boxes[keep],
        )

    def per_image(self, boxes: Bools) -> npt.NDArray[np.int64]:
        """Return how many of the chosen boxes each image holds, int64 (M,)."""
        return np.bincount(self.box_image[boxes], minlength=len(self.image_ids))


def read_annotations(
    path: Path,
    *,
    naming: Naming = "file_name",
    swapped: Collection[str] = (),
    doubtful: Collection[str] = (),
    folder: ImageFolder | None = None,
    classes_of: Annotations | None = None,
    progress: Progress | None = None,
    records: bool = True,
) -> Annotations:
    """Read and check an annotation file, ``.json`` or gzipped, of any size.

    Args:
        path: the file.
        naming: how its image records name their files.
        swapped: files (as ``naming`` gives them) whose annotated width and height are exchanged. Only the image can
            tell whether they really are, so none of their boxes is cut that fits either way.
        doubtful: likewise, but their sizes stay: for the files of a split, in which they have been exchanged.
        folder: where images lie that name no root: names with backslashes and absolute ones are read as names below it.
            None leaves names as they are, as in the files of a split.
        classes_of: given, the file may be a list of images without boxes, and without classes: it has this one's.
        progress: called every few megabytes.
        records: without them neither the file's hash is counted, nor are ids of boxes and places of records kept, nor
            the policy's lists: for the files of a split, whose hashes are known to be right.

    Raises:
        DataFault: the file is missing, cut off, no JSON, lacks a key, has a field of the wrong type, an id twice, a box
            of an unknown image or class, an unsafe file name, or corner pairs where [x, y, width, height] belong. The
            message names the file and the place. Nothing is left open.
    """
    file = JsonFile(path, progress=progress, hashed=records)
    try:
        images = ImageColumns(naming, swapped, doubtful, folder, records)
        return _read(file, images, BoxColumns(records), classes_of)
    except BaseException:
        file.close()
        raise


def _read(file: JsonFile, images: ImageColumns, boxes: BoxColumns, classes_of: Annotations | None) -> Annotations:
    texts: dict[str, bytes] = {}
    for member in file.members():
        if member.key == "images":
            images.read(file, member)
        elif member.key == "annotations":
            boxes.read(file, member)
        else:
            texts[member.key] = member.value()
    is_list = classes_of is not None and not boxes.found
    is_there = {
        "images": images.found,
        "annotations": boxes.found or is_list,
        "categories": "categories" in texts or is_list,
    }
    if missing := [key for key, there in is_there.items() if not there]:
        wanted = "an annotation file has images, annotations and categories."
        raise DataFault(
            f"{file.path}: the key {missing[0]!r} is missing; {wanted}",
            remedy=f'write "{missing[0]}": [...] beside the others, or export the file in the format of COCO instances',
        )
    if classes_of is not None and "categories" not in texts:
        classes = _Classes(classes_of.category_ids, classes_of.classes, classes_of.categories)
    else:
        classes = _classes(file, texts["categories"], boxes)
    boxes.tally.update([IMAGE_LIST] * is_list)
    extras = {key: text for key, text in sorted(texts.items()) if key in ("info", "licenses")}
    return _joined(file, images, boxes, classes, extras)


class _Classes(NamedTuple):
    ids: tuple[int, ...]
    names: tuple[str, ...]
    records: tuple[bytes, ...]


def _classes(file: JsonFile, text: bytes, boxes: BoxColumns) -> _Classes:
    """Return the classes in the order of their ids, without a root that bears a class's name."""
    parsed, records, tally = decode_categories(file, text)
    boxes.tally.update(tally)
    if len({category.name for category in parsed}) < len(parsed):
        used = frozenset(np.unique(boxes.look("category_id")).tolist())
        roots = root_classes(parsed, used)
        boxes.tally.update([ROOT_CLASSES] * len(roots))
        parsed = [category for place, category in enumerate(parsed) if place not in roots]
        records = [record for place, record in enumerate(records) if place not in roots]
    if not 1 <= len(parsed) <= _MOST_CLASSES:
        raise DataFault(
            f"{file.path}: categories must hold 1 to {_MOST_CLASSES} classes. Got {len(parsed)}.",
            remedy='list every class once in categories: {"id": 1, "name": "car"}',
        )
    for key in ("id", "name"):
        seen: dict[Any, int] = {}
        for index, category in enumerate(parsed):
            value = getattr(category, key)
            if value in seen:
                other = f"categories[{seen[value]}].{key}"
                raise DataFault(
                    f"{file.path}: categories[{index}].{key} is {value!r}, as is {other}; it must differ.",
                    remedy="list every class once, with an id and a name that no other class has",
                )
            seen[value] = index
    order = sorted(range(len(parsed)), key=lambda index: parsed[index].id)
    return _Classes(
        tuple(parsed[index].id for index in order),
        tuple(parsed[index].name for index in order),
        tuple(records[index] for index in order),
    )


def _joined(
    file: JsonFile, images: ImageColumns, boxes: BoxColumns, classes: _Classes, extras: Mapping[str, bytes]
) -> Annotations:
    """Replace ids by rows, judge the boxes and keep the good ones."""
    image_ids, widths, heights = images.take("id"), images.take("width"), images.take("height")
    _check_unique(file, "images", image_ids)
    odd_boxes = boxes.odd()
    crowd, corners, spans = boxes.take("iscrowd"), boxes.take("bbox"), boxes.spans()
    box_ids = boxes.take("id") if boxes.records else None
    if box_ids is not None:
        _check_unique(file, "annotations", box_ids)
    box_image = _rows_of(file, "image_id", boxes.take("image_id"), image_ids, np.int32)
    box_class = _rows_of(file, "category_id", boxes.take("category_id"), np.array(classes.ids), np.int16)
    verdict = _judge(file, corners, crowd, *_sides(widths, heights, images.doubtful), box_image)
    policy = BoxPolicy() if box_ids is None else _policy(box_ids, verdict, crowd)
    dropped = verdict.degenerate | verdict.outside
    keep = ~dropped if dropped.any() else slice(None)  # a slice copies nothing
    return Annotations(
        file=file,
        sha256=file.sha256,
        image_ids=image_ids,
        widths=widths,
        heights=heights,
        swapped=np.array(images.swapped, np.int64),
        roots=tuple(images.roots),
        image_root=images.take("root"),
        file_names=images.file_names,
        image_spans=images.spans(),
        box_ids=np.empty(0, np.int64) if box_ids is None else box_ids[keep],
        box_image=box_image[keep],
        box_class=box_class[keep],
        boxes=corners[keep],
        crowd=crowd[keep],
        clipped=verdict.clipped[keep],
        box_spans=spans if box_ids is None else spans.only(keep),
        category_ids=classes.ids,
        classes=classes.names,
        categories=classes.records,
        policy=policy,
        extras=extras,
        odd_images=images.odd(),
        odd_boxes=None if odd_boxes is None else odd_boxes[keep],
        normalised=dict(sorted((images.tally + boxes.tally).items())),
    )


def _policy(box_ids: Ints, verdict: Judged, crowd: Bools) -> BoxPolicy:
    """Return the ids of the boxes that something became of."""
    return BoxPolicy(
        degenerate=tuple(box_ids[verdict.degenerate].tolist()),
        outside=tuple(box_ids[verdict.outside].tolist()),
        clipped=tuple(box_ids[verdict.clipped].tolist()),
        crowd=int(crowd.sum()),
    )


def _sides(
    widths: npt.NDArray[np.int32], heights: npt.NDArray[np.int32], doubtful: Sequence[int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the sides boxes are judged by: where the sizes are doubtful, no box is cut that fits either way."""
    if not doubtful:
        return widths, heights
    widths, heights = widths.copy(), heights.copy()
    widths[doubtful] = heights[doubtful] = np.maximum(widths[doubtful], heights[doubtful])
    return widths, heights


def _check_unique(file: JsonFile, key: str, ids: Ints) -> None:
    if (twice := id_twice(ids)) is not None:
        raise DataFault(
            f"{file.path}: {key}[{twice.second}].id is {twice.id}, as is {key}[{twice.first}].id; an id must stand "
            f"once. Records with such an id: {twice.repeats}.",
            remedy=f"leave out records of {key} that stand twice, and give the others ids of their own",
        )


_ARRAY_OF = {"image": "images", "category": "categories"}


def _rows_of(file: JsonFile, key: str, wanted: Ints, ids: Ints, kind: type[K]) -> npt.NDArray[K]:
    """Return the row in ``ids`` of each wanted id."""
    find = row_finder(ids)
    rows = np.empty(len(wanted), kind)
    first_orphan, orphans = -1, 0
    for start in range(0, len(wanted), _BLOCK):
        of_block = find(wanted[start : start + _BLOCK])
        unknown = np.flatnonzero(of_block < 0)
        if len(unknown) and not orphans:
            first_orphan = start + int(unknown[0])
        orphans += len(unknown)
        rows[start : start + _BLOCK] = of_block
    if orphans:
        what = key.removesuffix("_id")
        place, number = f"annotations[{first_orphan}].{key}", shown_id(int(wanted[first_orphan]))
        raise DataFault(
            f"{file.path}: {place} is {number}, but there is no {what} of that id. Annotations without their {what}: "
            f"{orphans}.",
            remedy=f"add the {what} to {_ARRAY_OF[what]}, or leave out the annotations that name it",
        )
    return rows


def _judge(
    file: JsonFile,
    boxes: Floats,
    crowd: Bools,
    widths: npt.NDArray[np.int32],
    heights: npt.NDArray[np.int32],
    box_image: npt.NDArray[np.int32],
) -> Judged:
    """Clip ``boxes`` in place and return the policy's verdict on each."""
    degenerate, outside, clipped = (np.zeros(len(boxes), np.bool_) for _ in range(3))
    convention = ConventionCheck()
    for start in range(0, len(boxes), _BLOCK):
        rows = slice(start, start + _BLOCK)
        sizes = np.stack([widths[box_image[rows]], heights[box_image[rows]]], axis=1).astype(np.float64)
        convention.add(boxes[rows][~crowd[rows]], sizes[~crowd[rows]])
        judged = judge(boxes[rows], sizes, crowd[rows])
        degenerate[rows], outside[rows], clipped[rows] = judged.degenerate, judged.outside, judged.clipped
        boxes[rows] = judged.boxes
    convention.check(f"{file.path}: annotations[*].bbox")
    return Judged(boxes, degenerate, outside, clipped)
