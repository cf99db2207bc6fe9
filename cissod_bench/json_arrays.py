"""Walk through a JSON object of any size: small values whole, arrays of records in pieces of bounded size.

A file of 25 million boxes is 5 GB, more than the memory it may take. So the file is mapped, not loaded, and an array of
records is cut into pieces of about 16 MiB, each the text of a JSON array of whole records for msgspec to decode.
"""

from __future__ import annotations

import gzip
import hashlib
import mmap
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import msgspec

from cissod_bench.errors import DataFault, EnvironmentFault

PIECE_BYTES = 16 << 20
_TAIL_BYTES = 1 << 16

_SPACE = re.compile(rb"[ \t\n\r]*")
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\]}]+")
_NEXT_RECORD = re.compile(rb"\}[ \t\n\r]*,(?=[ \t\n\r]*\{)")
_ARRAY_END = re.compile(rb"\}[ \t\n\r]*\](?=[ \t\n\r]*[,}])")
_BAD_NUMBER = re.compile(rb"-?\b(?:NaN|Infinity|nan|inf)\b")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class Piece(NamedTuple):
    """Whole records of one array.

    Attributes:
        first: index of the first record in its array.
        offset: what to add to a position in ``text`` to get its place in the file.
        text: the records as the text of a JSON array.
        records: each record's own bytes within ``text``, in order.
    """

    first: int
    offset: int
    text: bytes
    records: list[msgspec.Raw]


