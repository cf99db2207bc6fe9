"""Records of an annotation file, decoded strictly into columns of numbers, piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.file_names import ImageFolder, NamesBelow
from cissod_bench.annotations.lenient import Id, Meant, RecordDecoder
from cissod_bench.annotations.naming import Naming
from cissod_bench.errors import DataFault
from cissod_bench.files.images import broken_name_rule, check_file_name
from cissod_bench.files.json_objects import JsonFile, Member, Piece
from cissod_bench.files.json_records import record_spans

Ints: TypeAlias = npt.NDArray[np.int64]

_Side = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Pixels = Annotated[float, msgspec.Meta(ge=-1e7, le=1e7)]


class ImageRecord(msgspec.Struct, gc=False):
    """What is wanted of an image; width and height in pixels, root the role of its folder."""

    id: Id
    width: _Side
    height: _Side
    file_name: str
    root: str = ""


class UrlImageRecord(msgspec.Struct, gc=False):
    """The same where the file is named by the URL it was fetched from."""

    id: Id
    width: _Side
    height: _Side
    coco_url: str
    root: str = ""


class BoxRecord(msgspec.Struct, gc=False):
    """What is wanted of an annotation; ``bbox`` is x, y, width, height in pixels."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    iscrowd: bool | Annotated[int, msgspec.Meta(ge=0, le=1)] = 0


class CategoryRecord(msgspec.Struct):
    """What is wanted of a class."""

    id: Id
    name: str
    supercategory: Any = ""


@dataclass(frozen=True)
class Spans:
    """Where records stand in the text of their file: offsets int64 (N,), lengths int32 (N,), in bytes."""

    offsets: Ints
    lengths: npt.NDArray[np.int32]

    def only(self, keep: npt.NDArray[np.bool_] | slice) -> Spans:
        """Return the spans of some of the records."""
        return Spans(self.offsets[keep], self.lengths[keep])


