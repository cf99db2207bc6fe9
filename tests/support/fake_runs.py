"""Cells whose runs are small processes that leave a run folder behind as a run would; for tests of the queue.

What the run of a cell does depends on its seed: 0, 4, 8, ... end well; 1 fails; 2 is killed; 3 works until it is asked
to stop, and so does 7 at its first start; at its second it ends well. ``python fake_runs.py sweep WORK SEEDS SECONDS``
is a sweep over such cells in a process of its own, with ``worker`` for ``sweep`` one that does not wait for others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script's own path begins in its folder

from cissod_bench.errors import BenchError
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import RUN_LOCK
from cissod_bench.signals import follow_parent
from cissod_bench.sweeping.cells import IDENTITY, Cell, Folders, cells_of
from cissod_bench.sweeping.sweep import Sweep

SCHEMA1 = Path(__file__).parents[1] / "data" / "run_schema1.json"


def fake_cells(*seeds: int) -> list[Cell]:
    return cells_of(["soft-teacher"], ["toy"], seeds=seeds, preset_name="smoke")


def record_of(cell: Cell, **changes: Any) -> RunRecord:
    own = {name: getattr(cell, name) for name in IDENTITY}
    return replace(runs.read_record(SCHEMA1), **{**own, "settings": dict(cell.settings), **changes})


def fake_sweep(
    work: Path, cells: Sequence[Cell], *, results: Path | None = None, seconds: float = 0.0, **fields: Any
) -> Sweep:
    def command(cell: Cell) -> list[str]:
        record = json.dumps(asdict(record_of(cell)))
        return [sys.executable, __file__, "run", str(work / "runs" / cell.place), record, str(seconds)]

    fields = {"say": lambda line: None, "command": command, "patience": 0.1, **fields}
    return Sweep(cells, Folders(work, results), **fields)


def starts(work: Path, cell: Cell) -> list[int]:
    """The process ids of the runs that a cell has had."""
    file = work / "runs" / cell.place / "starts"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def _run(folder: Path, record: RunRecord, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    with FileLock(folder / RUN_LOCK, timeout=0):
        time.sleep(seconds)
        if record.seed % 4 == 1:
            sys.exit("a line before\nError: the box is too large\n  -> draw the split again")
        if record.seed % 4 == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        again = len((folder / "starts").read_text().splitlines()) > 1
        if record.seed % 4 == 3 and not (record.seed == 7 and again):
            asked: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))  # as a run, Ctrl-C ends it
            runs.write_record(folder, replace(record, status="running"))
            while not asked:
                time.sleep(0.02)
            runs.write_record(folder, replace(record, status="interrupted"))
            sys.exit(5)
        runs.write_record(folder, record)


def _sweep(work: Path, seeds: str, seconds: float, waits: bool) -> None:
    cells = fake_cells(*map(int, seeds.split(",")))
    try:
        fake_sweep(work, cells, seconds=seconds, waits=waits, say=lambda line: print(line, flush=True)).run()
    except BenchError as fault:
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    kind, place, what, how_long = sys.argv[1:]
    if kind == "run":
        follow_parent()
        _run(Path(place), msgspec.json.decode(what, type=RunRecord), float(how_long))
    else:
        _sweep(Path(place), what, float(how_long), kind == "sweep")
