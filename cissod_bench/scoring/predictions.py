"""Predictions in COCO's result format, ``[{image_id, category_id, bbox, score}]``, read into columns.

Boxes are x, y, width, height. The file may be gzipped. It is decoded in pieces, because a million small objects at once
take longer to make and to forget than their numbers do to read, and three times the memory. Image ids may be written as
in the annotation file, in text too (``lenient``), or be the images' file names (``image_names``).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cissod_bench.annotations.lenient import Id, RecordDecoder
from cissod_bench.scoring.boxes import Detections, GroundTruth
from cissod_bench.scoring.entries import (
    DECODING_ERRORS,
    Box,
    BoxEntryColumns,
    checked,
    columns_of,
    invalid,
    read_bytes,
    require,
    undecoded,
)
from cissod_bench.scoring.image_names import ids_of_names

PIECE_BYTES = 1 << 20
_SPACE = b" \t\n\r"
_RULE = "predictions are [{image_id, category_id, bbox: [x, y, width, height], score}]"


# gc=False: these hold no cycles, and the collector need not know of half a million of them.
class _Detection(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id
    bbox: Box
    score: float


_DECODER = RecordDecoder(_Detection, ids=("image_id",), numbers=("category_id",))


def read_detections(predictions: Path | Sequence[Any], truth: GroundTruth) -> Detections:
    """Return predictions as columns.

    Args:
        predictions: a file, or the list itself made of plain Python values.
        truth: what they were predicted for; its images and classes are the only ones allowed.

    Raises:
        DataFault: the file is missing or broken, or an entry lacks a key, has a value of a wrong type, an unknown
            image or class, a box or score that is not finite, or a negative side; names the entry by its place.
    """
    if isinstance(predictions, Path):
        where = str(predictions)
        with _no_collection():
            columns, scores = _columns_of_text(read_bytes(predictions), predictions)
    else:
        where = "predictions"
        try:
            entries = _DECODER.convert(predictions)
        except msgspec.ValidationError as error:
            raise invalid(where, error, _RULE) from None
        columns, scores = columns_of(entries), _scores_of(entries)
    columns = columns._replace(image_id=ids_of_names(columns.image_id, truth.image_ids, truth.file_names, where))
    image, channel = checked(columns, truth.image_ids, truth.class_ids, where)
    remedy = "leave out entries whose score is not finite when the file is written"
    require(np.isfinite(scores), where, lambda i: f"the score is {scores[i]}, not a finite number", remedy)
    return Detections(image, channel, columns.boxes, scores)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector from walking the boxes, none of them in a cycle, again and again as they grow."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _columns_of_text(raw: bytes, path: Path) -> tuple[BoxEntryColumns, NDArray[np.float64]]:
    parts: list[tuple[BoxEntryColumns, NDArray[np.float64]]] = []
    try:
        for entries in _pieces(raw):
            parts.append((columns_of(entries), _scores_of(entries)))
    except DECODING_ERRORS:  # broken, or cut in a wrong place: only the whole text tells
        try:
            entries = _DECODER.decode(raw)
        except DECODING_ERRORS as error:
            raise undecoded(path, raw, error, _RULE) from None
        parts = [(columns_of(entries), _scores_of(entries))]
    columns = BoxEntryColumns(*map(np.concatenate, zip(*(part[0] for part in parts), strict=True)))
    return columns, np.concatenate([part[1] for part in parts])


def _scores_of(entries: Sequence[_Detection]) -> NDArray[np.float64]:
    return np.fromiter(map(attrgetter("score"), entries), np.float64, len(entries))


def _pieces(raw: bytes) -> Iterator[list[_Detection]]:
    """Yield the entries of an array in their order, piece by piece.

    A cut behind "}," is between two entries exactly when strict decoding takes the text before it: one inside an entry
    leaves a bracket or a quote open.

    Raises:
        msgspec.DecodeError: the text is no array of detections, or a cut was inside an entry.
    """
    at = raw.find(b"[") + 1
    if raw[:at].strip(_SPACE) != b"[":
        raise msgspec.DecodeError("an array is expected")
    is_first = True
    while len(raw) - at > PIECE_BYTES and (end := raw.rfind(b"},", at, at + PIECE_BYTES)) >= 0:
        yield _DECODER.decode(b"".join((b"[", raw[at : end + 1], b"]")))
        at, is_first = end + 2, False
    entries = _DECODER.decode(b"[" + raw[at:])
    if not (entries or is_first):
        raise msgspec.DecodeError("a comma before the closing bracket")
    yield entries
