"""How far the cells of a sweep are, by the files of their runs and by who holds their locks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from filelock import FileLock, Timeout

from cissod_bench.errors import DataFault, EnvironmentFault
from cissod_bench.files.whole_files import make_folder
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.records.run_folder import RUN_LOCK
from cissod_bench.splitting.manifest import split_folder
from cissod_bench.sweeping.queue import IDENTITY, Cell

CLAIM = ".claim"  # held by the sweep that works on the cell
FAILURE = "failure.json"

State: TypeAlias = Literal["done", "running", "interrupted", "failed", "waiting"]


@dataclass(frozen=True)
class Seen:
    """What is known of a cell.

    Attributes:
        state: "done", "running" (a process works on it), "interrupted" (to be continued), "failed" or "waiting".
        record: the run's, where there is one.
        note: of a failed cell its message, of a begun one how far it is.
        final: a failed cell that running it again would not mend.
    """

    state: State
    record: RunRecord | None = None
    note: str = ""
    final: bool = False

    def scores(self) -> dict[str, float | None]:
        """Return the teacher's AP of all classes and of the last group (min, or r on LVIS); empty before the end."""
        if self.state != "done" or self.record is None:
            return {}
        ap = self.record.ap.get("teacher", {})
        return {name: ap.get(name) for name in ("all", *list(self.record.groups)[-1:])}


@dataclass(frozen=True)
class Folders:
    """Where a sweep's runs lie.

    Attributes:
        work_dir: runs lie below ``runs/``, splits below ``splits/``.
        results: finished records kept elsewhere, laid out as below ``runs/``; None keeps none.
    """

    work_dir: Path
    results: Path | None = None

    def run(self, cell: Cell) -> Path:
        """Return the run's folder."""
        return self.work_dir / "runs" / cell.place

    def kept(self, cell: Cell) -> Path | None:
        """Return the folder of its kept record."""
        return None if self.results is None else self.results / cell.place

    def look(self, cell: Cell) -> Seen:
        """Return a cell's state, a process at work included."""
        seen = self.recorded(cell)
        if seen.state == "done" or seen.final or not worked_on(self.run(cell)):
            return seen
        return Seen("running", seen.record, self.progress(cell))

    def recorded(self, cell: Cell) -> Seen:
        """Return a cell's state by its files alone: one that says "running" was killed unless somebody is at work."""
        begun = None
        for folder in (self.run(cell), self.kept(cell)):
            if folder is None or not (folder / runs.RECORD).is_file():
                continue
            try:
                record = runs.read_record(folder)
            except DataFault as fault:
                return Seen("failed", note=str(fault), final=True)
            if record.status == "done":
                broken = self._broken_rule(cell, folder, record)
                return Seen("failed", record, broken, final=True) if broken else Seen("done", record)
            begun = begun or record
        return self._unfinished(cell, begun)

    def _unfinished(self, cell: Cell, record: RunRecord | None) -> Seen:
        """Return the state of a run that is not done and that nobody works on."""
        message = _failure(self.run(cell))
        if message is not None:
            return Seen("failed", record, message)
        if record is None:
            return Seen("waiting")
        return Seen("failed" if record.status == "failed" else "interrupted", record, self.progress(cell))

    def progress(self, cell: Cell) -> str:
        """Return how far a run's log is, as ``510/900``, or "" where it has none."""
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            with (self.run(cell) / runs.LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - 65536))
                last = log.read().rsplit(b"\n", 2)[-2]
            return f"{json.loads(last)['iteration']}/{cell.settings['iterations']}"
        return ""

    def _broken_rule(self, cell: Cell, folder: Path, record: RunRecord) -> str:
        """Return why a finished record is not the cell's, or ""."""
        for name in IDENTITY:
            if getattr(record, name) != getattr(cell, name):
                return f"{folder} holds a run with {name} {getattr(record, name)!r}; wanted is {getattr(cell, name)!r}"
        compared = cell.settings.keys() & record.settings.keys() - FREE_SETTINGS
        changed = sorted(name for name in compared if record.settings[name] != cell.settings[name])
        remedy = "move it elsewhere, or repeat the sweep with its settings or another --work-dir or --results"
        if changed:
            return f"{folder} holds a finished run with other settings ({', '.join(changed)}): {remedy}"
        drawn = self._split_sha256(cell)
        if drawn and drawn != record.split_sha256:
            return f"{folder} holds a finished run on another draw of the split: {remedy}"
        return ""

    def _split_sha256(self, cell: Cell) -> str | None:
        """Return the hash of the split the cell would be run on, None while it is not drawn."""
        manifest = split_folder(self.work_dir, cell.task, cell.split_seed) / "manifest.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(manifest.read_bytes())["split_sha256"])
        return None


def _failure(folder: Path) -> str | None:
    """Return why a run failed, unless it was continued since."""
    record, failure = folder / runs.RECORD, folder / FAILURE
    with suppress(OSError, ValueError, KeyError, TypeError):
        if not record.exists() or failure.stat().st_mtime >= record.stat().st_mtime:
            return str(json.loads(failure.read_bytes())["message"])
    return None


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold the right to start a cell's run; gives False where another sweep holds it. The system frees it at death.

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