class Column:
    """A column that grows at its end.

    Room for the expected length is taken at once. It costs no memory before it is filled, while thousands of small
    parts that are joined at the end would be held twice.
    """

    def __init__(self, kind: Any, width: int = 1) -> None:
        self._values: npt.NDArray[Any] = np.empty((0, width), kind)
        self._count = 0

    def add(self, values: npt.NDArray[Any], expected: int) -> None:
        """Append values.

        Args:
            values: flat, ``width`` numbers a record.
            expected: how many records the whole column may have.
        """
        rows = values.reshape(-1, self._values.shape[1])
        stop = self._count + len(rows)
        if stop > len(self._values):
            grown = np.empty((max(expected, stop, len(self._values) * 5 // 4), rows.shape[1]), self._values.dtype)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : stop] = rows
        self._count = stop

    def whole(self) -> npt.NDArray[Any]:
        """Return what was added, (N,) or (N, width)."""
        values = self._values[: self._count]
        return values[:, 0] if values.shape[1] == 1 else values


_SIDES = ("width", "height")
_IMAGE = RecordDecoder(ImageRecord, ids=("id",), numbers=_SIDES)
_IMAGES: dict[str, RecordDecoder[Any]] = {
    "file_name": _IMAGE,
    "objects365": _IMAGE,
    "coco_url": RecordDecoder(UrlImageRecord, ids=("id",), numbers=_SIDES),
}
_CATEGORY = RecordDecoder(CategoryRecord, numbers=("id",))
_PREFIXES = ("images/v1/", "images/v2/")
_PREFIX = len(_PREFIXES[0])
_MOST_ROOTS = 100


class Columns:
    """Columns that grow piece by piece; no object of a record outlives its piece.

    Attributes:
        found: whether the file has the array.
        records: whether the records themselves will be wanted.
        tally: what was normalised (``lenient.WORDS``) -> in how many records.

    Args:
        records: whether the records themselves will be wanted: where they stand.
    """

    decoder: RecordDecoder[Any]
    fields: ClassVar[dict[str, Any]]
    """Field of a record -> NumPy type of its column."""

    def __init__(self, records: bool = True) -> None:
        self.found, self.records = False, records
        self.tally: Counter[str] = Counter()
        # First record of a piece -> which of the piece's are not plain.
        self._odd: dict[int, npt.NDArray[np.bool_]] = {}
        self._count = 0
        kinds = {**self.fields, **({"offsets": np.int64, "lengths": np.int32} if records else {})}
        self._columns = {name: Column(kind) for name, kind in kinds.items()}

    def read(self, file: JsonFile, member: Member) -> None:
        """Read the whole array.

        Raises:
            DataFault: a record is no JSON or breaks a rule; the message names it.
        """
        self.found = True
        start = member.end
        for piece in member.pieces(self.decoder):
            count = piece.first + len(piece.records)
            share = (piece.offset + len(piece.text) - start) / max(file.size - start, 1)
            self._add_piece(file, piece, int(1.02 * count / share) + 1)
            self._count = count

    def _add_piece(self, file: JsonFile, piece: Piece[Any], expected: int) -> None:
        for name, kind in self.fields.items():
            if name not in self._columns:
                continue
            values = map(attrgetter(name), piece.records)
            self._columns[name].add(np.fromiter(values, kind, len(piece.records)), expected)
        if isinstance(piece.records, Meant):
            self._mark(piece, piece.records.changed)
            self.tally.update(piece.records.tally)
        if self.records:
            starts, lengths = record_spans(piece.text, len(piece.records))
            self._columns["offsets"].add(piece.offset + starts, expected)
            self._columns["lengths"].add(lengths, expected)

    def _mark(self, piece: Piece[Any], changed: Iterable[int]) -> None:
        marks = self._odd.setdefault(piece.first, np.zeros(len(piece.records), np.bool_))
        marks[list(changed)] = True

    def odd(self) -> npt.NDArray[np.bool_] | None:
        """Return which records are not plain and must be written anew, bool (N,); None where all are plain."""
        if not any(marks.any() for marks in self._odd.values()):
            return None
        odd = np.zeros(self._count, np.bool_)
        for first, marks in self._odd.items():
            odd[first : first + len(marks)] = marks
        return odd

    def look(self, name: str) -> npt.NDArray[Any]:
        """Return a column and keep it."""
        return self._columns[name].whole()

    def take(self, name: str) -> npt.NDArray[Any]:
        """Return a column and forget it, so that its memory is free when the caller is done with it."""
        return self._columns.pop(name).whole()

    def spans(self) -> Spans:
        """Return where the records stand; of none if they are not wanted."""
        if not self.records:
            return Spans(np.empty(0, np.int64), np.empty(0, np.int32))
        return Spans(self.take("offsets"), self.take("lengths"))


class ImageColumns(Columns):
    """Columns id, width and height of the images.

    Attributes:
        file_names: where they lie below their image folder, each checked to stay in it.
        roots: roles of image folders that the records name, in the order met; "" where a record names none.
        swapped: rows of the images whose width and height were exchanged.
        doubtful: rows of the images of which nobody knows which side is the width, the exchanged ones among them.

    Args:
        naming: how a record names its file.
        swapped: files whose width and height are to be exchanged.
        doubtful: further files whose width and height may be exchanged, and stay.
        folder: where images lie that name no root; None leaves names as they are.
        records: as for `Columns`.
    """

    fields: ClassVar[dict[str, Any]] = {"id": np.int64, "width": np.int32, "height": np.int32}

    def __init__(
        self,
        naming: Naming = "file_name",
        swapped: Collection[str] = (),
        doubtful: Collection[str] = (),
        folder: ImageFolder | None = None,
        records: bool = True,
    ) -> None:
        super().__init__(records)
        self._below = NamesBelow(folder) if folder is not None and naming != "coco_url" else None
        self.decoder = _IMAGES[naming]
        self.file_names: list[str] = []
        self.roots: list[str] = []
        self.swapped: list[int] = []
        self.doubtful: list[int] = []
        self._columns["root"] = Column(np.int8)
        self._naming, self._to_swap, self._doubtful = naming, frozenset(swapped), frozenset((*swapped, *doubtful))

    def _add_piece(self, file: JsonFile, piece: Piece[Any], expected: int) -> None:
        if self._below is not None:
            self._make_names_plain(self._below, piece)
        names = _file_names(piece.records, self._naming)
        for index, name in enumerate(names):
            if broken_name_rule(name) is not None:  # the message is made for the one bad name among millions only
                key = "coco_url" if self._naming == "coco_url" else "file_name"
                check_file_name(name, f"{file.path}: images[{piece.first + index}].{key}")
        if self._doubtful and not self._doubtful.isdisjoint(names):
            self.doubtful += [piece.first + index for index, name in enumerate(names) if name in self._doubtful]
            self._swap(piece, names)
        self.file_names += names
        roots = [record.root for record in piece.records]
        for root in dict.fromkeys(roots):
            self._add_root(file, root)
        self._columns["root"].add(np.array([self.roots.index(root) for root in roots], np.int8), expected)
        super()._add_piece(file, piece, expected)

    def _make_names_plain(self, below: NamesBelow, piece: Piece[Any]) -> None:
        changed = below.changed([record.file_name for record in piece.records])
        for index, name in changed.items():
            piece.records[index].file_name = name
        if changed:
            self._mark(piece, changed)
            self.tally.update(below.tally)
            below.tally.clear()

    def _swap(self, piece: Piece[Any], names: Sequence[str]) -> None:
        for index, (record, name) in enumerate(zip(piece.records, names, strict=True)):
            if name in self._to_swap:
                record.width, record.height = record.height, record.width
                self.swapped.append(piece.first + index)

    def _add_root(self, file: JsonFile, root: str) -> None:
        if root not in self.roots:
            self.roots.append(root)
        if len(self.roots) > _MOST_ROOTS:
            raise DataFault(
                f"{file.path}: images name more than {_MOST_ROOTS} different roots, the last is {root!r}.",
                remedy='"root" is the role of a folder, see cissod-bench tasks NAME; a path belongs to "file_name"',
            )


def _file_names(records: Sequence[Any], naming: Naming) -> list[str]:
    """Return the files of image records below their image folder."""
    if naming == "coco_url":
        return ["/".join(record.coco_url.rsplit("/", 2)[-2:]) for record in records]
    names = [record.file_name for record in records]
    if naming == "objects365":
        return [name[_PREFIX:] if name.startswith(_PREFIXES) else name for name in names]
    return names


class BoxColumns(Columns):
    """Columns id, image_id, category_id and iscrowd of the annotations, and bbox: x, y, width, height, (N, 4).

    Without records there are no ids either.
    """

    decoder = RecordDecoder(BoxRecord, ids=("id", "image_id"), numbers=("category_id", "iscrowd"))
    fields: ClassVar[dict[str, Any]] = {
        "id": np.int64,
        "image_id": np.int64,
        "category_id": np.int64,
        "iscrowd": np.bool_,
    }

    def __init__(self, records: bool = True) -> None:
        super().__init__(records)
        if not records:
            del self._columns["id"]
        self._columns["bbox"] = Column(np.float64, 4)

    def _add_piece(self, file: JsonFile, piece: Piece[BoxRecord], expected: int) -> None:
        super()._add_piece(file, piece, expected)
        numbers = chain.from_iterable(map(attrgetter("bbox"), piece.records))
        self._columns["bbox"].add(np.fromiter(numbers, np.float64, 4 * len(piece.records)), expected)


def decode_categories(file: JsonFile, text: bytes) -> tuple[Sequence[CategoryRecord], Sequence[bytes], Counter[str]]:
    """Return the classes, the bytes of their records, and what was normalised in how many of them.

    Raises:
        DataFault: a record breaks a rule; the message names it.
    """
    try:
        parsed = _CATEGORY.decode(text)
    except msgspec.ValidationError as error:
        raise file.record_fault("categories", 0, text, error) from None
    records = [bytes(record) for record in msgspec.json.decode(text, type=list[msgspec.Raw])]
    if not isinstance(parsed, Meant):
        return parsed, records, Counter()
    for index in parsed.changed:
        members = msgspec.json.decode(records[index], type=dict[str, msgspec.Raw])
        records[index] = msgspec.json.encode({**members, "id": parsed[index].id})
    return parsed, records, parsed.tally
