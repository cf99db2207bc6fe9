"""The queue of runs: every cell once, whoever is killed; its states, its lock, what it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_runs
import pytest
from commands import Called
from fake_runs import fake_cells, fake_sweep, record_of, starts
from filelock import FileLock

from cissod_bench.errors import UsageFault
from cissod_bench.records import run_folder as runs
from cissod_bench.records.run_folder import RUN_LOCK
from cissod_bench.running import trackers
from cissod_bench.sweeping.cells import FAILURE, IDENTITY, Cell, Folders, cells_of
from cissod_bench.sweeping.claims import CLAIM, claimed, worked_on
from cissod_bench.sweeping.sweep import OUTPUT, duration, message_of


def sweep_process(work: Path, seeds: str, seconds: float = 0.0) -> subprocess.Popen[str]:
    words = [sys.executable, fake_runs.__file__, "sweep", str(work), seeds, str(seconds)]
    # A process group of its own, as a terminal's Ctrl-C and a scheduler's signals meet it.
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def begun(work: Path, seed: int = 3) -> tuple[subprocess.Popen[str], Path, int]:
    """A sweep whose run works until it is asked to stop: its process, the run's folder and the run's process."""
    (cell,) = fake_cells(seed)
    folder = work / "runs" / cell.place
    process = sweep_process(work, f"{seed},0")
    until(lambda: (folder / runs.RECORD).exists())
    return process, folder, starts(work, cell)[0]


def test_cells_are_every_combination_once_and_seed_by_seed() -> None:
    methods = ["ours", "soft_teacher", "ours+gbr+gbt", "soft-teacher"]
    cells = cells_of(methods, ["toy"], split_seeds=(0, 1), seeds=(2, 0))
    assert [(cell.split_seed, cell.seed, cell.row) for cell in cells[:4]] == [
        (0, 2, "ours"), (0, 2, "soft-teacher"), (0, 2, "ours+gbr+gbt"), (0, 0, "ours")
    ]  # fmt: skip
    assert len(cells) == 12
    assert (cells[2].method, cells[2].variant, cells[2].preset) == ("ours", "gbr+gbt", "mini")
    assert cells[2].place == Path("toy/split0/ours+gbr+gbt/mini-default/seed2")


def test_a_cell_is_run_by_the_command_that_a_user_would_give() -> None:
    (cell,) = cells_of(["ours+crs"], ["toy"], seeds=(4,), preset_name="smoke", changes=("theta=0.8",))
    assert " ".join(cell.words()) == (
        "run --method ours --task toy --preset smoke --variant crs --profile default --split-seed 0 --seed 4 "
        "--set theta=0.8"
    )
    assert cell.settings["theta"] == 0.8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ["oours"]}, "There is no method 'oours'. Did you mean 'ours'"),
        ({"methods": ["ours+grb"]}, "There is no variant of ours 'grb'"),
        ({"methods": ["soft-teacher+gbr"]}, "There is no variant of soft-teacher 'gbr'"),
        ({"tasks": ["toi"]}, "There is no task 'toi'"),
        ({"preset_name": "huge"}, "There is no preset 'huge'"),
        ({"profile": "mine"}, "There is no profile 'mine'"),
        ({"changes": ("tetha=1",)}, "There is no setting 'tetha'"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_before_anything_runs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageFault, match=message):
        cells_of(**{"methods": ["ours"], "tasks": ["toy"], **fields})


def test_a_queue_runs_what_is_not_done_notes_what_fails_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    cells = fake_cells(0, 1, 2, 4)
    runs.write_record(tmp_path / "runs" / cells[0].place, record_of(cells[0]))
    seen = fake_sweep(tmp_path, cells, say=said.append).run()
    assert [seen[cell].state for cell in cells] == ["done", "failed", "failed", "done"]
    assert [len(starts(tmp_path, cell)) for cell in cells] == [0, 1, 1, 1]
    assert seen[cells[1]].note == "exit code 1: the box is too large\n  -> draw the split again"
    assert seen[cells[2]].note == "killed by SIGKILL: it said nothing"
    assert seen[cells[3]].scores() == {"all": 12.5, "min": None}
    assert said[0].startswith("4 cells: 1 need nothing, 3 left, about")
    assert any(line.startswith("[4/4] soft-teacher on toy, split seed 0, seed 4: starts") for line in said)
    assert any("done in" in line and "all 12.5, min -; 0 left" in line for line in said)


def test_a_failed_cell_keeps_its_message_and_is_tried_again_by_the_next_sweep(tmp_path: Path) -> None:
    (cell,) = fake_cells(1)
    folder = tmp_path / "runs" / cell.place
    for number in (1, 2):
        assert fake_sweep(tmp_path, [cell]).run()[cell].state == "failed"
        assert len(starts(tmp_path, cell)) == number
        assert json.loads((folder / FAILURE).read_text())["exit_code"] == 1
        assert Folders(tmp_path).look(cell).note.startswith("exit code 1: the box is too large")
    mended = fake_sweep(tmp_path, [cell], command=lambda _: [sys.executable, "-c", "raise SystemExit(5)"])
    mended.run()
    assert not (folder / FAILURE).exists()


def test_the_states_of_the_matrix(tmp_path: Path) -> None:
    folders, cells = Folders(tmp_path), fake_cells(0, 1, 2, 3, 4)
    places = [folders.run(cell) for cell in cells]
    for status, place, cell in zip(("done", "running", "interrupted", "failed"), places, cells, strict=False):
        runs.write_record(place, record_of(cell, status=status))
    (places[2] / runs.LOG).write_text('{"iteration": 3}\n{"iteration": 7}\n{"itera')
    assert [folders.look(cell).state for cell in cells] == ["done", "interrupted", "interrupted", "failed", "waiting"]
    assert folders.look(cells[2]).note == "7/20"
    assert not places[4].exists()
    for number, lock in ((1, RUN_LOCK), (2, CLAIM)):
        with FileLock(places[number] / lock):
            assert folders.look(cells[number]).state == "running"
        assert folders.look(cells[number]).state == "interrupted"


def test_a_claim_is_one_sweeps_alone_and_free_after_its_death(tmp_path: Path) -> None:
    with claimed(tmp_path) as first, claimed(tmp_path) as second:
        assert (first, second) == (True, False)
        assert worked_on(tmp_path)
    assert not worked_on(tmp_path)
    code = f"""
