"""Files that appear whole or not at all: written beside their place, synced, then renamed."""

from __future__ import annotations

import errno
import gzip
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from filelock import FileLock, Timeout

from cissod_bench.controls import shown
from cissod_bench.errors import EnvironmentFault

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds for which a process waits for another one's folder without a word."""
_STAMP = "stamp.json"


def _write_fault(path: Path, error: OSError) -> EnvironmentFault:
    remedy = "free some space or pass another --work-dir"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "pass a --work-dir that can be written"
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        remedy = "name another place: a file lies where a folder is to be, or a folder where a file is to be"
    return EnvironmentFault(f"Cannot write {path}: {error.strerror or error}.", remedy=remedy)


def make_folder(path: Path) -> Path:
    """Make a folder with its parents and return it.

    Raises:
        EnvironmentFault: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _write_fault(path, error) from error
    return path


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Make a folder with its parents for the block; those that it did not fill are gone after it.

    Raises:
        EnvironmentFault: it cannot be made.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    try:
        yield make_folder(path)
    finally:
        with suppress(OSError):  # the first one that is not empty
            for place in missing:
                place.rmdir()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a stream whose content takes the place of ``path`` when the block ends without an exception.

    The stream is a hidden file in the same folder, because a rename is atomic only within one file system. After an
    exception it is removed and ``path`` is as it was; after kill -9 the hidden file stays and nothing reads it.

    Args:
        path: the file to make or replace; its folder is made.

    Raises:
        EnvironmentFault: the place cannot be written or the disk is full.
    """
    path = Path(path)
    make_folder(path.parent)
    # Not tempfile.mkstemp: its files are private to the user, ours are as any other new file.
    hidden = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(hidden, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(hidden, path)
        sync_folder(path.parent)
    except BrokenPipeError:  # of stdout, whose reader went away: no file has one
        raise
    except OSError as error:
        if error.filename not in (None, str(hidden)):  # another file's trouble inside the block
            raise
        raise _write_fault(path, error) from error
    finally:
        hidden.unlink(missing_ok=True)


class Deferred:
    """A stream that keeps its first fault for `check`: for a library that would turn it into one of its own.

    Args:
        stream: where to.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._fault: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write, or pass over what can no longer be written; return how much the caller may take for written."""
        if self._fault is None:
            try:
                self._stream.write(data)
            except OSError as fault:
                self._fault = fault
        return len(data)

    def flush(self) -> None:
        """Do nothing: who opened the stream flushes it."""

    def check(self) -> None:
        """Raise the first fault, if there was one."""
        if self._fault is not None:
            raise self._fault


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, which is made where it lacks: everything or nothing.

    Raises:
        EnvironmentFault: the place cannot be written or the disk is full.
    """
    try:
        with open(path, "ab", buffering=0) as stream:
            size, left = stream.seek(0, os.SEEK_END), memoryview(data)
            try:
                while left:  # a disk that fills up takes a part first
                    left = left[stream.write(left) :]
            except BaseException:  # a second Ctrl-C included
                with suppress(OSError):
                    stream.truncate(size)
                raise
    except OSError as error:
        raise _write_fault(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the hidden files of writers that were killed; to be called by the only process that writes there."""
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            left.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to write the folder ``path``: other processes that want it wait for a hidden file beside it.

    Who waits longer than ``PATIENCE`` says so on standard error. What a killed writer of ``folder_appearing`` left
    there is removed.

    Raises:
        EnvironmentFault: the lock cannot be made.
    """
    make_folder(path.parent)
    lock = FileLock(path.parent / f".{path.name}.lock")
    try:
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            print(f"Waiting for another process that writes {shown(str(path))}", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise _write_fault(path, error) from error
    try:
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


@contextmanager
def folder_appearing(path: Path) -> Iterator[Path]:
    """Give a hidden folder that takes the place of ``path`` when the block ends without an exception.

    To be used within ``locked(path)``. A folder that is there is moved aside for the moment of the exchange, so a kill
    leaves the old one, the new one or none, and never a mixture.

    Raises:
        EnvironmentFault: the place cannot be written or the disk is full.
    """
    make_folder(path.parent)
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    hidden, old = (path.with_name(f".{path.name}.{kind}-{token}.tmp") for kind in ("new", "old"))
    try:
        hidden.mkdir()
        yield hidden
        sync_folder(hidden)
        if path.exists():
            os.replace(path, old)
        os.replace(hidden, path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BrokenPipeError:  # likewise
        raise
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(path.parent)):
            raise  # another file's trouble inside the block
        raise _write_fault(path, error) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def make_once(folder: Path, stamp: Mapping[str, Any], make: Callable[[Path], T]) -> T | None:
    """Make a folder, whole or not at all, unless it is there and was made from the same.

    Args:
        folder: where to; one that was made from something else is replaced.
        stamp: what its content is made from, kept in it as ``stamp.json``.
        make: writes the content into the folder that it is given.

    Returns:
        What ``make`` returned; None where the folder is there already.

    Raises:
        EnvironmentFault: the place cannot be written or the disk is full.
    """
    text = json_bytes(stamp)

    def is_there() -> bool:
        try:
            return bool(json.loads((folder / _STAMP).read_bytes()) == json.loads(text))
        except (OSError, ValueError):
            return False

    if is_there():
        return None
    with locked(folder):
        if is_there():  # another process made it while this one waited
            return None
        with folder_appearing(folder) as hidden:
            made = make(hidden)
            (hidden / _STAMP).write_bytes(text)
    return made


@contextmanager
def files_appearing(folder: Path) -> Iterator[Path]:
    """Give a hidden folder whose files move into ``folder`` when the block ends without an exception.

    Files of the same names are replaced and others stay. After an exception ``folder`` is as it was, and not there if
    it was not.

    Raises:
        EnvironmentFault: the place cannot be written or the disk is full.
    """
    hidden = folder / f".new-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    with making_folder(folder):
        try:
            make_folder(hidden)
            yield hidden
            for path in [path for path in hidden.rglob("*") if not path.is_dir()]:
                target = folder / path.relative_to(hidden)
                try:
                    make_folder(target.parent)
                    os.replace(path, target)
                except OSError as error:
                    raise _write_fault(target, error) from error
            sync_folder(folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as stream:
        stream.write(data)


def json_bytes(value: Any) -> bytes:
    """Return a value as indented UTF-8 JSON that ends with a newline; NaN and Infinity are refused.

    Raises:
        ValueError: the value holds a number that JSON cannot hold.
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")


def write_json(path: Path, value: Any) -> None:
    """Write a value as an indented JSON file, gzipped when its name ends in ".gz"; equal values give equal bytes."""
    data = json_bytes(value)
    write_bytes(path, gzip.compress(data, 6, mtime=0) if path.name.endswith(".gz") else data)
