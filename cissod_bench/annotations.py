"""COCO-style annotation files as columns of numbers, beside the untouched bytes of every record.

Drawing a split needs ids, sizes, classes and boxes, never polygons. So each record is decoded once, strictly, into
numbers; its bytes stay in the file and are copied from there when a split is written. Nothing of a record is lost.

What becomes of odd boxes (``BoxPolicy``; every case is counted, and listed in the manifest):

* width or height is zero or negative, or the box lies wholly outside its image: dropped;
* the box reaches out of its image by more than half a pixel: clipped to it (COCO's own rounding stays as it is);
* nearly all boxes reach out, and make sense as corner pairs: refused, because they are [x1, y1, x2, y2];
* crowd regions (``iscrowd`` 1): kept as they are, and never counted as instances of a class.

NaN and Infinity are no JSON and are refused, as are strings where numbers belong and ids that are not whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.box_policy import BoxPolicy, corner_suspects, judge, look_like_corners
from cissod_bench.columns import BoxColumns, CategoryRecord, ImageColumns, Spans, decode_records
from cissod_bench.errors import DataFault
from cissod_bench.json_arrays import JsonFile

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]

_BLOCK = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """One annotation file. Images and boxes keep the file's order; a row is an index into these arrays.

    Attributes:
        file: the open file; ``read`` copies records from it.
        sha256: hash of the file as it lies on disk.
        image_ids: int64 (M,).
        widths, heights: int32 (M,), pixels, >= 1.
        file_names: of the images, relative, without "..".
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
    """

    file: JsonFile
    sha256: str
    image_ids: Ints
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    file_names: list[str]
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

    @property
    def path(self) -> Path:
        """The file as the user named it."""
        return self.file.path

    def __enter__(self) -> Annotations:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the columns stay, the records' bytes can no longer be read."""
        self.file.close()

    def instances(self) -> Bools:
        """Return which boxes count as instances of their class: those that are no crowd region, bool (N,)."""
        return ~self.crowd

    def per_image(self, boxes: Bools) -> npt.NDArray[np.int64]:
        """Return how many of the chosen boxes each image holds, int64 (M,)."""
        return np.bincount(self.box_image[boxes], minlength=len(self.image_ids))


def read_annotations(path: Path, *, hint: str | None = None) -> Annotations:
    """Read and check an annotation file, ``.json`` or gzipped, of any size.

    Args:
        path: the file.
        hint: remedy printed when it is missing, such as where it officially comes from.

    Raises:
        DataFault: the file is missing, cut off, no JSON, lacks a key, has a field of the wrong type, an id twice, a box
            of an unknown image or class, an unsafe file name, or corner pairs where [x, y, width, height] belong. The
            message names the file and the place. Nothing is left open.
    """
    file = JsonFile(path, hint=hint)
    try:
        return _read(file)
    except BaseException:
        file.close()
        raise


def _read(file: JsonFile) -> Annotations:
    images, boxes = ImageColumns(file), BoxColumns(file)
    extras: dict[str, bytes] = {}
    for member in file.members():
        if member.key == "images":
            images.read(member)
        elif member.key == "annotations":
            boxes.read(member)
        elif member.key in ("categories", "info", "licenses"):
            extras[member.key] = member.value()
        else:
            member.value()
    found = {"images": images.found, "annotations": boxes.found, "categories": "categories" in extras}
    if missing := [key for key, is_there in found.items() if not is_there]:
        raise DataFault(f"{file.path}: the key {missing[0]!r} is missing; an annotation file has images, annotations and categories.")
    category_ids, names, records = _categories(file, extras.pop("categories"))
    return _joined(file, images, boxes, category_ids, names, records, extras)


def _categories(file: JsonFile, text: bytes) -> tuple[tuple[int, ...], tuple[str, ...], tuple[bytes, ...]]:
    """Return ids, names and records of the classes in the order of their ids."""
    parsed = decode_records(file, msgspec.json.Decoder(list[CategoryRecord]), text, "categories", 0)
    records = msgspec.json.decode(text, type=list[msgspec.Raw])
    if not parsed:
        raise DataFault(f"{file.path}: categories is empty; at least one class is needed.")
    if len(parsed) > 32_767:
        raise DataFault(f"{file.path}: categories holds {len(parsed)} classes; at most 32767 are supported.")
    for key in ("id", "name"):
        seen: dict[Any, int] = {}
        for index, category in enumerate(parsed):
            value = getattr(category, key)
            if value in seen:
                raise DataFault(f"{file.path}: categories[{index}].{key} is {value!r}, as is categories[{seen[value]}].{key}; each must stand once.")
            seen[value] = index
    order = sorted(range(len(parsed)), key=lambda index: parsed[index].id)
    return (
        tuple(parsed[index].id for index in order),
        tuple(parsed[index].name for index in order),
        tuple(bytes(records[index]) for index in order),
    )