import sys
from pathlib import Path
from cissod_bench.sweeping.claims import claimed
with claimed(Path({str(tmp_path)!r})):
    print("mine", flush=True)
    sys.stdin.read()
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        assert worked_on(tmp_path)
        other.kill()
    assert not worked_on(tmp_path)


def test_two_sweeps_share_a_queue_and_run_every_cell_once(tmp_path: Path) -> None:
    both = [sweep_process(tmp_path, "0,4,8,12,16,20", 0.3) for _ in range(2)]
    texts = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], texts
    cells = fake_cells(0, 4, 8, 12, 16, 20)
    assert [len(starts(tmp_path, cell)) for cell in cells] == [1] * 6
    assert [Folders(tmp_path).look(cell).state for cell in cells] == ["done"] * 6
    assert sum(text.count(": starts") for text in texts) == 6
    assert all("seed 20" in text or "looking at them again" in text for text in texts)


def test_a_cell_that_a_run_works_on_is_passed_over_and_looked_at_again(tmp_path: Path) -> None:
    cells = fake_cells(0, 4)
    folder = tmp_path / "runs" / cells[0].place
    folder.mkdir(parents=True)
    lock = FileLock(folder / RUN_LOCK)
    lock.acquire()

    def say(line: str) -> None:
        if "Other processes are at work on 1" in line:  # the run by hand ends meanwhile
            runs.write_record(folder, record_of(cells[0]))
            lock.release()

    seen = fake_sweep(tmp_path, cells, say=say).run()
    assert [one.state for one in seen.values()] == ["done", "done"]
    assert [len(starts(tmp_path, cell)) for cell in cells] == [0, 1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 5), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_stopped_sweep_lets_its_run_write_a_checkpoint(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process, folder, _ = begun(tmp_path)
    os.killpg(process.pid, number)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == code, text
    assert "the run writes a checkpoint first" in text
    assert runs.read_record(folder).status == "interrupted"
    assert starts(tmp_path, fake_cells(0)[0]) == []


def test_a_run_does_not_outlive_a_sweep_that_was_killed(tmp_path: Path) -> None:
    process, folder, child = begun(tmp_path)
    os.kill(child, 0)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: runs.read_record(folder).status == "interrupted")
    until(lambda: not worked_on(folder))
    assert starts(tmp_path, fake_cells(3)[0]) == [child]


def test_a_second_ctrl_c_kills_a_run_that_does_not_answer(tmp_path: Path) -> None:
    process, folder, child = begun(tmp_path)
    os.kill(child, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.6)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert runs.read_record(folder).status == "running"


