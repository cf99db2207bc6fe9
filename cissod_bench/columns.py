"""Records of an annotation file, decoded strictly into columns of numbers, piece by piece."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.errors import DataFault
from cissod_bench.images import check_file_name
from cissod_bench.json_arrays import JsonFile, Member

Ints: TypeAlias = npt.NDArray[np.int64]
T = TypeVar("T", bound=msgspec.Struct)

_Id = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Pixels = Annotated[float, msgspec.Meta(ge=-1e7, le=1e7)]


class ImageRecord(msgspec.Struct, gc=False):
    id: _Id
    width: _Side
    height: _Side
    file_name: str


class BoxRecord(msgspec.Struct, gc=False):
    id: _Id
    image_id: _Id
    category_id: _Id
    bbox: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    iscrowd: bool | Annotated[int, msgspec.Meta(ge=0, le=1)] = 0


class CategoryRecord(msgspec.Struct):
    id: _Id
    name: str


@dataclass(frozen=True)
class Spans:
    """Where records stand in the text of their file: offsets int64 (N,), lengths int32 (N,), in bytes."""

    offsets: Ints
    lengths: npt.NDArray[np.int32]


_PLACE = re.compile(r"^(?P<rule>.*?)(?: - at `\$(?:\[(?P<index>\d+)\](?P<rest>.*))?`)?$", re.DOTALL)


def decode_records(file: JsonFile, decoder: msgspec.json.Decoder[list[T]], text: bytes, key: str, first: int) -> list[T]:
    """Decode whole records; the fault of a wrong type names the record by its index in the whole array."""
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:  # a ValidationError is one
        match = _PLACE.match(str(error))
        assert match is not None  # it matches every text
        if match["index"] is None:
            raise DataFault(f"{file.path}: {key}: {match['rule']}.") from None
        index = int(match["index"])
        record = bytes(msgspec.json.decode(text, type=list[msgspec.Raw])[index])
        shown = record[:160].decode("utf-8", "replace") + ("..." if len(record) > 160 else "")
        raise DataFault(f"{file.path}: {key}[{first + index}]{match['rest']}: {match['rule']}. The record: {shown}") from None


class _Columns:
    """Grows columns piece by piece; no object of a record outlives its piece."""

    def __init__(self, file: JsonFile) -> None:
        self._file, self.found, self.count = file, False, 0
        self._parts: dict[str, list[npt.NDArray[Any]]] = {}

    def _rows(self, text: bytes, first: int) -> None:
        raise NotImplementedError

    def read(self, member: Member) -> None:
        """Read the whole array."""
        self.found = True
        for piece in member.pieces():
            self._rows(piece.text, piece.first)
            lengths = np.fromiter((record.nbytes for record in map(memoryview, piece.records)), np.int32, len(piece.records))
            self._add("lengths", lengths)
            self._add("offsets", piece.offset + _starts(piece.text, lengths))
            self.count += len(piece.records)
            self._file.release()

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        self._parts.setdefault(name, []).append(values)

    def take(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a column whole and forget its parts, so that it is held once."""
        parts = self._parts.pop(name, [])
        return np.concatenate(parts) if parts else np.empty(0, dtype)

    def spans(self) -> Spans:
        """Return where the records stand."""
        return Spans(self.take("offsets", np.int64), self.take("lengths", np.int32))


def _starts(text: bytes, lengths: npt.NDArray[np.int32]) -> Ints:
    """Return where each record of known length starts: only a comma and blanks stand between two records."""
    starts = np.empty(len(lengths), np.int64)
    stop, find = 0, text.find
    for index, length in enumerate(lengths.tolist()):
        start = find(b"{", stop)
        starts[index] = start
        stop = start + length
    return starts


class ImageColumns(_Columns):
    _decoder = msgspec.json.Decoder(list[ImageRecord])

    def __init__(self, file: JsonFile) -> None:
        super().__init__(file)
        self.file_names: list[str] = []

    def _rows(self, text: bytes, first: int) -> None:
        rows = decode_records(self._file, self._decoder, text, "images", first)
        for index, row in enumerate(rows):
            check_file_name(row.file_name, f"{self._file.path}: images[{first + index}].file_name")
        self.file_names += [row.file_name for row in rows]
        self._add("ids", _column(rows, "id", np.int64))
        self._add("widths", _column(rows, "width", np.int32))
        self._add("heights", _column(rows, "height", np.int32))


class BoxColumns(_Columns):
    _decoder = msgspec.json.Decoder(list[BoxRecord])

    def _rows(self, text: bytes, first: int) -> None:
        rows = decode_records(self._file, self._decoder, text, "annotations", first)
        self._add("ids", _column(rows, "id", np.int64))
        self._add("images", _column(rows, "image_id", np.int64))
        self._add("classes", _column(rows, "category_id", np.int64))
        self._add("crowd", _column(rows, "iscrowd", np.bool_))
        corners = np.fromiter(chain.from_iterable(map(attrgetter("bbox"), rows)), np.float64, 4 * len(rows))
        self._add("boxes", corners.reshape(-1, 4))


def _column(rows: list[Any], name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.fromiter(map(attrgetter(name), rows), dtype, len(rows))
