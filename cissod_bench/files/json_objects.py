"""A JSON object on disk, of any size: small values whole, arrays of records in pieces of bounded size.

A file of 25 million boxes is 5 GB, more than the memory it may take. So the file is mapped, not loaded, and read in
pieces of a few megabytes.
"""

from __future__ import annotations

import gzip
import mmap
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Generic, TypeAlias, TypeVar

import msgspec

from cissod_bench.errors import DataFault, EnvironmentFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.json_records import BrokenRecordError, Decoder, cut, ends, skip_space

T = TypeVar("T")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done ("Reading instances_val2017.json"), how much of it is done, and how much there is."""

PIECE_BYTES = 1 << 20
_MOST_RECORD_BYTES = 256 << 20
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BYTE = re.compile(r" \(byte (\d+)\)$")  # where msgspec found no JSON
_NO_NUMBER = re.compile(rb"NaN|-?Infinity")
_SCALAR = re.compile(rb"[^\s,\]}]+")
_PLACE = re.compile(r"^(?P<rule>.*?)(?: - at `\$(?:\[(?P<index>\d+)\](?P<rest>.*))?`)?$", re.DOTALL)
_MEND_JSON = "mend the text there, or export the file again with a program that writes JSON"
_LOOK = "name a file that is there; cissod-bench data check says which files the tasks need and lack"
_RECORDS = {
    "images": 'write the record as {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}; LVIS has "coco_url"',
    "annotations": 'write the record as {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, width, height]}',
    "categories": 'write the record as {"id": 1, "name": "car"}',
}
"""Array of an annotation file -> what one of its records must hold, as the remedy of one that does not."""

BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
"""What unpacking raises on a file that is cut off or damaged."""


def is_gzipped(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is gzipped, whatever its name says."""
    return start[:2] == b"\x1f\x8b"


def unpacked(data: bytes) -> bytes:
    """Return a file's content, unpacked if it is gzipped.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error: it is a damaged gzip file (``GZIP_ERRORS``).
    """
    return gzip.decompress(data) if is_gzipped(data) else data


@dataclass(frozen=True)
class Piece(Generic[T]):
    """Whole records of one array.

    Attributes:
        first: index of the first record in its array.
        offset: what to add to a position in ``text`` to get its place in the file.
        text: the records as the text of a JSON array.
        records: the records decoded.
    """

    first: int
    offset: int
    text: bytes
    records: list[T]