def test_an_orphan_that_does_not_stop_is_ended() -> None:
    code = """
import signal, time
from cissod_bench import signals
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signals.GRACE = 0.1
signals.follow_parent()
print("works", flush=True)
time.sleep(60)
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "works\n"
        child.stdin.close()
        assert child.wait(timeout=30) == -signal.SIGKILL


def test_finished_records_kept_elsewhere_count_and_new_ones_are_added(tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    cells = fake_cells(0, 4, 8)
    runs.write_record(results / cells[0].place, record_of(cells[0]))
    runs.write_record(work / "runs" / cells[1].place, record_of(cells[1]))
    (work / "runs" / cells[1].place / "pseudo_labels.jsonl").write_text("{}\n")
    seen = fake_sweep(work, cells, results=results).run()
    assert {one.state for one in seen.values()} == {"done"}
    assert [len(starts(work, cell)) for cell in cells] == [0, 0, 1]
    assert not (work / "runs" / cells[0].place).exists()
    files = [sorted(path.name for path in (results / cell.place).iterdir()) for cell in cells]
    assert files == [[runs.RECORD], ["pseudo_labels.jsonl", runs.RECORD], [runs.RECORD]]
    again = fake_sweep(tmp_path / "other", cells, results=results).run()
    assert {one.state for one in again.values()} == {"done"}
    assert not (tmp_path / "other").exists()


def _other_settings(cell: Cell, **changes: Any) -> dict[str, Any]:
    return {"settings": {**cell.settings, **changes}}


def test_a_kept_record_of_another_run_is_neither_counted_nor_replaced(tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    cells = fake_cells(0, 1, 2, 3, 4)
    manifest = work / "splits" / "toy" / "seed0" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"split_sha256": record_of(cells[0]).split_sha256}))
    changes = [_other_settings(cells[0], theta=0.5), {"method": "ours"}, {"split_sha256": "0" * 64}]
    changes += [_other_settings(cells[3], workers=7)]  # which changes no number
    for cell, own in zip(cells, changes, strict=False):
        runs.write_record(results / cell.place, record_of(cell, **own))
    (results / cells[4].place).mkdir(parents=True)
    (results / cells[4].place / runs.RECORD).write_text("{")
    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    seen = fake_sweep(work, cells, results=results).run()
    assert [one.state for one in seen.values()] == ["failed", "failed", "failed", "done", "failed"]
    expected = ["other settings (theta)", "method 'ours'", "another draw of the split", "", "not a run record"]
    notes = [one.note for one in seen.values()]
    assert [words in note for words, note in zip(expected, notes, strict=True)] == [True] * 5, notes
    assert [starts(work, cell) for cell in cells] == [[]] * 5
    assert {path: path.read_bytes() for path in results.rglob("*.json")} == before


def test_the_message_of_a_failed_run_is_its_last_error(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text("Error: old\nfine\nError: new\n  -> do this\n")
    assert message_of(tmp_path / OUTPUT) == "new\n  -> do this"
    (tmp_path / OUTPUT).write_text("\n".join(f"line {number}" for number in range(9)))
    assert message_of(tmp_path / OUTPUT) == "\n".join(f"line {number}" for number in range(4, 9))
    assert message_of(tmp_path / "missing") == ""


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (600, "10 min"), (5400, "1 h 30 min")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def words_of(root: Path, work: Path, *more: object) -> list[object]:
    task = ("--task", root / "tiny.toml", "--preset", "smoke", "--data-root", root, "--work-dir", work)
    return [*task, *more]


def test_status_prints_the_matrix_and_runs_nothing(
    tiny_coco: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    words = words_of(tiny_coco, tmp_path / "work", "--method", "ours", "--method", "ours+gbr", "--seed", "0-1")
    cells = json.loads(call("sweep", *words, "--status", "--json").out)
    assert [(cell["variant"], cell["seed"], cell["state"]) for cell in cells] == [
        ("", 0, "waiting"), ("gbr", 0, "waiting"), ("", 1, "waiting"), ("gbr", 1, "waiting")
    ]  # fmt: skip
    assert not (tmp_path / "work").exists()
    own = {name: cells[1][name] for name in IDENTITY}
    (cell,) = fake_cells(0)
    runs.write_record(Path(cells[1]["dir"]), record_of(cell, **own, settings={}))
    shown = call("sweep", *words, "--status")
    assert (shown.code, shown.err) == (0, "")
    assert "done 12.5 / -" in next(line for line in shown.out.splitlines() if "ours+gbr" in line)
    assert shown.out.count("waiting") == 3
    assert json.loads(call("sweep", *words, "--status", "--json").out)[1]["ap"] == {"all": 12.5, "min": None}


def test_a_run_that_cannot_begin_is_a_failed_cell_and_exit_code_1(tmp_path: Path, call: Callable[..., Called]) -> None:
    words = ("--task", "coco-split1", "--data-root", tmp_path / "nowhere", "--work-dir", tmp_path / "work")
    shown = call("sweep", *words, "--method", "soft-teacher")
    assert shown.code == 1
    assert "failed, exit code 3: The folder of the train images is missing" in shown.out
    assert "1 of 1 cells failed, the first is soft-teacher on coco-split1, split seed 0, seed 0" in shown.err
    assert "failed" in call("sweep", *words, "--method", "soft-teacher", "--status").out


def test_a_tracker_that_is_not_installed_ends_a_sweep_before_its_first_cell(
    tiny_coco: Path, tmp_path: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    words = words_of(tiny_coco, tmp_path / "work", "--method", "ours", "--seed", "0-1", "--set", "tracker=wandb")
    shown = call("sweep", *words)
    assert (shown.code, shown.out) == (4, "")
    assert "The tracker wandb needs the package wandb, which is not installed." in shown.err
    assert not (tmp_path / "work").exists()
    assert call("sweep", *words, "--status").code == 0


@pytest.mark.parametrize(("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("2-2", [2])])
def test_seeds_are_numbers_or_ranges(
    text: str, seeds: list[int], tiny_coco: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    shown = call("sweep", *words_of(tiny_coco, tmp_path), "--method", "ours", "--seed", text, "--status", "--json")
    assert [cell["seed"] for cell in json.loads(shown.out)] == seeds


@pytest.mark.parametrize("text", ["-1", "2-1", "a", "1-", "-", "", "0-9223372036854775808", "0-99999999999", "²"])
def test_seeds_that_are_neither_are_refused(text: str, tmp_path: Path, call: Callable[..., Called]) -> None:
    shown = call("sweep", "--task", "toy", "--method", "ours", "--work-dir", tmp_path, f"--seed={text}", "--status")
    assert shown.code == 2
    assert "--seed" in shown.err


def numbers_of(log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def _lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_sweep_that_is_killed_and_stopped_ends_as_if_it_had_not_been(tiny_coco: Path, tmp_path: Path) -> None:
    from tiny import CHANGES

    sets = (*CHANGES, "iterations=16", "generations=4", "checkpoint_every=4")
    changes = ["--name", "tiny", *(word for change in sets for word in ("--set", change))]
    place = Path("runs/tiny/split0/ours/smoke-default+tiny/seed1")

    def begin(command: str, work: str, *more: str) -> subprocess.Popen[str]:
        words = words_of(tiny_coco, tmp_path / work, "--method", "ours", "--seed", "1", *changes, *more)
        arguments = [sys.executable, "-m", "cissod_bench", command, *map(str, words)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    straight = begin("run", "a")
    assert straight.wait(timeout=300) == 0
    log = tmp_path / "b" / place / runs.LOG
    for number, (signal_sent, code) in enumerate(((signal.SIGKILL, -9), (signal.SIGTERM, 5))):
        sweep, before = begin("sweep", "b"), _lines(log)
        until(lambda wanted=before + 3: _lines(log) >= wanted, 240)  # type: ignore[misc]
        sweep.send_signal(signal_sent)
        errors = sweep.communicate(timeout=120)[1]
        assert sweep.returncode == code, (number, errors)
        until(lambda: not worked_on(tmp_path / "b" / place), 120)
        assert runs.read_record(tmp_path / "b" / place).status == "interrupted"
    last = begin("sweep", "b", "--results", str(tmp_path / "kept"))
    text, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert "continues" in text
    one, other = (runs.read_record(tmp_path / work / place) for work in "ab")
    assert (other.status, other.ap, other.per_class) == ("done", one.ap, one.per_class)
    assert numbers_of(tmp_path / "a" / place / runs.LOG) == numbers_of(log)
    files = [(tmp_path / work / place / runs.PREDICTIONS).read_bytes() for work in "ab"]
    assert files[0] == files[1]
    assert other.command[:2] == ["cissod-bench", "run"]
    assert str(tmp_path / "b") not in " ".join(other.command)
    assert runs.read_record(tmp_path / "kept" / place.relative_to("runs")) == other
