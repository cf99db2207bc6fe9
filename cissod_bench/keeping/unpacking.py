"""An archive of runs checked and put where runs lie: all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cissod_bench.errors import DataFault, EnvironmentFault, UsageFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.whole_files import make_folder, making_folder, sync_folder
from cissod_bench.keeping.archive_reading import extract, fault
from cissod_bench.keeping.pack_format import FILES, SPLIT, SPLIT_MANIFEST, PackedRun, place_of
from cissod_bench.keeping.rescoring import Rescored, rescore
from cissod_bench.records.run_folder import Run, read_record
from cissod_bench.splitting.manifest import read_manifest
from cissod_bench.sweeping.claims import worked_on

Say = Callable[[str], None]


@dataclass(frozen=True)
class Unpacked:
    """A run of an archive.

    Attributes:
        run: where it lies now, and its record.
        rescored: what scoring its predictions again told.
        there: whether the same run lay there before.
    """

    run: Run
    rescored: Rescored
    there: bool


def unpack(file: Path, work_dir: Path, data_root: Path, say: Say = lambda text: None) -> list[Unpacked]:
    """Check an archive and put its runs below ``work_dir/runs``, where their records say.

    Every file is compared with its hash, every record with its place and its split's hash, and predictions are scored
    again where the validation file is at hand. Only then the first run is put into its place.

    Args:
        file: from `cissod_bench.keeping.packing.pack`.
        work_dir: as ``--work-dir``.
        data_root: as ``--data-root``.
        say: takes a line before each run is scored.

    Raises:
        DataFault: the archive is missing, damaged or foreign, or scores are not those of a record.
        UsageFault: another run lies in the place of one.
        EnvironmentFault: the archive cannot be read or the place cannot be written.
    """
    with making_folder(work_dir / "runs") as root, _hidden_folder(root) as hidden:
        runs = [_checked(file, listed, folder) for listed, folder in extract(file, hidden)]
        targets = [root / place_of(run.record) for run in runs]
        there = [_is_there(run, target) for run, target in zip(runs, targets, strict=True)]
        rescored = []
        for run, target in zip(runs, targets, strict=True):
            say(f"Scoring the predictions of {target}")
            rescored.append(_rescored(file, run, target, data_root, work_dir))
        for run, target, known in zip(runs, targets, there, strict=True):
            if not known:
                _move(run.folder, target)
    return [
        Unpacked(Run(target, run.record), told, known)
        for run, target, told, known in zip(runs, targets, rescored, there, strict=True)
    ]


@contextmanager
def _hidden_folder(root: Path) -> Iterator[Path]:
    """Give a folder below ``root`` that nothing reads and that is gone at the end of the block."""
    try:
        hidden = tempfile.mkdtemp(prefix=".unpack-", suffix=".tmp", dir=root)
    except OSError as error:
        remedy = "pass a --work-dir that can be written"
        raise EnvironmentFault(f"Cannot write {root}: {error.strerror or error}.", remedy=remedy) from None
    try:
        yield Path(hidden)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _checked(file: Path, listed: PackedRun, folder: Path) -> Run:
    """Return a run that was extracted, after comparing its record and its split's manifest with the archive's list."""
    record = read_record(folder)
    place = place_of(record)
    if place != listed.place:
        raise fault(file, f"by its record the run in {listed.place} is {place}")
    if record.status != "done":
        raise fault(file, f"the run {place} is not finished ({record.status})")
    hashes = {record.split_sha256, listed.split_sha256}
    if SPLIT_MANIFEST in listed.files:
        hashes.add(read_manifest(folder / SPLIT).split_sha256)
    if len(hashes) > 1:
        raise fault(file, f"what it says of the split of {place} contradicts itself: {' and '.join(sorted(hashes))}")
    return Run(folder, record)


def _is_there(run: Run, target: Path) -> bool:
    """Tell whether the same run lies in the place already.

    Raises:
        UsageFault: another one does, or somebody works there.
    """
    if not target.exists():
        return False
    if worked_on(target):
        raise UsageFault(f"A process works in {target}.", remedy="wait for it, or pass another --work-dir")
    if not any(not path.name.startswith(".") for path in target.iterdir()):
        return False
    if all(_same(run.folder / name, target / name) for name in FILES if (run.folder / name).is_file()):
        return True
    raise UsageFault(
        f"In {target} lies another run, which stays. Nothing was unpacked.",
        remedy="pass another --work-dir, or move that run away",
    )


def _same(first: Path, second: Path) -> bool:
    return second.is_file() and file_sha256(first) == file_sha256(second)


def _rescored(file: Path, run: Run, target: Path, data_root: Path, work_dir: Path) -> Rescored:
    try:
        return rescore(run, data_root, work_dir)
    except DataFault as wrong:
        told = wrong.message.replace(str(run.folder), f"{file}, {target}")
        raise DataFault(f"{told} Nothing was unpacked.", remedy=wrong.remedy) from None


def _move(folder: Path, target: Path) -> None:
    """Put a run into its place, which is free or holds nothing but the locks of those who looked there."""
    make_folder(target.parent)
    if target.exists():
        shutil.rmtree(target)
    os.replace(folder, target)
    sync_folder(target.parent)
