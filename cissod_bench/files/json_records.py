"""Cut the text of a JSON array into runs of whole records, without parsing it twice.

A window of the file starts at a record and ends anywhere. Where its last whole record ends is guessed from two
patterns; a guess is right exactly when strict decoding accepts it, because a cut inside a record leaves a bracket or a
quote open and a cut behind the array's end leaves text behind its ']'. Where both guesses fail, brackets are counted.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_TAIL_BYTES = 1 << 16
_SPACE = re.compile(rb"[ \t\n\r]*")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_NEXT_RECORD = re.compile(rb"\}[ \t\n\r]*,[ \t\n\r]*(?=\{)")
_ARRAY_END = re.compile(rb"\}[ \t\n\r]*\](?=[ \t\n\r]*[,}])")
_IS_SPACE = np.isin(np.arange(256), list(b" \t\n\r"))
_USUAL_SPACE = 40  # bytes between two records of an indented file
_BAD_NUMBER = re.compile(rb"-?\b(?:NaN|Infinity|nan|inf)\b")


class Decoder(Protocol[T_co]):
    """Decodes the text of an array: msgspec's own decoder, or one that takes more."""

    def decode(self, text: bytes, /) -> T_co:
        """Return the records; see ``msgspec.json.Decoder``."""


@dataclass(frozen=True)
class Cut(Generic[T]):
    """A window's whole records.

    Attributes:
        text: them as the text of a JSON array; position k of it is position k - 1 of the window.
        records: them decoded.
        taken: where the window goes on behind the ',' or ']' that follows them.
        closed: whether that was the array's own ']'.
    """

    text: bytes
    records: list[T]
    taken: int
    closed: bool


class BrokenRecordError(Exception):
    """A record is no JSON: its index and offset in the window, and why."""

    def __init__(self, index: int, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.index, self.offset, self.reason = index, offset, reason


def cut(window: bytes, decoder: Decoder[list[T]], *, final: bool) -> Cut[T] | None:
    """Return the whole records at the start of a window, or None where it holds none and more of the file follows.

    Args:
        window: text that starts with a record of an array of objects.
        decoder: of arrays of such records.
        final: whether the file ends with the window.

    Raises:
        BrokenRecordError: a record is no JSON, or the array is not closed.
        msgspec.ValidationError: a record lacks a field or has one of the wrong type.
    """
    return _quick_cut(window, decoder) or _slow_cut(window, decoder, final=final)


def _quick_cut(window: bytes, decoder: Decoder[list[T]]) -> Cut[T] | None:
    """Guess from one look where the window's last whole record ends, or else where the array does."""
    for tail in (_TAIL_BYTES, len(window)):
        following = list(_NEXT_RECORD.finditer(window, max(0, len(window) - tail)))
        if following:
            if (found := _decoded(window, following[-1].start() + 1, decoder)) is not None:
                return Cut(*found, following[-1].end(), False)
            break
    closing = _ARRAY_END.search(window)
    if closing is not None and (found := _decoded(window, closing.end() - 1, decoder)) is not None:
        return Cut(*found, closing.end(), True)
    return None


def _slow_cut(window: bytes, decoder: Decoder[list[T]], *, final: bool) -> Cut[T] | None:
    """Find the records by counting brackets: where they nest arrays of objects, or where one is broken."""
    count = stop = taken = 0
    for end in ends(window):
        begin = skip_space(window, taken)
        if window[begin:end] == b"]" and window[taken - 1 : taken] != b",":
            return _whole(window, stop, decoder, end, closed=True)
        if window[begin : begin + 1] != b"{":
            raise BrokenRecordError(count, begin, "an object is expected.")
        if _decoded(window[begin:end], end - begin, _ANYTHING) is None:
            raise BrokenRecordError(count, begin, f"it is not JSON: {_why(window[begin:end])}.")
        count, stop, taken = count + 1, end, skip_space(window, end)
        if window[taken : taken + 1] == b",":
            taken += 1
        elif window[taken : taken + 1] not in (b"]", b""):
            raise BrokenRecordError(count, taken, "',' or ']' is expected.")
    if final:
        raise BrokenRecordError(count, len(window), "it is not closed.")
    if count == 0 or window[taken - 1 : taken] != b",":
        return None
    return _whole(window, stop, decoder, taken, closed=False)


_ANYTHING: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


def _decoded(window: bytes, stop: int, decoder: Decoder[list[T]]) -> tuple[bytes, list[T]] | None:
    """Return the window up to ``stop`` as the text of an array and decoded, or None where it is no JSON."""
    text = b"".join((b"[", memoryview(window)[:stop], b"]"))
    try:
        return text, decoder.decode(text)
    except msgspec.ValidationError:  # well-formed up to there, so the guess is not at fault
        raise
    except msgspec.DecodeError:
        return None


def _whole(window: bytes, stop: int, decoder: Decoder[list[T]], taken: int, *, closed: bool) -> Cut[T]:
    text = b"[" + window[:stop] + b"]"
    return Cut(text, decoder.decode(text), taken, closed)


def _why(text: bytes) -> str:
    bad = _BAD_NUMBER.search(text)
    if bad is not None:
        return f"{bad.group().decode()} is no JSON number"
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return str(error).removeprefix("JSON is malformed: ")
    return "its brackets do not match"


def record_spans(text: bytes, count: int) -> tuple[Ints, Ints]:
    """Return starts and lengths of the ``count`` records of an array's text, int64 (count,) each.

    Every gap between two records looks like one, so when there are as many places that do as gaps they are the gaps.
    """
    first = skip_space(text, 1)
    stops, starts = _gaps(text)
    if len(stops) == count - 1:
        starts = np.append(first, starts)
        return starts, np.append(stops, text.rindex(b"}")) + 1 - starts
    spans = np.empty((count, 2), np.int64)
    for row, record in enumerate(_ANYTHING.decode(text)):  # records that nest arrays of objects
        spans[row] = text.index(b"{", first), len(bytes(record))
        first = int(spans[row].sum())
    return spans[:, 0], spans[:, 1]


def _gaps(text: bytes) -> tuple[Ints, Ints]:
    """Return where a "}" and the "{" behind it stand with nothing but a comma and white space between them."""
    codes = np.frombuffer(text, np.uint8)
    stops = np.flatnonzero(codes == ord("}"))
    commas = _behind_space(text, codes, stops + 1)  # the text ends with "]": nothing runs over its end
    follows = codes[commas] == ord(",")
    stops, starts = stops[follows], _behind_space(text, codes, commas[follows] + 1)
    follows = codes[starts] == ord("{")
    return stops[follows], starts[follows]


def _behind_space(text: bytes, codes: npt.NDArray[np.uint8], places: Ints) -> Ints:
    """Return the places moved behind the white space that stands there."""
    for _ in range(_USUAL_SPACE):
        blank = _IS_SPACE[codes[places]]
        if not blank.any():
            return places
        places = places + blank
    return np.array([skip_space(text, at) for at in places.tolist()], np.int64)


def skip_space(text: bytes | mmap.mmap, at: int) -> int:
    """Return the offset of the first byte at or behind ``at`` that is no JSON white space."""
    match = _SPACE.match(text, at)
    assert match is not None  # it matches the empty text
    return match.end()


def ends(text: bytes | mmap.mmap, start: int = 0) -> Iterator[int]:
    """Yield the offsets behind the values at the depth of ``start``, and last the one behind its closing bracket.

    Numbers and the words true, false and null are not counted as values. A string that is not closed ends the search.
    """
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token.group() == b'"':
            return
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group()[:1], 0)
        if depth <= 0:
            yield token.end()
        if depth < 0:
            return
