"""Records of an annotation file, decoded strictly into columns of numbers, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.images import broken_name_rule, check_file_name
from cissod_bench.json_arrays import record_spans
from cissod_bench.json_files import JsonFile, Member, Piece

Ints: TypeAlias = npt.NDArray[np.int64]

_Id = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Pixels = Annotated[float, msgspec.Meta(ge=-1e7, le=1e7)]


class ImageRecord(msgspec.Struct, gc=False):
    """What is wanted of an image; width and height in pixels."""

    id: _Id
    width: _Side
    height: _Side
    file_name: str


class BoxRecord(msgspec.Struct, gc=False):
    """What is wanted of an annotation; ``bbox`` is x, y, width, height in pixels."""

    id: _Id
    image_id: _Id
    category_id: _Id
    bbox: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    iscrowd: bool | Annotated[int, msgspec.Meta(ge=0, le=1)] = 0


class CategoryRecord(msgspec.Struct):
    """What is wanted of a class."""

    id: _Id
    name: str


@dataclass(frozen=True)
class Spans:
    """Where records stand in the text of their file: offsets int64 (N,), lengths int32 (N,), in bytes."""

    offsets: Ints
    lengths: npt.NDArray[np.int32]

    def only(self, keep: npt.NDArray[np.bool_] | slice) -> Spans:
        """Return the spans of some of the records."""
        return Spans(self.offsets[keep], self.lengths[keep])


class Columns:
    """Columns that grow piece by piece; no object of a record outlives its piece.

    Attributes:
        found: whether the file has the array.
    """

    decoder: ClassVar[msgspec.json.Decoder[Any]]
    fields: ClassVar[dict[str, Any]]
    """Field of a record -> NumPy type of its column."""

    def __init__(self) -> None:
        self.found = False
        self._parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*self.fields, "offsets", "lengths")}

    def read(self, file: JsonFile, member: Member) -> None:
        """Read the whole array.

        Raises:
            DataFault: a record is no JSON or breaks a rule; the message names it.
        """
        self.found = True
        for piece in member.pieces(self.decoder):
            self._add_piece(file, piece)

    def _add_piece(self, file: JsonFile, piece: Piece[Any]) -> None:
        for name, kind in self.fields.items():
            values = map(attrgetter(name), piece.records)
            self._parts[name].append(np.fromiter(values, kind, len(piece.records)))
        starts, lengths = record_spans(piece.text, len(piece.records))
        self._parts["offsets"].append(piece.offset + starts)
        self._parts["lengths"].append(lengths.astype(np.int32))

    def take(self, name: str) -> npt.NDArray[Any]:
        """Return a column whole and forget its parts, so that it is held once."""
        parts = self._parts.pop(name)
        return np.concatenate(parts) if parts else np.empty(0, self.fields.get(name, np.int64))

    def spans(self) -> Spans:
        """Return where the records stand."""
        return Spans(self.take("offsets"), self.take("lengths").astype(np.int32, copy=False))


class ImageColumns(Columns):
    """Columns id, width and height of the images.

    Attributes:
        file_names: their ``file_name``, each checked to stay in its folder.
    """

    decoder = msgspec.json.Decoder(list[ImageRecord])
    fields: ClassVar[dict[str, Any]] = {"id": np.int64, "width": np.int32, "height": np.int32}

    def __init__(self) -> None:
        super().__init__()
        self.file_names: list[str] = []

    def _add_piece(self, file: JsonFile, piece: Piece[ImageRecord]) -> None:
        names = [record.file_name for record in piece.records]
        for index, name in enumerate(names):
            if broken_name_rule(name) is not None:  # the message is made for the one bad name among millions only
                check_file_name(name, f"{file.path}: images[{piece.first + index}].file_name")
        self.file_names += names
        super()._add_piece(file, piece)


class BoxColumns(Columns):
    """Columns id, image_id, category_id and iscrowd of the annotations, and their boxes."""

    decoder = msgspec.json.Decoder(list[BoxRecord])
    fields: ClassVar[dict[str, Any]] = {
        "id": np.int64,
        "image_id": np.int64,
        "category_id": np.int64,
        "iscrowd": np.bool_,
    }

    def __init__(self) -> None:
        super().__init__()
        self._parts["bbox"] = []

    def _add_piece(self, file: JsonFile, piece: Piece[BoxRecord]) -> None:
        super()._add_piece(file, piece)
        numbers = chain.from_iterable(map(attrgetter("bbox"), piece.records))
        self._parts["bbox"].append(np.fromiter(numbers, np.float64, 4 * len(piece.records)))

    def boxes(self) -> npt.NDArray[np.float64]:
        """Return x, y, width, height of every annotation, float64 (N, 4)."""
        boxes: npt.NDArray[np.float64] = self.take("bbox").astype(np.float64, copy=False).reshape(-1, 4)
        return boxes


def decode_categories(file: JsonFile, text: bytes) -> tuple[Sequence[CategoryRecord], Sequence[bytes]]:
    """Return the classes and the bytes of their records.

    Raises:
        DataFault: a record breaks a rule; the message names it.
    """
    try:
        parsed = msgspec.json.decode(text, type=list[CategoryRecord])
    except msgspec.ValidationError as error:
        raise file.record_fault("categories", 0, text, error) from None
    return parsed, [bytes(record) for record in msgspec.json.decode(text, type=list[msgspec.Raw])]