def _joined(
    file: JsonFile,
    images: ImageColumns,
    boxes: BoxColumns,
    category_ids: tuple[int, ...],
    classes: tuple[str, ...],
    categories: tuple[bytes, ...],
    extras: Mapping[str, bytes],
) -> Annotations:
    """Replace ids by rows, judge the boxes and keep the good ones."""
    image_ids = images.take("ids", np.int64)
    widths, heights = images.take("widths", np.int32), images.take("heights", np.int32)
    _check_unique(file, "images", image_ids)
    box_ids = boxes.take("ids", np.int64)
    _check_unique(file, "annotations", box_ids)
    box_image = _rows_of(file, "image_id", boxes.take("images", np.int64), image_ids, "image").astype(np.int32)
    box_class = _rows_of(file, "category_id", boxes.take("classes", np.int64), np.array(category_ids), "category").astype(np.int16)
    corners, crowd = boxes.take("boxes", np.float64).reshape(-1, 4), boxes.take("crowd", np.bool_)
    dropped, clipped, policy = _apply_policy(file, box_ids, corners, crowd, widths, heights, box_image)
    spans = boxes.spans()
    if dropped.any():
        keep = ~dropped
        box_ids, box_image, box_class, corners = box_ids[keep], box_image[keep], box_class[keep], corners[keep]
        crowd, clipped = crowd[keep], clipped[keep]
        spans = Spans(spans.offsets[keep], spans.lengths[keep])
    return Annotations(
        file=file,
        sha256=file.sha256,
        image_ids=image_ids,
        widths=widths,
        heights=heights,
        file_names=images.file_names,
        image_spans=images.spans(),
        box_ids=box_ids,
        box_image=box_image,
        box_class=box_class,
        boxes=corners,
        crowd=crowd,
        clipped=clipped,
        box_spans=spans,
        category_ids=category_ids,
        classes=classes,
        categories=categories,
        policy=policy,
        extras=extras,
    )


def _check_unique(file: JsonFile, key: str, ids: Ints) -> None:
    if len(ids) < 2 or (np.diff(ids) > 0).all():
        return
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        first, second = (int(row) for row in order[twice[0] : twice[0] + 2])
        raise DataFault(
            f"{file.path}: {key}[{second}].id is {ids[second]}, as is {key}[{first}].id; an id must stand once. "
            f"{len(twice)} record{'s are' if len(twice) > 1 else ' is'} affected."
        )


def _rows_of(file: JsonFile, key: str, wanted: Ints, ids: Ints, kind: str) -> Ints:
    """Return the row in ``ids`` of each wanted id."""
    order = np.argsort(ids, kind="stable")
    rows = np.searchsorted(ids, wanted, sorter=order) if len(ids) else np.zeros(len(wanted), np.int64)
    rows = order[np.minimum(rows, len(ids) - 1)] if len(ids) else rows
    orphans = np.flatnonzero(ids[rows] != wanted) if len(ids) else np.arange(len(wanted))
    if len(orphans):
        index = int(orphans[0])
        raise DataFault(
            f"{file.path}: annotations[{index}].{key} is {wanted[index]}, but there is no {kind} of that id. "
            f"{len(orphans)} annotation{'s are' if len(orphans) > 1 else ' is'} affected."
        )
    return rows


def _apply_policy(
    file: JsonFile,
    box_ids: Ints,
    boxes: Floats,
    crowd: Bools,
    widths: npt.NDArray[np.int32],
    heights: npt.NDArray[np.int32],
    box_image: npt.NDArray[np.int32],
) -> tuple[Bools, Bools, BoxPolicy]:
    """Clip ``boxes`` in place; return which are to be dropped, which were clipped, and the policy's record."""
    degenerate, outside, clipped = (np.zeros(len(boxes), np.bool_) for _ in range(3))
    suspects = np.zeros(2)
    for start in range(0, len(boxes), _BLOCK):  # the intermediate arrays of 25 million boxes would be 3 GB
        rows = slice(start, start + _BLOCK)
        width, height = widths[box_image[rows]].astype(np.float64), heights[box_image[rows]].astype(np.float64)
        suspects += corner_suspects(boxes[rows], width, height, crowd[rows])
        judged = judge(boxes[rows], width, height, crowd[rows])
        degenerate[rows], outside[rows], clipped[rows] = judged.degenerate, judged.outside, judged.clipped
        boxes[rows] = judged.boxes
    if look_like_corners(*suspects, int((~crowd).sum())):
        raise DataFault(
            f"{file.path}: annotations[*].bbox must be [x, y, width, height] in pixels, but {suspects[0]:.0f} of {(~crowd).sum()} boxes "
            "reach out of their image read that way, and make sense as corners [x1, y1, x2, y2].",
            remedy="write x2 - x1 and y2 - y1 in place of x2 and y2",
        )
    policy = BoxPolicy(tuple(box_ids[degenerate].tolist()), tuple(box_ids[outside].tolist()), tuple(box_ids[clipped].tolist()), int(crowd.sum()))
    return degenerate | outside, clipped, policy