class JsonFile:
    """A JSON object on disk, unpacked if it is gzipped, and mapped into memory.

    Attributes:
        path: the file as the user named it.
        size: bytes of the JSON text (after unpacking).

    Args:
        path: a ``.json`` or gzipped file; which of them is told from its first bytes.
        hint: what to say when it is missing, such as where it officially comes from.

    Raises:
        DataFault: it is missing, empty, a broken gzip stream, starts with a byte order mark or holds no JSON object.
    """

    def __init__(self, path: Path, *, hint: str | None = None) -> None:
        self.path = path
        self._hasher = ThreadPoolExecutor(1)
        try:
            stream = open(path, "rb")  # noqa: SIM115 - the mapping lives as long as this object
        except (FileNotFoundError, NotADirectoryError):
            raise DataFault(f"{path} does not exist.", remedy=hint) from None
        except IsADirectoryError:
            raise DataFault(f"{path} is a folder; an annotation file is expected.", remedy=hint) from None
        except PermissionError:
            raise DataFault(f"{path} cannot be read: permission denied.", remedy=f"chmod +r {path}") from None
        self._sha256 = self._hasher.submit(_sha256, path)
        try:
            with stream:
                packed = stream.read(2) == b"\x1f\x8b"
                stream.seek(0)
                source = _unpacked(path, stream) if packed else stream
                self.size = source.seek(0, 2)
                if self.size == 0:
                    raise DataFault(f"{path} is empty (0 bytes).", remedy="fetch or export the file again")
                self._text = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
                if packed:
                    source.close()
            self._check_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> JsonFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the mapping back; records can no longer be read."""
        self._hasher.shutdown(wait=False, cancel_futures=True)
        if hasattr(self, "_text"):
            self._text.close()

    @property
    def sha256(self) -> str:
        """Hash of the file as it lies on disk, packed or not; counted in a thread beside the parsing."""
        return self._sha256.result()

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop) of the JSON text."""
        return self._text[start:stop]

    def release(self) -> None:
        """Let the system take back the pages read so far: they would count as this process's memory."""
        if hasattr(self._text, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._text.madvise(mmap.MADV_DONTNEED)

    def fault(self, offset: int, message: str, *, remedy: str | None = None) -> DataFault:
        """Return the fault at a byte of the text, with what stands there."""
        line = 1 + sum(self._text[at : min(at + PIECE_BYTES, offset)].count(b"\n") for at in range(0, offset, PIECE_BYTES))
        near = self._text[max(0, offset - 12) : offset + 28].decode("utf-8", "replace")
        where = f"{self.path}, line {line}, byte {offset}"
        return DataFault(f"{where}: {message} Found {near!r}." if near else f"{where}: {message}", remedy=remedy)

    def _check_start(self) -> None:
        head = self._text[:4]
        if head.startswith(_BYTE_ORDER_MARKS):
            raise DataFault(f"{self.path} starts with a byte order mark; JSON is UTF-8 without one.", remedy="save the file again as plain UTF-8")
        at = self._skip(0)
        if self._text[at : at + 1] == b"[":
            raise self.fault(at, "an object with images, annotations and categories is expected, got an array (a results file?).")
        if self._text[at : at + 1] != b"{":
            raise self.fault(at, "this is not JSON: '{' is expected.", remedy="fetch or export the file again")

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match is not None  # it matches the empty text
        return match.end()

    def members(self) -> Iterator[Member]:
        """Yield the members of the object in their order; each must be read before the next is asked for.

        Raises:
            DataFault: the text is no JSON object, or a key stands twice.
        """
        seen: set[str] = set()
        at = self._skip(self._skip(0) + 1)
        while self._text[at : at + 1] != b"}" or seen:
            match = _TEXT.match(self._text, at)
            if match is None:
                raise self._broken(at, "a key in quotes is expected.")
            key = msgspec.json.decode(match.group())
            colon = self._skip(match.end())
            if self._text[colon : colon + 1] != b":":
                raise self._broken(colon, f"':' is expected behind the key {key!r}.")
            if key in seen:
                raise self.fault(at, f"the key {key!r} stands twice.")
            seen.add(key)
            member = Member(self, key, self._skip(colon + 1))
            yield member
            at = self._skip(member.end)
            if self._text[at : at + 1] == b"}":
                break
            if self._text[at : at + 1] != b",":
                raise self._broken(at, f"',' or '}}' is expected behind {key!r}.")
            at = self._skip(at + 1)
        if self._skip(at + 1) != self.size:
            raise self.fault(at + 1, "nothing may follow the closing '}'.")

    def _broken(self, at: int, rule: str) -> DataFault:
        if at >= self.size:
            return DataFault(f"{self.path} ends too early, at byte {self.size}: {rule} It is cut off.", remedy="fetch the file again")
        return self.fault(at, rule)


class Member:
    """One key of the object and where its value stands.

    Attributes:
        key: the key.
        end: offset behind the value, once ``value`` or ``pieces`` has read it.
    """

    def __init__(self, file: JsonFile, key: str, start: int) -> None:
        self._file, self.key, self._start, self.end = file, key, start, start

    def value(self) -> bytes:
        """Return the text of the whole value; for small ones.

        Raises:
            DataFault: it is cut off or no JSON.
        """
        text = self._file._text
        if text[self._start : self._start + 1] in (b"{", b"[", b'"'):
            end = next(_ends(text, self._start), None)
        else:
            scalar = _SCALAR.match(text, self._start)
            end = scalar.end() if scalar else None
        if end is None:
            raise self._file._broken(self._file.size, f"the value of {self.key!r} is not closed.")
        self.end = end
        try:
            msgspec.json.decode(text[self._start : end], type=msgspec.Raw)
        except msgspec.DecodeError as error:
            raise self._file.fault(self._start, f"the value of {self.key!r} is not JSON ({error}).") from None
        return text[self._start : end]

    def pieces(self, size: int = PIECE_BYTES) -> Iterator[Piece]:
        """Yield the records of an array of objects in pieces of about ``size`` bytes of strict JSON.

        Raises:
            DataFault: it is no array of objects, it is cut off, or a record is not JSON; the record is named.
        """
        file, text = self._file, self._file._text
        if text[self._start : self._start + 1] != b"[":
            raise file.fault(self._start, f"{self.key!r} must be an array of objects.")
        at, first, length = file._skip(self._start + 1), 0, size
        closed = text[at : at + 1] == b"]"
        self.end = at + 1
        while not closed:
            window = text[at : at + length]
            try:
                cut = _quick_cut(window) or _slow_cut(window, final=at + length >= file.size)
            except _BrokenRecordError as broken:
                raise file._broken(at + broken.offset, f"{self.key}[{first + broken.index}]: {broken.reason}") from None
            if cut is None:
                length *= 2  # a record is longer than the window
                continue
            yield Piece(first, at - 1, b"[" + window[: cut.stop] + b"]", cut.records)
            at, first, length, closed = file._skip(at + cut.taken), first + len(cut.records), size, cut.closed
            self.end = at


class _Cut(NamedTuple):
    """A window's whole records: they end at ``stop``; ``taken`` is behind the ',' or ']' that follows them."""

    stop: int
    taken: int
    records: list[msgspec.Raw]
    closed: bool


class _BrokenRecordError(Exception):
    def __init__(self, index: int, offset: int, reason: str) -> None:
        self.index, self.offset, self.reason = index, offset, reason


def _quick_cut(window: bytes) -> _Cut | None:
    """Guess from one look where the array ends, or where the window's last whole record does.

    A guess is right exactly when strict decoding accepts it: a cut inside a record leaves a bracket or a quote open, a
    cut behind the array's end leaves text behind its ']'.
    """
    closing = _ARRAY_END.search(window)
    if closing is not None and (records := _decode(window[: closing.end() - 1])) is not None:
        return _Cut(closing.end() - 1, closing.end(), records, True)
    for tail in (_TAIL_BYTES, len(window)):
        commas = [match.end() for match in _NEXT_RECORD.finditer(window, max(0, len(window) - tail))]
        if commas:
            records = _decode(window[: commas[-1] - 1])
            return None if records is None else _Cut(commas[-1] - 1, commas[-1], records, False)
    return None


def _slow_cut(window: bytes, *, final: bool) -> _Cut | None:
    """Find the records by counting brackets: where they nest arrays of objects, or where one is broken.

    Returns None where the window holds no whole record and more of the file follows.
    """
    records: list[msgspec.Raw] = []
    stop = taken = 0
    for end in _ends(window):
        begin = _start(window, taken)
        if window[begin:end] == b"]" and window[taken - 1 : taken] != b",":
            return _Cut(stop, end, records, True)
        if window[begin : begin + 1] != b"{":
            raise _BrokenRecordError(len(records), begin, "an object is expected.")
        found = _decode(window[begin:end])
        if found is None or len(found) != 1:
            raise _BrokenRecordError(len(records), begin, f"it is not JSON: {_why(window[begin:end])}.")
        records += found
        stop, taken = end, _start(window, end)
        if window[taken : taken + 1] == b",":
            taken += 1
        elif window[taken : taken + 1] not in (b"]", b""):
            raise _BrokenRecordError(len(records), taken, "',' or ']' is expected.")
    if final:
        raise _BrokenRecordError(len(records), len(window), "it is not closed.")
    if not records or window[taken - 1 : taken] != b",":
        return None
    return _Cut(stop, taken, records, False)


def _start(window: bytes, at: int) -> int:
    match = _SPACE.match(window, at)
    assert match is not None  # it matches the empty text
    return match.end()


def _decode(inner: bytes) -> list[msgspec.Raw] | None:
    """Return the records of the array "[" + inner + "]", or None where that is no JSON."""
    try:
        return msgspec.json.decode(b"[" + inner + b"]", type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return None


def _why(text: bytes) -> str:
    bad = _BAD_NUMBER.search(text)
    if bad is not None:
        return f"{bad.group().decode()} is no JSON number"
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return str(error).removeprefix("JSON is malformed: ")
    return "its brackets do not match"


def _ends(text: bytes | mmap.mmap, start: int = 0) -> Iterator[int]:
    """Yield the offsets behind the values that end at the depth of ``start``, and last the one behind its closing bracket."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = token.group()[:1]
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark, 0)
        if depth <= 0:
            yield token.end()
        if depth < 0:
            return


def _unpacked(path: Path, packed: IO[bytes]) -> IO[bytes]:
    """Return a nameless temporary file with the content of a gzip stream: it is mapped like any other file."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            shutil.copyfileobj(stream, spool, 1 << 20)
        spool.flush()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        spool.close()
        raise DataFault(f"{path} is a broken gzip file: {error}.", remedy="fetch the file again") from None
    except OSError as error:
        spool.close()
        raise EnvironmentFault(f"Cannot unpack {path} into {tempfile.gettempdir()}: {error.strerror}.", remedy="free some space or set TMPDIR") from error
    return spool


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

