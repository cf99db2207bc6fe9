"""What a sweep makes of runs that are not done: they replace nothing, and are tried again unless they just failed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fake_runs import fake_cells, fake_sweep, record_of, starts

from cissod_bench.records import run_folder as runs
from cissod_bench.sweeping.cells import FAILURE


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_done_replaces_no_kept_record(status: str, tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    (cell,) = fake_cells(0)
    for root, record in ((results, record_of(cell)), (work / "runs", record_of(cell, status=status, ap={}))):
        runs.write_record(root / cell.place, record)
        (root / cell.place / runs.PSEUDO_LABELS).write_text(f"of {root.name}\n")
    before = {path: path.read_bytes() for path in results.rglob("*.json*")}
    seen = fake_sweep(work, [cell], results=results).run()[cell]
    assert (seen.state, starts(work, cell)) == ("done", [])
    assert {path: path.read_bytes() for path in results.rglob("*.json*")} == before


@pytest.mark.parametrize("ahead", [-300, 300])
def test_an_old_failure_is_tried_again_whatever_the_clock_of_the_disk(ahead: int, tmp_path: Path) -> None:
    (cell,) = fake_cells(4)
    mark = tmp_path / "runs" / cell.place / FAILURE
    mark.parent.mkdir(parents=True)
    mark.write_text('{"message": "the disk was full"}')
    os.utime(mark, (time.time() + ahead,) * 2)
    assert fake_sweep(tmp_path, [cell]).run()[cell].state == "done"


@pytest.mark.parametrize("ahead", [-300, 300])
def test_what_fails_elsewhere_meanwhile_is_not_tried_again(ahead: int, tmp_path: Path) -> None:
    cells = fake_cells(0, 4)
    mark = tmp_path / "runs" / cells[1].place / FAILURE

    def fail_elsewhere(line: str) -> None:
        if "seed 0: starts" in line:
            mark.parent.mkdir(parents=True)
            mark.write_text('{"message": "the box is too large"}')
            os.utime(mark, (time.time() + ahead,) * 2)

    seen = fake_sweep(tmp_path, cells, say=fail_elsewhere).run()[cells[1]]
    assert (seen.state, seen.note, starts(tmp_path, cells[1])) == ("failed", "the box is too large", [])
