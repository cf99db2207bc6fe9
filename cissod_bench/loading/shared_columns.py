"""Columns of a split's large files, read once and mapped by all: the ranks of a machine, and later starts.

Objects365's hidden boxes are 5 GB of text and 635 MB of columns. Whoever comes first reads the text and writes the
columns beside it, a file each; all map these files, so a machine holds their pages once, however many processes it has.
A file's columns lie in a folder named by the hash of its content and of how it was read: another draw has another one.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.errors import BenchError, EnvironmentFault
from cissod_bench.files.whole_files import folder_appearing, locked
from cissod_bench.loading.sources import COLUMNS, Source

FOLDER = ".columns"
"""In the folder of a split; may be deleted whenever no run is at work."""
LEAST_BYTES = 64 << 20  # of text: what is smaller is read in a second, and by each for itself
_PAGE = 4096
_LAYOUT = 1


def key_of(*facts: object) -> str:
    """Return a name for columns that depend on some facts: the hash of the file, and how it was read."""
    return sha256(repr((_LAYOUT, *facts)).encode()).hexdigest()[:16]


def shared_source(path: Path, key: str, read: Callable[[], Source]) -> Source:
    """Return the images and boxes of a file, mapped if it is large.

    Args:
        path: the file.
        key: `key_of` all that its columns depend on.
        read: reads it.

    Raises:
        BenchError: of ``read``.
    """
    if path.stat().st_size < LEAST_BYTES:
        return read()
    place = path.parent / FOLDER / f"{path.stem}-{key}"
    try:
        if not place.is_dir():
            with locked(place):
                if not place.is_dir():  # nobody has written it while this process waited
                    _write(place, read())
        return _mapped(place)
    except (EnvironmentFault, OSError, ValueError):  # the folder cannot be written, or a file in it is damaged
        return read()


def read_ahead(path: Path, read: Callable[[], object]) -> multiprocessing.process.BaseProcess | None:
    """Let a process of its own write the columns of a large file, which will be asked for later; whoever asks waits.

    Args:
        path: the file.
        read: asks for its columns by `shared_source`.

    Returns:
        The process; None where the file is small or missing, or where a process cannot be copied.
    """
    if sys.platform != "linux" or not path.exists() or path.stat().st_size < LEAST_BYTES:
        return None
    process = multiprocessing.get_context("fork").Process(target=_reader, args=(read,), daemon=True)
    process.start()
    return process


def _reader(read: Callable[[], object]) -> None:
    """Read beside the process that has started this one, and no longer than that lives: it holds its locks, too."""
    parent = multiprocessing.parent_process()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    with suppress(BenchError):  # is told to whoever asks for the columns
        read()


def _write(place: Path, source: Source) -> None:
    with folder_appearing(place) as folder:
        for name in COLUMNS:
            np.save(folder / f"{name}.npy", np.asarray(_array(getattr(source, name))), allow_pickle=False)
        (folder / "parents.json").write_bytes(msgspec.json.encode(list(source.parents)))


def _array(column: bytes | npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return np.frombuffer(column, np.uint8) if isinstance(column, bytes) else column


def _mapped(place: Path) -> Source:
    """Return a source whose columns are pages of files; whoever writes to one has its own copy of that page."""
    parents = msgspec.json.decode((place / "parents.json").read_bytes(), type=tuple[tuple[int, str, int], ...])
    columns: dict[str, Any] = {name: _opened(place / f"{name}.npy") for name in COLUMNS}
    return Source(**columns, folders=(), parents=parents)


def _opened(path: Path) -> npt.NDArray[Any]:
    small = path.stat().st_size < _PAGE  # what is empty cannot be mapped
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode=None if small else "c", allow_pickle=False)
    return mapped.view(np.ndarray)  # a plain array of the same pages: np.memmap is slower to index
