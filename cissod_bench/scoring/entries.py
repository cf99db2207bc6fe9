"""What reading a validation file and reading predictions share: bytes, faults with a place, ids as places.

Nothing is clipped, dropped or guessed here: what does not fit is a fault that names the entry.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from cissod_bench.annotations.ids import row_finder
from cissod_bench.annotations.lenient import shown_id
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import BYTE_ORDER_MARKS, GZIP_ERRORS, unpacked

Box: TypeAlias = tuple[float, float, float, float]

DECODING_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on text that is not what a decoder wants."""

_READABLE = "name a file that is there and that you may read"
_FINITE = "leave out entries whose box is not finite when the file is written"
_SIDES = "write x2 - x1 and y2 - y1 as width and height; leave out boxes that end before they begin"


class BoxEntry(Protocol):
    """What an annotation and a detection have in common."""

    image_id: int
    category_id: int
    bbox: Box


class BoxEntryColumns(NamedTuple):
    """Entries as columns: int64 (N,), int64 (N,), float64 (N, 4)."""

    image_id: NDArray[np.int64]
    category_id: NDArray[np.int64]
    boxes: NDArray[np.float64]


def read_bytes(path: Path) -> bytes:
    """Return a file's content, unpacked if it is gzipped.

    Raises:
        DataFault: it is missing, cannot be read or is a damaged gzip file.
    """
    try:
        return unpacked(path.read_bytes())
    except FileNotFoundError:
        raise DataFault(f"{path}: there is no such file.", remedy=_READABLE) from None
    except GZIP_ERRORS as error:
        raise DataFault(f"{path}: a damaged gzip file ({error}).", remedy="copy or write the file again") from None
    except OSError as error:
        raise DataFault(f"{path}: cannot be read ({error.strerror}).", remedy=_READABLE) from None


def undecoded(path: Path, raw: bytes, error: Exception, rule: str) -> DataFault:
    """Return the fault of a file msgspec refused; what it says of malformed JSON is made more precise.

    Args:
        path: the file.
        raw: its text.
        error: one of ``DECODING_ERRORS``.
        rule: what the file should hold, in a sentence.
    """
    if isinstance(error, msgspec.ValidationError):
        return invalid(str(path), error, rule)
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
    return DataFault(
        f"{path}:{place} NaN or Infinity, which JSON does not know; scores and boxes are finite numbers.",
        remedy="leave out entries whose score or box is not finite when the file is written",
    )


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def invalid(where: str, error: msgspec.ValidationError, rule: str) -> DataFault:
    """Return the fault of a wrong type or missing key, with the entry in front of msgspec's JSON path."""
    index = re.search(r"`\$(?:\.\w+)?\[(\d+)\]", str(error))
    return DataFault(f"{where}:{f' entry {index[1]}:' if index else ''} {error}.", remedy=rule)


def columns_of(entries: Sequence[BoxEntry]) -> BoxEntryColumns:
    """Return the columns of decoded entries."""
    count = len(entries)
    return BoxEntryColumns(
        np.fromiter(map(attrgetter("image_id"), entries), np.int64, count),
        np.fromiter(map(attrgetter("category_id"), entries), np.int64, count),
        np.fromiter(chain.from_iterable(map(attrgetter("bbox"), entries)), np.float64, 4 * count).reshape(count, 4),
    )


def checked(
    columns: BoxEntryColumns, image_ids: NDArray[np.int64], class_ids: NDArray[np.int64], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return image and channel of the entries, places in the ascending ids, int64 (N,) each.

    Raises:
        DataFault: an id is not among those known, a box is not finite or has a negative side; names the entry.
    """
    boxes = columns.boxes
    image = places(columns.image_id, image_ids, where, "image")
    channel = places(columns.category_id, class_ids, where, "category")
    finite: NDArray[np.bool_] = np.all(np.isfinite(boxes), axis=1)
    require(finite, where, lambda i: f"the box {boxes[i].tolist()} is not finite", _FINITE)
    sound = (boxes[:, 2] >= 0) & (boxes[:, 3] >= 0)
    told = "it is x, y, width, height"
    require(sound, where, lambda i: f"the box {boxes[i].tolist()} has a negative side; {told}", _SIDES)
    return image, channel


def places(ids: NDArray[np.int64], known: NDArray[np.int64], where: str, kind: str) -> NDArray[np.int64]:
    """Return the place of each id in the ascending ``known``, int64 (N,).

    Raises:
        DataFault: one is not there; names its entry.
    """
    place = row_finder(known)(ids).astype(np.int64)
    told = f"is not in the validation file's {len(known)}"
    remedy = f"name each {kind} by its id in the validation file"
    require(place >= 0, where, lambda i: f"the {kind} id {shown_id(int(ids[i]))} {told}", remedy)
    return place


def require(holds: NDArray[np.bool_], where: str, fault: Callable[[int], str], remedy: str) -> None:
    """Refuse what does not hold for every entry.

    Args:
        holds: bool (N,).
        where: the file, and its array if it has several.
        fault: the index of the first entry that breaks the rule -> what is wrong with it.
        remedy: what mends it.

    Raises:
        DataFault: an entry breaks the rule.
    """
    if not holds.all():
        first = int(np.argmin(holds))
        others = int((~holds).sum()) - 1
        more = f" (and {others} more)" if others else ""
        raise DataFault(f"{where}: entry {first}: {fault(first)}{more}.", remedy=remedy)
