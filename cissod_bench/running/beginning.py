"""How a run begins in its folder: alone, and as what an earlier start left there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from cissod_bench import distributed
from cissod_bench.contract.settings import departures
from cissod_bench.errors import EnvironmentFault, UsageFault
from cissod_bench.files.whole_files import make_folder, remove_leftovers
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.running.plan import Plan, images_per_rank


@contextmanager
def only_worker(folder: Path) -> Iterator[None]:
    """Hold the folder's lock on the rank that writes; where it cannot be had, all ranks end.

    Raises:
        UsageFault: another process holds it.
        EnvironmentFault: the folder cannot be written.
    """
    locks: list[FileLock] = []
    distributed.from_first(lambda: locks.append(_lock(folder)))
    try:
        if locks:
            remove_leftovers(folder)
        yield
    finally:
        for lock in locks:
            lock.release()


def _lock(folder: Path) -> FileLock:
    lock = FileLock(make_folder(folder) / runs.RUN_LOCK)
    try:
        lock.acquire(timeout=1, poll_interval=0.05)  # a look at it, as a sweep takes, lasts an instant
    except Timeout:
        raise UsageFault(
            f"Another process is working in {folder}.", remedy="wait for it, or pass another --seed"
        ) from None
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot lock {folder}: {error.strerror or error}.", remedy="pass a --work-dir that can be written"
        ) from error
    return lock


def forget(folder: Path) -> None:
    """Remove what an earlier start left."""
    for name in runs.RESULTS:
        for path in folder.glob(name):
            path.unlink(missing_ok=True)


def record_of(plan: Plan) -> RunRecord:
    """Return the folder's record, or a new one.

    Raises:
        UsageFault: the folder holds a run of another split or of other settings.
    """
    if not (plan.folder / runs.RECORD).exists():
        return _new_record(plan)
    record = runs.read_record(plan.folder)
    _check_same_run(plan, record)
    return record


def _check_same_run(plan: Plan, record: RunRecord) -> None:
    """Refuse a record of another draw or of other settings than the plan's."""
    planned = json.loads(json.dumps(asdict(plan.settings)))
    compared = planned.keys() & record.settings.keys() - FREE_SETTINGS
    changed = sorted(name for name in compared if record.settings[name] != planned[name])
    if record.split_sha256 != plan.split_sha256:
        raise UsageFault(
            f"{plan.folder} holds a run on another draw of the split.",
            remedy="pass another --work-dir: it draws the present split anew, and this run stays",
        )
    if changed:
        raise UsageFault(
            f"{plan.folder} holds a run with other settings ({', '.join(changed)}).",
            remedy="repeat the settings of the first start, or pass another --name",
        )


def _new_record(plan: Plan) -> RunRecord:
    """Return the record of a run that nobody has begun."""
    settings, images = plan.settings, sum(images_per_rank(plan))
    return RunRecord(
        task=plan.task.name,
        title=plan.task.title,
        method=plan.method.name,
        variant=plan.variant,
        preset=plan.preset,
        profile=plan.profile,
        split_seed=plan.split_seed,
        seed=plan.seed,
        name=plan.name,
        split_sha256=plan.split_sha256,
        status="running",
        groups=plan.groups,
        settings=asdict(settings),
        departures=departures(
            settings, task_iterations=plan.task.iterations, world_size=distributed.world_size(), images=images
        ),
        command=list(plan.command),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def write(plan: Plan, record: RunRecord) -> None:
    """Write the record into the run's folder (rank 0).

    Raises:
        EnvironmentFault: the place cannot be written.
    """
    if distributed.rank() == 0:
        runs.write_record(plan.folder, record)
