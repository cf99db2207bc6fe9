"""The validation file that is scored against, checked and read into columns; COCO's format or LVIS's.

COCO's is ``{"images", "categories", "annotations"}`` with boxes as x, y, width, height. LVIS adds to every image the
classes it is known to lack and those whose boxes are not all annotated. The file may be gzipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from cissod_bench.annotations.box_policy import ConventionCheck
from cissod_bench.annotations.columns import CategoryRecord
from cissod_bench.annotations.ids import id_twice
from cissod_bench.annotations.lenient import Id, RecordDecoder, root_classes
from cissod_bench.errors import DataFault
from cissod_bench.scoring.boxes import Federated, GroundTruth, areas
from cissod_bench.scoring.entries import DECODING_ERRORS, Box, checked, columns_of, read_bytes, require, undecoded


class _Image(msgspec.Struct, gc=False):
    id: Id
    width: Any = None
    height: Any = None
    file_name: Any = None


class _FederatedImage(_Image, gc=False):
    neg_category_ids: list[Id] | None = None
    not_exhaustive_category_ids: list[Id] | None = None


class _Annotation(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id
    bbox: Box
    iscrowd: int | bool = 0
    area: Any = None


class _FederatedAnnotation(_Annotation, gc=False):
    area: float | None = None
    ignore: int | bool = 0


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[CategoryRecord]
    annotations: list[_Annotation]


class _FederatedFile(msgspec.Struct):
    images: list[_FederatedImage]
    categories: list[CategoryRecord]
    annotations: list[_FederatedAnnotation]


_AnyFile: TypeAlias = _File | _FederatedFile
_RULE = "a validation file is {images: [{id}], categories: [{id, name}], annotations: [{image_id, category_id, bbox}]}"
_FILE = msgspec.json.Decoder(_File)
_FEDERATED_FILE = msgspec.json.Decoder(_FederatedFile)


class _Arrays(msgspec.Struct):
    images: msgspec.Raw
    categories: msgspec.Raw
    annotations: msgspec.Raw


_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
_NUMBERS = ("category_id", "iscrowd", "ignore")
_CATEGORY = RecordDecoder(CategoryRecord, numbers=("id",))
_MEANT: dict[bool, dict[str, RecordDecoder[Any]]] = {
    False: {
        "images": RecordDecoder(_Image, ids=("id",)),
        "categories": _CATEGORY,
        "annotations": RecordDecoder(_Annotation, ids=("image_id",), numbers=_NUMBERS),
    },
    True: {
        "images": RecordDecoder(_FederatedImage, ids=("id",), numbers=_LISTS),
        "categories": _CATEGORY,
        "annotations": RecordDecoder(_FederatedAnnotation, ids=("image_id",), numbers=_NUMBERS),
    },
}
"""Array -> what decodes its records as they are meant; federated or not."""


def read_ground_truth(path: Path, *, federated: bool = False) -> GroundTruth:
    """Return the boxes of a validation file.

    Args:
        path: the file. Annotations without ``iscrowd`` are none.
        federated: whether to read what LVIS's rules need: of every image ``neg_category_ids`` and
            ``not_exhaustive_category_ids``, of annotations ``area`` (the box's where it is missing) and ``ignore``.

    Raises:
        DataFault: the file is missing or broken, an id stands twice or points nowhere, a name stands twice, a box is
            not finite or has a negative side, boxes are corners, centres or relative to their image, an image lacks a
            federated field; names the file and the place.
    """
    raw = read_bytes(path)
    try:
        file = _decoded(raw, federated)
    except DECODING_ERRORS as error:
        raise undecoded(path, raw, error, _RULE) from None
    image_ids = _sorted_ids([image.id for image in file.images], f"{path}: images")
    classes = sorted(_without_roots(file), key=attrgetter("id"))
    class_ids = _sorted_ids([category.id for category in classes], f"{path}: categories")
    names = tuple(category.name for category in classes)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataFault(
            f"{path}: categories: the name {twice!r} stands twice; classes are told apart by name.",
            remedy="give each class a name of its own, or join both under one id",
        )
    columns = columns_of(file.annotations)
    image, channel = checked(columns, image_ids, class_ids, f"{path}: annotations")
    crowd = np.fromiter(map(attrgetter("iscrowd"), file.annotations), np.bool_, len(image))
    more = _federated(file, class_ids, columns.boxes, path) if isinstance(file, _FederatedFile) else None
    images = sorted(file.images, key=attrgetter("id"))
    sizes = _sizes(images)
    _check_convention(columns.boxes[~crowd], sizes[image][~crowd], path)
    area = None if federated else _areas(file.annotations, columns.boxes)
    files = _file_names(images)
    return GroundTruth(image_ids, class_ids, names, image, channel, columns.boxes, crowd, more, sizes, area, files)


def _decoded(raw: bytes, federated: bool) -> _AnyFile:
    """Return what a file holds, read strictly or, where that fails, as it is meant (``lenient``).

    Raises:
        msgspec.DecodeError: it is no JSON or breaks a rule.
    """
    strict: Any = _FEDERATED_FILE if federated else _FILE
    try:
        file: _AnyFile = strict.decode(raw)
        return file
    except msgspec.ValidationError as error:
        return _as_meant(raw, federated, error)


def _as_meant(raw: bytes, federated: bool, strict: msgspec.ValidationError) -> _AnyFile:
    try:
        arrays = msgspec.json.decode(raw, type=_Arrays)
    except msgspec.ValidationError:
        raise strict from None
    records: dict[str, list[Any]] = {}
    for key, decoder in _MEANT[federated].items():
        try:
            records[key] = decoder.decode(bytes(getattr(arrays, key)))
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(str(error).replace(" - at `$", f" - at `$.{key}")) from None
    return _FederatedFile(**records) if federated else _File(**records)


def _without_roots(file: _AnyFile) -> list[CategoryRecord]:
    """Return the classes without a root category that bears the name of one of them."""
    if len({category.name for category in file.categories}) == len(file.categories):
        return file.categories
    roots = root_classes(file.categories, {annotation.category_id for annotation in file.annotations})
    return [category for place, category in enumerate(file.categories) if place not in roots]


def _sorted_ids(ids: list[int], where: str) -> NDArray[np.int64]:
    as_listed = np.array(ids, dtype=np.int64)
    if (twice := id_twice(as_listed)) is not None:
        raise DataFault(
            f"{where}: the id {twice.id} stands twice.",
            remedy="leave out records that stand twice, and give the others ids of their own",
        )
    return np.sort(as_listed)


def _sizes(images: Sequence[_Image]) -> NDArray[np.float64]:
    """Return width and height of the images, NaN where they are not stated, (I, 2)."""

    def side(value: Any) -> float:
        return float(value) if isinstance(value, int | float) and value > 0 else math.nan

    return np.array([(side(image.width), side(image.height)) for image in images], np.float64).reshape(-1, 2)


def _file_names(images: Sequence[_Image]) -> tuple[str, ...] | None:
    """Return the file names of the images, "" where one states none; None where none does."""
    names = tuple(image.file_name if isinstance(image.file_name, str) else "" for image in images)
    return names if any(names) else None


def _areas(annotations: Sequence[_Annotation], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the annotated areas, the box's where none is stated that makes sense, (N,): they only sort by size."""

    def stated(value: Any) -> float:
        return float(value) if isinstance(value, int | float) and value > 0 else math.nan

    annotated = np.fromiter((stated(annotation.area) for annotation in annotations), np.float64, len(boxes))
    return np.where(np.isfinite(annotated), annotated, areas(boxes))


def _check_convention(boxes: NDArray[np.float64], sizes: NDArray[np.float64], path: Path) -> None:
    """Refuse boxes that are not [x, y, width, height] in pixels, as far as the images' sizes are stated."""
    known = np.isfinite(sizes).all(axis=1)
    convention = ConventionCheck()
    convention.add(boxes[known], sizes[known])
    convention.check(f"{path}: annotations[*].bbox")


def _federated(file: _FederatedFile, class_ids: NDArray[np.int64], boxes: NDArray[np.float64], path: Path) -> Federated:
    channel_of = {category: channel for channel, category in enumerate(class_ids.tolist())}
    images = sorted(enumerate(file.images), key=lambda numbered: numbered[1].id)
    absent, incomplete = (
        [_channels(getattr(image, key), channel_of, f"{path}: images[{index}] (id {image.id})", key)
         for index, image in images]
        for key in ("neg_category_ids", "not_exhaustive_category_ids")
    )  # fmt: skip
    annotated = (np.nan if annotation.area is None else annotation.area for annotation in file.annotations)
    area = np.fromiter(annotated, np.float64, len(boxes))
    area = np.where(np.isnan(area), areas(boxes), area)
    remedy = "leave the area out, then it is the box's, or write it in square pixels"
    require(area >= 0, f"{path}: annotations", lambda i: f"the area is {area[i]}; it is 0 or more", remedy)
    ignored = np.fromiter(map(attrgetter("ignore"), file.annotations), np.bool_, len(boxes))
    return Federated(absent, incomplete, area, ignored)


def _channels(ids: Sequence[int] | None, channel_of: dict[int, int], where: str, key: str) -> list[int]:
    """Return the channels of the classes an image lists."""
    if ids is None:
        raise DataFault(
            f"{where} lacks {key}, which every image of a validation file has for the metric 'lvis'.",
            remedy="score against a validation file in the format of LVIS v1, as cissod-bench tasks lvis names it",
        )
    unknown = [category for category in ids if category not in channel_of]
    if unknown:
        raise DataFault(
            f"{where}.{key}: the category id {unknown[0]} is not among the file's {len(channel_of)}.",
            remedy=f"add the class to categories, or take its id out of {key}",
        )
    return [channel_of[category] for category in ids]
