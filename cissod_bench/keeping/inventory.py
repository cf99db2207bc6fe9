"""Which runs there are: how far, how large, and which checkpoints of finished ones may go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cissod_bench.errors import DataFault, EnvironmentFault
from cissod_bench.records.record import RunStatus
from cissod_bench.records.run_folder import RUN_LOCK, Run, find_runs, read_record
from cissod_bench.sweeping.claims import worked_on

CHECKPOINTS = "*.pth"
"""What the checkpoints of a run are called, the last one and all that were kept beside it."""


@dataclass(frozen=True)
class KeptRun:
    """A run as it lies on disk.

    Attributes:
        run: its folder and its record.
        status: as the record has it, but "running" only while a process works on it: one that was killed is
            "interrupted".
        size: bytes of all its files.
        checkpoints: its checkpoint files.
        checkpoint_size: bytes of these.
    """

    run: Run
    status: RunStatus
    size: int
    checkpoints: tuple[Path, ...]
    checkpoint_size: int

    @property
    def removable(self) -> bool:
        """Whether its checkpoints may be deleted: it is finished, and there are some."""
        return self.status == "done" and bool(self.checkpoints)

    @property
    def name(self) -> str:
        """Method and variant as the run's folder is called."""
        record = self.run.record
        return f"{record.method}+{record.variant}" if record.variant else record.method


def inventory(root: Path, *, on_fault: Callable[[DataFault], None] | None = None) -> list[KeptRun]:
    """Return every run below a folder, by task, split seed, method, scale and seed.

    Args:
        root: any folder above the runs, or that of one run.
        on_fault: is handed the fault of each record that cannot be read.
    """
    return [kept(run) for run in find_runs(root, on_fault=on_fault)]


def kept(run: Run) -> KeptRun:
    """Return what lies in a run's folder."""
    status: RunStatus = run.record.status
    if worked_on(run.folder):
        status = "running"
    elif status == "running":
        status = "interrupted"
    checkpoints = tuple(sorted(path for path in run.folder.rglob(CHECKPOINTS) if path.is_file()))
    return KeptRun(run, status, _size(_files(run.folder)), checkpoints, _size(checkpoints))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _size(files: Iterator[Path] | Sequence[Path]) -> int:
    """Return the bytes of files; a link counts itself, and a file that is gone meanwhile nothing."""
    total = 0
    for path in files:
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


def clean(runs: Sequence[KeptRun]) -> int:
    """Delete the checkpoints of finished runs and return the bytes that became free.

    A run that is no longer finished, or that a process works on by now, is passed over.

    Args:
        runs: from `inventory`; those that are not `removable` stay as they are.

    Raises:
        EnvironmentFault: a file cannot be deleted.
    """
    return sum(_cleaned(kept_run) for kept_run in runs if kept_run.removable)


def _cleaned(kept_run: KeptRun) -> int:
    folder, free = kept_run.run.folder, 0
    lock = FileLock(folder / RUN_LOCK)
    try:
        with lock.acquire(timeout=0):
            if read_record(folder).status != "done":
                return 0
            for path in kept_run.checkpoints:
                size = path.lstat().st_size
                path.unlink()
                free += size
    except (Timeout, FileNotFoundError):
        return free
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot delete the checkpoints of {folder}: {error.strerror or error}.",
            remedy=f"make the folder writable: chmod u+w {folder}",
        ) from error
    return free


def bytes_text(number: float) -> str:
    """Return bytes as ``512 bytes``, ``49.8 MB`` or ``1.2 TB``: a thousand of one make the next."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5 or (unit == "bytes" and number < 1000):
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 99.95 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
