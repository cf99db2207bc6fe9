"""Records as other tools write them, read as pycocotools and mmdet read them; here ids are whole numbers.

A record that is plain is decoded strictly and costs nothing more. One that is not may hold

* numbers written as decimals (``1.0``), where a whole number is meant;
* ``"iscrowd": null``, which is no crowd;
* ids of images and boxes in text or beyond 62 bits. They are numbered by ``id_number``: text that is a plain whole
  number is that number; any other text, and a number that is too large, becomes the first 53 bits of the SHA-256 of its
  characters (as UTF-8). So an id has the same number in every file and in predictions, and every program keeps it
  exact. Two ids that share a number are refused as an id that stands twice.

The ids of classes stay what the file says: they are the columns of predictions.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

GREATEST_ID = 2**62
Id: TypeAlias = Annotated[int, msgspec.Meta(ge=-GREATEST_ID, le=GREATEST_ID)]
"""The number of an image, a box or a class in a file."""

_GREATEST_EXACT = 2**53  # of the whole numbers that a float holds
_MOST_BITS = 1024  # longer numbers are no ids; Python refuses to write out endless ones
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_PLACE = " - at `$"

DECIMALS, NULL_CROWD, TEXT_IDS, HASHED_IDS = "decimals", "null_crowd", "text_ids", "hashed_ids"
BACKSLASHES, ABSOLUTE_NAMES, ROOT_CLASSES, IMAGE_LIST = "backslashes", "absolute_names", "root_classes", "image_list"
WORDS = {
    DECIMALS: "records with whole numbers written as 1.0",
    NULL_CROWD: "boxes with iscrowd null, read as 0",
    TEXT_IDS: "records with ids in text, read as numbers",
    HASHED_IDS: "records with ids that are names or beyond 62 bits, numbered by their hash",
    BACKSLASHES: "file names with backslashes, read as slashes",
    ABSOLUTE_NAMES: "absolute file names, read from the image folder on",
    ROOT_CLASSES: "root category without boxes that bears a class's name, left out",
    IMAGE_LIST: "list of images, without annotations",
}
"""What was normalised -> in words, behind a count."""


def id_number(value: object) -> int | None:
    """Return the whole number that an id stands for, at most 2^62 from 0; None for what can be no id."""
    if isinstance(value, str):
        number = int(value) if _WHOLE.fullmatch(value) else None
        if number is not None and abs(number) <= GREATEST_ID:
            return number
        return _hashed(value) if value else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _GREATEST_EXACT else None
    if abs(value) <= GREATEST_ID:
        return value
    return _hashed(str(value)) if value.bit_length() <= _MOST_BITS else None


def is_hashed(value: object) -> bool:
    """Return whether an id's number is a hash, so that the id itself must be kept to be known again."""
    number = id_number(value)
    return number is not None and isinstance(value, (str, int)) and str(value) != str(number)


def shown_id(number: int) -> str:
    """Return an id for a message; one that may be a hash says so, as the file shows a name in its place."""
    return f"{number} (if the file has a name there: its hash)" if 2**40 < number < _GREATEST_EXACT else str(number)


def _hashed(text: str) -> int:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 11


class Meant(list[T]):
    """Decoded records, some of which were not plain.

    Attributes:
        changed: their places.
        tally: what was normalised (a key of ``WORDS``) -> in how many records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[int] = []
        self.tally: Counter[str] = Counter()


class RecordDecoder(Generic[T]):
    """Decodes arrays of records strictly and, where that fails, as they are meant.

    Args:
        kind: the struct of a record.
        ids: its fields that may be ids in text or beyond 62 bits.
        numbers: its other fields that are whole numbers, or lists of them.
    """

    def __init__(self, kind: type[T], *, ids: Collection[str] = (), numbers: Collection[str] = ()) -> None:
        self._kind, self._ids, self._numbers = kind, frozenset(ids), frozenset(numbers)
        self._names = [field.name for field in msgspec.structs.fields(kind)]  # type: ignore[arg-type]
        anything = [(name, Any, msgspec.UNSET) for name in self._names]
        self._loose = list[msgspec.defstruct(f"Loose{kind.__name__}", anything, gc=False)]  # type: ignore[misc]
        self._strict_decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._loose_decoder = msgspec.json.Decoder(self._loose)

    def decode(self, text: bytes, /) -> list[T]:
        """Return the records of a JSON array; a ``Meant`` where one of them was not plain.

        Raises:
            msgspec.ValidationError: a record breaks a rule; the message names its place.
            msgspec.DecodeError: the text is no JSON.
        """
        try:
            return self._strict_decoder.decode(text)
        except msgspec.ValidationError as error:
            return self._meant(self._loosely(self._loose_decoder.decode, text, error))

    def convert(self, records: Sequence[Any]) -> list[T]:
        """Return the records of a list of plain Python values, as ``decode`` does."""
        try:
            return msgspec.convert(records, list[self._kind])  # type: ignore[name-defined]
        except msgspec.ValidationError as error:
            return self._meant(self._loosely(lambda given: msgspec.convert(given, self._loose), records, error))

    @staticmethod
    def _loosely(read: Any, given: Any, error: msgspec.ValidationError) -> list[Any]:
        """Return the records without a look at their fields; what is wrong beyond these is the strict decoder's say."""
        try:
            loose: list[Any] = read(given)
        except msgspec.ValidationError:
            raise error from None
        return loose

    def _meant(self, loose: Iterable[Any]) -> Meant[T]:
        meant: Meant[T] = Meant()
        for index, record in enumerate(loose):
            values = {name: value for name in self._names if (value := getattr(record, name)) is not msgspec.UNSET}
            changes = set(self._made_plain(values))
            try:
                meant.append(msgspec.convert(values, self._kind))
            except msgspec.ValidationError as error:
                rule, _, place = str(error).partition(_PLACE)
                raise msgspec.ValidationError(f"{rule}{_PLACE}[{index}]{place or '`'}") from None
            if changes:
                meant.changed.append(index)
                meant.tally.update(changes)
        return meant

    def _made_plain(self, values: dict[str, Any]) -> Iterator[str]:
        """Put plain values in the place of others; yield what was done."""
        for key, value in values.items():
            if key in self._ids:
                number = id_number(value)
                if number is not None and (type(value) is not int or value != number):
                    values[key] = number
                    yield DECIMALS if isinstance(value, float) else HASHED_IDS if is_hashed(value) else TEXT_IDS
            elif key == "iscrowd" and value is None:
                values[key] = 0
                yield NULL_CROWD
            elif key in self._numbers and _is_decimal(value):
                values[key] = int(value)
                yield DECIMALS
            elif key in self._numbers and isinstance(value, list) and any(map(_is_decimal, value)):
                values[key] = [int(one) if _is_decimal(one) else one for one in value]
                yield DECIMALS


def _is_decimal(value: object) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) <= _GREATEST_EXACT


def _is_name(text: object, names: Collection[str]) -> bool:
    return isinstance(text, str) and text in names


def root_classes(classes: Sequence[Any], used: Collection[int]) -> list[int]:
    """Return the places of categories that are the root of the others, as Roboflow writes it, not a class.

    A root bears the name of a class, is what others state as their ``supercategory``, has none itself, and no box.

    Args:
        classes: records with ``id``, ``name`` and ``supercategory``.
        used: ids of the classes that boxes are of.
    """
    names = Counter(one.name for one in classes)
    above = Counter(one.supercategory for one in classes if isinstance(one.supercategory, str))
    return [
        place
        for place, one in enumerate(classes)
        if names[one.name] > 1 and above[one.name] and one.id not in used and not _is_name(one.supercategory, names)
    ]
