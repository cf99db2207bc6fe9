"""Runs are listed with state and size, and cleaning takes the checkpoints of finished ones alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called
from filelock import FileLock
from finished_runs import Place, place_in

from cissod_bench.keeping.inventory import bytes_text, clean, inventory
from cissod_bench.records.run_folder import CHECKPOINT, PREDICTIONS, RUN_LOCK, find_runs

Call = Callable[..., Called]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path)


def test_a_run_is_running_only_while_a_process_works_on_it(place: Place) -> None:
    killed = place.run(0, status="running")
    place.run(1)
    assert [kept.status for kept in inventory(place.work)] == ["interrupted", "done"]
    with FileLock(killed / RUN_LOCK):
        assert [kept.status for kept in inventory(place.work)] == ["running", "done"]


def test_a_list_tells_scores_sizes_and_what_cleaning_frees(place: Place, call: Call) -> None:
    folder = place.run(3)
    place.run(4, status="failed", ap={})
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    first, second = json.loads(call("runs", "list", "--json", "--work-dir", place.work).out)
    assert (first["dir"], first["status"], first["bytes"], first["checkpoint_bytes"]) == (
        str(folder), "done", size, 5_000,
    )  # fmt: skip
    assert first["ap"]["teacher"]["all"] == pytest.approx(80.0)
    assert (second["seed"], second["status"], second["ap"]) == (4, "failed", {})
    shown = call("runs", "list", "--work-dir", place.work).out
    assert "all 80.0, min 60.0" in shown
    assert "`cissod-bench runs clean` would free 5.0 kB of checkpoints of 1 finished runs" in shown


def test_a_folder_without_runs_is_no_fault_and_a_broken_record_is_named(tmp_path: Path, call: Call) -> None:
    assert "There is no run" in call("runs", "list", "--work-dir", tmp_path).out
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text("{")
    shown = call("runs", "list", "--work-dir", tmp_path)
    assert (shown.code, "Passed over" in shown.err) == (0, True)


def test_cleaning_deletes_the_checkpoints_of_finished_runs_alone(place: Place, call: Call) -> None:
    done, begun = place.run(0), place.run(1, status="interrupted")
    (done / "checkpoint_best.pth").write_bytes(b"b" * 70)
    answer = call("runs", "clean", "--yes", "--json", "--work-dir", place.work)
    assert json.loads(answer.out) == {"runs": [str(done)], "bytes": 5_070}
    assert not list(done.glob("*.pth"))
    assert (done / PREDICTIONS).exists()
    assert (begun / CHECKPOINT).exists()
    again = call("runs", "clean", "--work-dir", place.work)
    assert (again.code, "There is no checkpoint of a finished run" in again.out) == (0, True)


def test_cleaning_asks_and_deletes_nothing_where_nobody_can_be_asked(place: Place, call: Call) -> None:
    folder = place.run()
    answer = call("runs", "clean", "--work-dir", place.work)
    assert answer.code == 2
    assert "1 checkpoints of 1 finished runs, 5.0 kB (5,000 bytes), would be deleted" in answer.err
    assert (folder / CHECKPOINT).exists()


def test_cleaning_passes_over_a_run_that_is_no_longer_finished_or_in_use(place: Place) -> None:
    first, second = place.run(0), place.run(1)
    seen = inventory(place.work)
    place.run(0, status="running")
    with FileLock(second / RUN_LOCK):
        assert clean(seen) == 0
    assert (first / CHECKPOINT).exists()
    assert (second / CHECKPOINT).exists()


def test_what_a_killed_command_left_in_a_hidden_folder_is_no_run(place: Place) -> None:
    folder = place.run()
    folder.rename(place.work / "runs" / ".unpack-x.tmp")
    assert find_runs(place.work) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (99_960, "100 kB"), (49_800_000, "49.8 MB"),
     (999_600_000, "1.0 GB"), (1.5e12, "1.5 TB")],
)  # fmt: skip
def test_bytes_are_written_with_three_digits(number: float, text: str) -> None:
    assert bytes_text(number) == text
