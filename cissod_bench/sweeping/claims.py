"""Who works on a cell of a sweep, by the locks in its run's folder. The system frees them at a process's death."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cissod_bench.errors import EnvironmentFault
from cissod_bench.files.whole_files import make_folder
from cissod_bench.records.run_folder import RUN_LOCK

CLAIM = ".claim"
"""Held by the sweep that works on the cell."""


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold the right to start a cell's run; gives False where another sweep holds it.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    lock = FileLock(make_folder(folder) / CLAIM)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot lock {folder}: {error.strerror or error}.", remedy="pass a --work-dir that can be written"
        ) from error
    try:
        yield True
    finally:
        lock.release()


def _is_held(file: Path) -> bool:
    """Tell whether a process holds a lock file; one that cannot be opened is taken for free."""
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def run_at_work(folder: Path) -> bool:
    """Tell whether a run holds its folder; to be asked while the cell is claimed, so that no sweep starts one now."""
    return _is_held(folder / RUN_LOCK)


def worked_on(folder: Path) -> bool:
    """Tell whether a sweep or a run works on a cell; nothing is created."""
    claim = folder / CLAIM
    if not claim.exists():
        return run_at_work(folder)
    lock = FileLock(claim)
    try:
        lock.acquire(timeout=0)  # kept while the run's lock is tried: a run about to start would find that one taken
    except Timeout:
        return True
    except OSError:
        return run_at_work(folder)
    try:
        return run_at_work(folder)
    finally:
        lock.release()