class JsonFile:
    """A JSON object on disk, unpacked if it is gzipped, and mapped into memory.

    Attributes:
        path: the file as the user named it.
        size: bytes of the JSON text (after unpacking).

    Args:
        path: a ``.json`` or gzipped file; which of them is told from its first bytes.
        progress: called while arrays are read.
        hashed: whether its hash will be asked for.

    Raises:
        DataFault: it is missing, empty, a broken gzip stream, starts with a byte order mark or holds no JSON object.
    """

    def __init__(self, path: Path, *, progress: Progress | None = None, hashed: bool = True) -> None:
        self.path, self._progress = path, progress
        self._hasher = ThreadPoolExecutor(1)
        try:
            with _opened(path) as stream:
                self._sha256 = self._hasher.submit(file_sha256, path) if hashed else None
                packed = is_gzipped(stream.read(2))
                stream.seek(0)
                with _unpacked(path, stream) if packed else stream as source:
                    self.size = source.seek(0, 2)
                    if self.size == 0:
                        raise DataFault(f"{path} is empty (0 bytes).", remedy="fetch or export the file again")
                    self._text = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            self._check_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> JsonFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the mapping back; records can no longer be read."""
        self._hasher.shutdown(wait=False, cancel_futures=True)
        if hasattr(self, "_text"):
            self._text.close()

    @property
    def sha256(self) -> str:
        """Hash of the file as it lies on disk, packed or not, counted in a thread beside the parsing; "" if unasked."""
        return "" if self._sha256 is None else self._sha256.result()

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop) of the JSON text."""
        return self._text[start:stop]

    def release(self) -> None:
        """Let the system take back the pages read so far: they would count as this process's memory."""
        if hasattr(self._text, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._text.madvise(mmap.MADV_DONTNEED)

    def done(self, offset: int) -> None:
        """Tell how far the file is read."""
        if self._progress is not None:
            self._progress(f"Reading {self.path.name}", offset, self.size)

    def fault(self, offset: int, message: str, *, remedy: str = _MEND_JSON) -> DataFault:
        """Return the fault at a byte of the text, with what stands there, or that the file ends there too early."""
        if offset >= self.size:
            return DataFault(f"{self.path} is cut off at byte {self.size}: {message}", remedy="fetch the file again")
        blocks = range(0, offset, PIECE_BYTES)
        line = 1 + sum(self._text[at : min(at + PIECE_BYTES, offset)].count(b"\n") for at in blocks)
        near = self._text[offset : offset + 40].decode("utf-8", "replace")
        return DataFault(f"{self.path}, line {line}, byte {offset}: {message} Found {near!r}.", remedy=remedy)

    def record_fault(self, key: str, first: int, text: bytes, error: msgspec.ValidationError) -> DataFault:
        """Return the fault of a record with a missing or wrong field, by its place in the whole array.

        Args:
            key: the array's key.
            first: index in the array of the first record in ``text``.
            text: records as the text of a JSON array.
            error: what msgspec said about it.
        """
        match = _PLACE.match(str(error))
        assert match is not None  # it matches every text
        if match["index"] is None:
            return DataFault(f"{self.path}: {key}: {match['rule']}.", remedy=_RECORDS.get(key, _MEND_JSON))
        index = int(match["index"])
        shown = _record(text, index)[:160].decode("utf-8", "replace")
        message = f"{self.path}: {key}[{first + index}]{match['rest']}: {match['rule']}. The record: {shown}"
        return DataFault(message, remedy=_RECORDS.get(key, _MEND_JSON))

    def check_utf8(self, text: bytes, offset: int) -> None:
        """Refuse text that is not UTF-8.

        Args:
            text: some of the file.
            offset: where in the file it starts.

        Raises:
            DataFault: it is not; the message names the first byte that is wrong.
        """
        if not text.isascii():
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                message = "the text is not UTF-8."
                raise self.fault(offset + error.start, message, remedy="save the file again as UTF-8") from None

    def _check_start(self) -> None:
        if self._text[:4].startswith(BYTE_ORDER_MARKS):
            message = f"{self.path} starts with a byte order mark; JSON is UTF-8 without one."
            raise DataFault(message, remedy="save the file again as plain UTF-8")
        at = skip_space(self._text, 0)
        if self._text[at : at + 1] == b"[":
            wanted = "an object with images, annotations and categories is expected, not an array (a results file?)."
            raise self.fault(at, wanted)
        if self._text[at : at + 1] != b"{":
            raise self.fault(at, "this is not JSON: '{' is expected.", remedy="fetch or export the file again")

    def members(self) -> Iterator[Member]:
        """Yield the members of the object in their order; each must be read before the next is asked for.

        Raises:
            DataFault: the text is no JSON object, or a key stands twice.
        """
        text = self._text
        seen: set[str] = set()
        at = skip_space(text, skip_space(text, 0) + 1)
        while text[at : at + 1] != b"}" or seen:
            match = _TEXT.match(text, at)
            if match is None:  # a quote that nothing closes is a file that ends too early
                raise self.fault(self.size if text[at : at + 1] == b'"' else at, "a key in quotes is expected.")
            self.check_utf8(match.group(), at)
            key = self._key(match.group(), at)
            colon = skip_space(text, match.end())
            if text[colon : colon + 1] != b":":
                raise self.fault(colon, f"':' is expected behind the key {key!r}.")
            if key in seen:
                raise self.fault(at, f"the key {key!r} stands twice.")
            seen.add(key)
            member = Member(self, key, skip_space(text, colon + 1))
            yield member
            at = skip_space(text, member.end)
            if text[at : at + 1] == b"}":
                break
            if text[at : at + 1] != b",":
                raise self.fault(at, f"',' or '}}' is expected behind the value of {key!r}.")
            at = skip_space(text, at + 1)
        if skip_space(text, at + 1) != self.size:
            raise self.fault(skip_space(text, at + 1), "nothing may follow the closing '}'.")

    def _key(self, text: bytes, at: int) -> str:
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.DecodeError as error:
            raise self.fault(at, f"the key is not JSON ({error}).") from None


class Member:
    """One key of the object and where its value stands.

    Attributes:
        key: the key.
        end: offset behind the value, once ``value`` or ``pieces`` has read it.
    """

    def __init__(self, file: JsonFile, key: str, start: int) -> None:
        self.key, self.end = key, start
        self._file, self._start = file, start

    def value(self) -> bytes:
        """Return the text of the whole value; for small ones.

        Raises:
            DataFault: it is cut off or no JSON.
        """
        text = self._file._text
        if text[self._start : self._start + 1] in (b"{", b"[", b'"'):
            end = next(ends(text, self._start), None)
        else:
            scalar = _SCALAR.match(text, self._start)
            end = scalar.end() if scalar else None
        if end is None:
            raise self._file.fault(self._file.size, f"the value of {self.key!r} is not closed.")
        self.end = end
        value = text[self._start : end]
        self._file.check_utf8(value, self._start)
        try:
            msgspec.json.decode(value, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._unreadable(str(error)) from None
        return value

    def _unreadable(self, error: str) -> DataFault:
        """Return the fault of a value that is no JSON, at the place within it that msgspec names."""
        place = _BYTE.search(error)
        at = self._start + (int(place[1]) if place else 0)
        number = _NO_NUMBER.match(self._file._text, at)
        if number is not None:
            message = f"{number[0].decode()} within the value of {self.key!r} is no number of JSON."
            return self._file.fault(at, message, remedy="write a finite number, or leave that record out")
        why = _BYTE.sub("", error.removeprefix("JSON is malformed: "))
        return self._file.fault(at, f"the value of {self.key!r} is not JSON ({why}).")

    def pieces(self, decoder: Decoder[list[T]], size: int | None = None) -> Iterator[Piece[T]]:
        """Yield the records of an array of objects in pieces of about ``size`` bytes, ``PIECE_BYTES`` by default.

        Raises:
            DataFault: it is no array of objects, it is cut off, or a record is no JSON or lacks what the decoder wants;
                the record is named.
        """
        file, text = self._file, self._file._text
        if text[self._start : self._start + 1] != b"[":
            raise file.fault(self._start, f"{self.key!r} must be an array of objects.")
        size = PIECE_BYTES if size is None else size
        at, first, length = skip_space(text, self._start + 1), 0, size
        closed = text[at : at + 1] == b"]"
        self.end = at + 1
        while not closed:
            window = text[at : at + length]
            try:
                found = cut(window, decoder, final=at + length >= file.size)
            except BrokenRecordError as broken:
                where = f"{self.key}[{first + broken.index}]"
                raise file.fault(at + broken.offset, f"{where}: {broken.reason}") from None
            except msgspec.ValidationError as error:
                raise file.record_fault(self.key, first, b"[" + window, error) from None
            except UnicodeDecodeError:
                file.check_utf8(window, at)
                raise  # not reached: the window holds what could not be decoded
            except RecursionError:
                raise file.fault(at, f"{self.key}[{first}] or a record behind it nests too deeply.") from None
            if found is None:
                length *= 2  # a record is longer than the window
                if length > _MOST_RECORD_BYTES:
                    raise file.fault(at, f"{self.key}[{first}] does not end within {_MOST_RECORD_BYTES >> 20} MiB.")
                continue
            file.check_utf8(found.text, at - 1)  # msgspec decodes only the fields that are wanted
            yield Piece(first, at - 1, found.text, found.records)
            at, first, length, closed = at + found.taken, first + len(found.records), size, found.closed
            self.end = at
            at = skip_space(text, at)
            file.done(at)
            file.release()


def _record(text: bytes, index: int) -> bytes:
    """Return a record of the text of an array that may be cut off behind it."""
    start = 1
    for number, end in enumerate(ends(text, 1)):
        if number == index:
            return text[start:end].lstrip(b", \t\n\r")
        start = end
    return text[start:].lstrip(b", \t\n\r")


def _opened(path: Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise DataFault(f"{path} does not exist.", remedy=_LOOK) from None
    except IsADirectoryError:
        raise DataFault(f"{path} is a folder; a JSON file is expected.", remedy="name a file in it") from None
    except PermissionError:
        raise DataFault(f"{path} cannot be read: permission denied.", remedy=f"chmod +r {path}") from None


def _unpacked(path: Path, packed: IO[bytes]) -> IO[bytes]:
    """Return a nameless temporary file with the content of a gzip stream: it is mapped like any other file."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            shutil.copyfileobj(stream, spool, 1 << 20)
        spool.flush()
    except GZIP_ERRORS as error:
        spool.close()
        raise DataFault(f"{path} is a broken gzip file: {error}.", remedy="fetch the file again") from None
    except OSError as error:
        spool.close()
        message = f"Cannot unpack {path} into {tempfile.gettempdir()}: {error.strerror}."
        raise EnvironmentFault(message, remedy="free some space or set TMPDIR") from error
    return spool
