"""What is scored against what: a validation file and a predictions file, checked and read into columns.

Both are COCO's formats: ``{"images", "categories", "annotations"}`` and ``[{image_id, category_id, bbox, score}]`` with
boxes as x, y, width, height. Either may be gzipped. Nothing is clipped, dropped or guessed here: what does not fit is a
fault that names the entry.
"""

from __future__ import annotations

import gc
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from cissod_bench.engines import Detections, GroundTruth
from cissod_bench.errors import DataFault
from cissod_bench.json_files import BYTE_ORDER_MARKS

Id: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Box: TypeAlias = tuple[float, float, float, float]


class _Entry(Protocol):
    image_id: int
    category_id: int
    bbox: Box


# gc=False: these hold no cycles, and the collector need not know of half a million of them.
class _Detection(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id
    bbox: Box
    score: float


class _Annotation(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id
    bbox: Box
    iscrowd: int | bool = 0


class _Image(msgspec.Struct, gc=False):
    id: Id


class _Category(msgspec.Struct, gc=False):
    id: Id
    name: str


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


_PREDICTIONS = msgspec.json.Decoder(list[_Detection])
_FILE = msgspec.json.Decoder(_File)
_FILE_RULE = (
    "a validation file is {images: [{id}], categories: [{id, name}], annotations: [{image_id, category_id, bbox}]}"
)
_PREDICTIONS_RULE = "predictions are [{image_id, category_id, bbox: [x, y, width, height], score}]"


def read_ground_truth(path: Path) -> GroundTruth:
    """Return the boxes of a COCO validation file; annotations without ``iscrowd`` are none, ``area`` is not needed.

    Raises:
        DataFault: the file is missing or broken, an id stands twice or points nowhere, a box is not finite or has a
            negative side; names the file and the place.
    """
    raw = _read(path)
    try:
        file = _FILE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _undecoded(path, raw, error, _FILE_RULE) from None
    image_ids = _sorted_ids([image.id for image in file.images], f"{path}: images")
    classes = sorted(file.categories, key=attrgetter("id"))
    class_ids = _sorted_ids([category.id for category in classes], f"{path}: categories")
    names = tuple(category.name for category in classes)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataFault(f"{path}: categories: the name {twice!r} stands twice; classes are told apart by name.")
    where = f"{path}: annotations"
    image, channel, boxes = _columns(file.annotations, image_ids, class_ids, where)
    crowd = np.fromiter(map(attrgetter("iscrowd"), file.annotations), dtype=np.bool_, count=len(boxes))
    return GroundTruth(image_ids, class_ids, names, image, channel, boxes, crowd)


def read_detections(predictions: Path | Sequence[Any], truth: GroundTruth) -> Detections:
    """Return predictions in COCO's result format as columns.

    Args:
        predictions: a file, or the list itself made of plain Python values.
        truth: what they were predicted for; its images and classes are the only ones allowed.

    Raises:
        DataFault: the file is missing or broken, or an entry lacks a key, has a value of a wrong type, an unknown
            image or class, a box or score that is not finite, or a negative side; names the entry by its place.
    """
    if isinstance(predictions, Path):
        where, raw = f"{predictions}", _read(predictions)
        try:
            with _no_collection():
                entries = _PREDICTIONS.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _undecoded(predictions, raw, error, _PREDICTIONS_RULE) from None
    else:
        where = "predictions"
        try:
            entries = msgspec.convert(predictions, list[_Detection])
        except msgspec.ValidationError as error:
            raise _invalid(where, error, _PREDICTIONS_RULE) from None
    image, channel, boxes = _columns(entries, truth.image_ids, truth.class_ids, where)
    scores = np.fromiter(map(attrgetter("score"), entries), dtype=np.float64, count=len(boxes))
    _require(np.isfinite(scores), where, lambda i: f"the score is {scores[i]}, not a finite number")
    return Detections(image, channel, boxes, scores)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector from walking half a million boxes, none of them in a cycle, again and again as they grow."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise DataFault(f"{path}: there is no such file.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFault(f"{path}: a damaged gzip file ({error}).", remedy="copy or write the file again") from None
    except OSError as error:
        raise DataFault(f"{path}: cannot be read ({error.strerror}).") from None


def _undecoded(path: Path, raw: bytes, error: Exception, rule: str) -> DataFault:
    """Return the fault of a file msgspec refused; what it says of malformed JSON is made more precise."""
    if isinstance(error, msgspec.ValidationError):
        return _invalid(str(path), error, rule)
    if isinstance(error, RecursionError):
        return DataFault(f"{path}: nests too deeply.", remedy=rule)
    if not raw.strip():
        return DataFault(f"{path}: the file is empty.", remedy=rule)
    if raw.startswith(BYTE_ORDER_MARKS):
        return DataFault(
            f"{path}: starts with a byte order mark, which JSON does not allow.", remedy="save it as plain UTF-8"
        )
    try:
        value = json.loads(raw.decode())  # takes the NaN and Infinity that Python writes and JSON does not know
        entries = value.get("annotations") if isinstance(value, dict) else value
        rows = entries if isinstance(entries, list) else []
        bad = next((i for i, entry in enumerate(rows) if not _finite(entry)), None)
    except RecursionError:
        return DataFault(f"{path}: nests too deeply.", remedy=rule)
    except ValueError as malformed:
        return DataFault(f"{path}: not JSON: {malformed}.", remedy="write the file again; it may have been cut off")
    place = "" if bad is None else f" entry {bad}:"
    return DataFault(f"{path}:{place} NaN or Infinity, which JSON does not know; scores and boxes are finite numbers.")


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _invalid(where: str, error: msgspec.ValidationError, rule: str) -> DataFault:
    """Return the fault of a wrong type or missing key, with the entry in front of msgspec's JSON path."""
    index = re.search(r"`\$(?:\.\w+)?\[(\d+)\]", str(error))
    return DataFault(f"{where}:{f' entry {index[1]}:' if index else ''} {error}.", remedy=rule)


def _sorted_ids(ids: list[int], where: str) -> NDArray[np.int64]:
    unique, counts = np.unique(np.array(ids, dtype=np.int64), return_counts=True)
    if len(unique) < len(ids):
        raise DataFault(f"{where}: the id {unique[counts > 1][0]} stands twice.")
    return unique


def _columns(
    entries: Sequence[_Entry], image_ids: NDArray[np.int64], class_ids: NDArray[np.int64], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return image, channel and boxes of the entries after checking them; ids become places in the sorted ids."""
    count = len(entries)
    image = _places(np.fromiter(map(attrgetter("image_id"), entries), np.int64, count), image_ids, where, "image")
    channel = _places(
        np.fromiter(map(attrgetter("category_id"), entries), np.int64, count), class_ids, where, "category"
    )
    flat = chain.from_iterable(map(attrgetter("bbox"), entries))
    boxes = np.fromiter(flat, np.float64, 4 * count).reshape(count, 4)
    finite: NDArray[np.bool_] = np.all(np.isfinite(boxes), axis=1)
    sound: NDArray[np.bool_] = np.all(boxes[:, 2:] >= 0, axis=1)
    _require(finite, where, lambda i: f"the box {boxes[i].tolist()} is not finite")
    _require(sound, where, lambda i: f"the box {boxes[i].tolist()} has a negative side; it is x, y, width, height")
    return image, channel, boxes


def _places(ids: NDArray[np.int64], known: NDArray[np.int64], where: str, kind: str) -> NDArray[np.int64]:
    place = np.searchsorted(known, ids).astype(np.int64)
    there = np.zeros(len(ids), dtype=np.bool_)
    if len(known):
        there = known[np.minimum(place, len(known) - 1)] == ids
    _require(there, where, lambda i: f"the {kind} id {ids[i]} is not in the validation file's {len(known)}")
    return place


def _require(holds: NDArray[np.bool_], where: str, fault: Callable[[int], str]) -> None:
    if not holds.all():
        first = int(np.argmin(holds))
        others = int((~holds).sum()) - 1
        raise DataFault(f"{where}: entry {first}: {fault(first)}{f' (and {others} more)' if others else ''}.")
