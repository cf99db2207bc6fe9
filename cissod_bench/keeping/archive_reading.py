"""An archive of runs, read once from its beginning to its end; whatever is not as its list says ends the reading.

Nothing is written under a name that the archive chooses: the files of a run have fixed names, in folders that are
numbered here.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from cissod_bench.errors import DataFault, EnvironmentFault
from cissod_bench.files.images import broken_name_rule
from cissod_bench.files.whole_files import replacing
from cissod_bench.keeping.pack_format import (
    FILES,
    FORMAT,
    LIST,
    MOST_LIST_BYTES,
    SCHEMA,
    PackedFile,
    PackedRun,
    PackList,
)
from cissod_bench.records.run_folder import RECORD

_DAMAGED = (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, UnicodeDecodeError, ValueError, OverflowError)
_BLOCK = 1 << 20


def fault(file: Path, rule: str) -> DataFault:
    """Return the fault of an archive that is damaged, foreign or altered."""
    return DataFault(
        f"{file}: {rule}. Nothing of it was kept.",
        remedy="fetch it again, or have it made again: cissod-bench runs pack DIR",
    )


def extract(file: Path, folder: Path) -> list[tuple[PackedRun, Path]]:
    """Write the files of every run of an archive into folders ``0``, ``1``, ...; return what is said of each, and it.

    Args:
        file: the archive.
        folder: an empty one.

    Raises:
        DataFault: it is missing, damaged, no archive of runs, of a newer version, or holds what its list does not say.
        EnvironmentFault: it cannot be read, or the folder cannot be written.
    """
    with _opened(file) as archive:
        runs = [(run, folder / str(number)) for number, run in enumerate(_list_of(file, archive).runs)]
        for run, place in runs:
            for name in FILES:
                if name in run.files:
                    _extract(file, archive, f"{run.place}/{name}", run.files[name], place / name)
        if (more := archive.next()) is not None:
            raise fault(file, f"it holds {more.name[:200]!r}, which its list does not name")
    return runs


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive as a stream and tell what goes wrong with it in our words."""
    try:
        with gzip.open(file, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            yield archive
    except FileNotFoundError as error:
        if error.filename is None or Path(error.filename) != file:
            raise
        raise DataFault(f"There is no file {file}.", remedy="name an archive of cissod-bench runs pack") from None
    except _DAMAGED as error:
        raise fault(file, f"it is no archive of runs, or damaged ({str(error) or type(error).__name__})") from None
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror or error}."
        raise EnvironmentFault(message, remedy="name a file that can be read") from None


def _list_of(file: Path, archive: tarfile.TarFile) -> PackList:
    """Return the list that an archive begins with, after checking what it says."""
    entry = archive.next()
    if entry is None or entry.name != LIST or not entry.isreg() or entry.size > MOST_LIST_BYTES:
        raise fault(file, f"it is no archive of runs: it does not begin with {LIST}")
    stream = archive.extractfile(entry)
    content = b"" if stream is None else stream.read()
    try:
        listed = msgspec.json.decode(content, type=PackList)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise fault(file, f"its {LIST} breaks the format ({error})") from None
    if listed.format != FORMAT:
        raise fault(file, f"it is no archive of runs but of {listed.format[:200]!r}")
    if listed.schema > SCHEMA:
        writer = f"cissod-bench {listed.tool_version[:50]}"
        message = f"{file} has schema {listed.schema}, of {writer}; this version reads up to {SCHEMA}."
        raise DataFault(message, remedy="update cissod-bench")
    if rule := _broken_rule(listed):
        raise fault(file, rule)
    return listed


def _broken_rule(listed: PackList) -> str | None:
    if not listed.runs:
        return "it holds no run"
    for run in listed.runs:
        if (rule := broken_name_rule(run.place)) is not None:
            return f"the place of a run {rule}, and is {run.place[:200]!r}"
        if RECORD not in run.files:
            return f"{run.place} has no {RECORD}"
        if odd := [name for name in run.files if name not in FILES]:
            return f"{run.place} holds a file that no run has: {odd[0][:200]!r}"
    if len({run.place for run in listed.runs}) < len(listed.runs):
        return "it names a run twice"
    return None


def _extract(file: Path, archive: tarfile.TarFile, name: str, listed: PackedFile, path: Path) -> None:
    """Write the next file of an archive to a path, after comparing its name, size and hash with the list."""
    entry = archive.next()
    if entry is None:
        raise fault(file, f"it ends before {name}")
    if entry.name != name or not entry.isreg():
        raise fault(file, f"it holds {entry.name[:200]!r} where its list names {name}")
    if entry.size != listed.bytes:
        raise fault(file, f"{name} has {entry.size} bytes, listed are {listed.bytes}")
    stream = archive.extractfile(entry)
    assert stream is not None
    with replacing(path) as target:
        sha256 = _copied(stream, target)
    if sha256 != listed.sha256:
        raise fault(file, f"{name} is damaged: its sha256 is {sha256}, listed is {listed.sha256}")


def _copied(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy a stream to its end and return the sha256 of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(_BLOCK):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
