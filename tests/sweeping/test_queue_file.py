"""A league in one file: its cells in the file's order, what is wrong with it, and how several workers end it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fake_runs
import pytest
from commands import Called
from fake_runs import fake_cells, fake_sweep, record_of, starts
from filelock import FileLock

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.records import run_folder as runs
from cissod_bench.splitting.manifest import read_manifest
from cissod_bench.sweeping.cells import FAILURE, Cell, Seen, cells_of
from cissod_bench.sweeping.claims import CLAIM
from cissod_bench.sweeping.estimate import Estimate, estimate
from cissod_bench.sweeping.queue_file import Queue, read_queue

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "league.toml"


def queue_of(folder: Path, *tables: str) -> Queue:
    file = folder / "league.toml"
    file.write_text("# a league\n" + "".join(f"\n[[rows]]\n{table}\n" for table in tables))
    return read_queue(file)


def test_cells_stand_in_the_order_of_the_file_each_once(tmp_path: Path) -> None:
    queue = queue_of(
        tmp_path,
        'label = "main"\ntask = "toy"\nmethods = ["ours", "soft-teacher"]\nseeds = "0-1"',
        'label = "parts"\ntask = "toy"\nmethods = ["ours+gbr", "ours"]\npreset = "mini"\nsplit_seeds = [0, 2]',
    )
    names = [(cell.row, cell.split_seed, cell.seed) for cell in queue.cells]
    main = [("ours", 0, 0), ("soft-teacher", 0, 0), ("ours", 0, 1), ("soft-teacher", 0, 1)]
    assert names == [*main, ("ours+gbr", 0, 0), ("ours+gbr", 2, 0), ("ours", 2, 0)]
    assert [queue.labels[cell] for cell in queue.cells] == ["main"] * 4 + ["parts"] * 3
    assert queue.percents == {}


def test_rows_with_other_settings_or_names_are_other_runs(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, OURS, OURS + "settings = { theta = 0.8 }", OURS + 'name = "x"')
    scales = [cell.place.parts[-2] for cell in queue.cells if cell.seed == queue.cells[0].seed]
    assert sorted(scales) == ["mini-default", "mini-default+theta=0.8", "mini-default+x"]


def test_settings_have_the_types_of_toml_and_a_draw_its_share(tmp_path: Path) -> None:
    table = 'task = "toy"\nmethods = ["ours"]\nunlabelled_percent = 25\n'
    queue = queue_of(tmp_path, table + "settings = { theta = 0.8, strides = [4, 8, 16, 32, 64], lr = 1 }")
    (cell,) = queue.cells
    assert cell.changes == ("theta=0.8", "strides=4,8,16,32,64", "lr=1")
    assert (cell.settings["strides"], cell.settings["lr"]) == ([4, 8, 16, 32, 64], 1.0)
    assert queue.percents == {("toy", 0): 25.0}


def test_the_example_is_a_queue_file() -> None:
    assert {cell.task for cell in read_queue(EXAMPLE).cells} == {"toy"}


OURS = 'task = "toy"\nmethods = ["ours"]\n'


def two_of_a_name(folder: Path, name: str, text: str) -> list[Path]:
    """Two files of one name in folders of their own."""
    files = [folder / place / name for place in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text(text)
    return files


METHOD_FILE = (
    "from cissod_bench.contract.method import Method\n"
    'METHOD = Method(title="New", source="A test.", citation="An example.")\n'
)
TASK_FILE = """
title = "Mine"
train = { annotations = "train.json", images = "train" }
val = { annotations = "val.json", images = "val" }
minority = ["cat"]
"""


@pytest.mark.parametrize(("name", "text"), [("new.py", METHOD_FILE), ("mine.toml", TASK_FILE)])
def test_two_files_of_one_name_are_refused_and_none_is_left_out_in_silence(
    name: str, text: str, tmp_path: Path
) -> None:
    files = list(map(str, two_of_a_name(tmp_path, name, text)))
    methods, tasks = (files, ["toy"]) if name.endswith(".py") else (["ours"], files)
    with pytest.raises(UsageFault, match=f"{files[0]} and {files[1]} have the same name"):
        cells_of(methods, tasks)
    rows = [f'task = "{task}"\nmethods = ["{method}"]' for task in tasks for method in methods]
    with pytest.raises(UsageFault, match="has another file or other settings than in rows 1"):
        queue_of(tmp_path, *rows)


@pytest.mark.parametrize(("name", "text"), [("new.py", METHOD_FILE), ("mine.toml", TASK_FILE)])
def test_one_file_may_be_named_in_two_ways(name: str, text: str, tmp_path: Path) -> None:
    file = str(two_of_a_name(tmp_path, name, text)[0])
    other = str(tmp_path / "b" / ".." / "a" / name)
    methods, tasks = ([file, other], ["toy"]) if name.endswith(".py") else (["ours"], [file, other])
    assert len(cells_of(methods, tasks)) == 1
    rows = [f'task = "{task}"\nmethods = ["{method}"]' for task in tasks for method in methods]
    assert len(queue_of(tmp_path, *rows).cells) == 1
    if name.endswith(".toml"):
        with pytest.raises(UsageFault, match="unlabelled_percent is 25 here and the task's own in rows 1"):
            queue_of(tmp_path, rows[0], rows[1] + "\nunlabelled_percent = 25")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ((OURS, 'task = "toi"\nmethods = ["ours"]'), "rows 2 (line 8): There is no task 'toi'"),
        (('task = "toy"\nmethods = ["ours+grb"]',), "rows 1 (line 3): There is no variant of ours 'grb'"),
        (('task = "toy"\nmethod = ["ours"]',), "there is no key 'method'. Known: task, methods"),
        (('task = "toy"',), "Object missing required field `methods`"),
        (('task = "toy"\nmethods = []',), "methods: Expected `array` of length >= 1"),
        ((OURS + "seeds = 3",), "seeds: Expected `str | array`"),
        ((OURS + 'seeds = "2-1"',), "seeds must be a list of numbers in [0, 2^63) or a range. Got '2-1'"),
        ((OURS + "split_seeds = [-1]",), "split_seeds must be a list of numbers"),
        ((OURS + 'seeds = "0-999999999"',), "which holds 1,000,000,000 seeds, and a range may hold 10,000"),
        ((OURS + "seeds = []",), "which is empty"),
        ((OURS + 'preset = "huge"',), "There is no preset 'huge'"),
        ((OURS + "settings = { tetha = 1 }",), "There is no setting 'tetha'. Did you mean 'theta'"),
        ((OURS + 'settings = { theta = "0.8" }',), "settings.theta must be in [0, 1]. Got '0.8'"),
        ((OURS + "settings = { theta = 8 }",), "Setting 'theta' must be in [0, 1]. Got 8.0"),
        ((OURS + "settings = { iterations = true }",), "settings.iterations must be at least 1. Got True"),
        ((OURS + "settings = { strides = 4 }",), "settings.strides must be a list, each"),
        ((OURS + "unlabelled_percent = 0",), "unlabelled_percent: Expected `float` > 0.0"),
        ((OURS, OURS + "unlabelled_percent = 25"), "is 25 here and the task's own in rows 1 (line 3)"),
        (
            (OURS + 'name = "x"', OURS + 'name = "x"\nsettings = { theta = 0.8 }'),
            "other settings than in rows 1 (line 3)",
        ),
        (("task = ",), "is no TOML"),
        ((), "holds no table [[rows]]"),
    ],
)
def test_a_bad_file_ends_in_one_message_with_its_place(tables: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageFault) as told:
        queue_of(tmp_path, *tables)
    assert message in str(told.value)
    assert str(tmp_path / "league.toml") in str(told.value)
    assert told.value.remedy


def test_keys_outside_of_the_rows_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "q.toml").write_text(f"seeds = [1]\n[[rows]]\n{OURS}")
    with pytest.raises(UsageFault, match="'seeds' stands outside of the tables"):
        read_queue(tmp_path / "q.toml")
    with pytest.raises(UsageFault, match="cannot be read: No such file"):
        read_queue(tmp_path / "none.toml")


def test_a_worker_ends_when_others_work_on_all_that_is_left(tmp_path: Path) -> None:
    cells, said = fake_cells(0, 4), list[str]()
    folder = tmp_path / "runs" / cells[0].place
    folder.mkdir(parents=True)
    with FileLock(folder / CLAIM):
        seen = fake_sweep(tmp_path, cells, waits=False, say=said.append).run()
    assert [seen[cell].state for cell in cells] == ["running", "done"]
    assert said[-1] == "Other processes are at work on 1 of the cells; nothing is left to do here"


def test_a_worker_takes_over_a_cell_that_is_free_again(tmp_path: Path) -> None:
    cells = fake_cells(0, 4)
    folder = tmp_path / "runs" / cells[0].place
    folder.mkdir(parents=True)
    lock = FileLock(folder / CLAIM)
    lock.acquire()

    def say(line: str) -> None:
        if "looking at them again" in line:  # the other worker is killed meanwhile
            lock.release()

    seen = fake_sweep(tmp_path, cells, waits=False, say=say).run()
    assert [seen[cell].state for cell in cells] == ["done", "done"]
    assert [len(starts(tmp_path, cell)) for cell in cells] == [1, 1]


def test_workers_that_are_started_independently_run_every_cell_once_and_end(tmp_path: Path) -> None:
    words = [sys.executable, fake_runs.__file__, "worker", str(tmp_path), "0,4,8,12", "0.3"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert [len(starts(tmp_path, cell)) for cell in fake_cells(0, 4, 8, 12)] == [1] * 4


def test_a_cell_whose_split_cannot_be_drawn_fails_and_the_queue_goes_on(tmp_path: Path) -> None:
    cells = fake_cells(0, 4)

    def prepare(cell: Cell) -> None:
        if cell.seed == 0:
            raise DataFault("The photographs are missing.", remedy="fetch them")

    seen = fake_sweep(tmp_path, cells, prepare=prepare, waits=False).run()
    assert [seen[cell].state for cell in cells] == ["failed", "done"]
    assert seen[cells[0]].note == "before its start: The photographs are missing.\n  -> fetch them"
    assert json.loads((tmp_path / "runs" / cells[0].place / FAILURE).read_text())["exit_code"] == 3
    assert starts(tmp_path, cells[0]) == []


def test_a_failed_cell_is_not_tried_in_a_loop(tmp_path: Path) -> None:
    cells = fake_cells(1, 0)
    seen = fake_sweep(tmp_path, cells, waits=False).run()
    assert [seen[cell].state for cell in cells] == ["failed", "done"]
    assert len(starts(tmp_path, cells[0])) == 1


def test_what_is_left_is_estimated_by_the_methods_own_runs_then_by_the_tasks() -> None:
    ours = cells_of(["ours", "soft-teacher", "rfs"], ["toy"], seeds=(0, 1), preset_name="smoke")
    other = cells_of(["ours"], ["toy-longtail"], preset_name="smoke")
    states = dict.fromkeys([*ours, *other], Seen("waiting"))
    for cell, seconds in zip(ours[:2], (100.0, 40.0), strict=True):
        states[cell] = Seen("done", record_of(cell, timings={"train": seconds - 10, "predict": 10, "split": 99}))
    assert estimate(states) == Estimate(70.0 + 100.0 + 40.0 + 70.0, 2, 1)
    states[ours[3]] = Seen("running", note="15/20")
    assert estimate(states).seconds == 70.0 + 25.0 + 40.0 + 70.0
    states[ours[2]] = Seen("failed", note="other settings", final=True)
    assert estimate(states).seconds == 25.0 + 40.0 + 70.0


def test_a_dry_run_lists_all_cells_with_states_and_runs_none(tmp_path: Path, call: Callable[..., Called]) -> None:
    queue = queue_of(tmp_path, 'label = "main"\npreset = "smoke"\nseeds = "0-3"\n' + OURS)
    places = [tmp_path / "work" / "runs" / cell.place for cell in queue.cells]
    for cell, place, status in zip(queue.cells, places, ("done", "interrupted", "failed"), strict=False):
        runs.write_record(place, record_of(cell, status=status, timings={"train": 60.0}))
    words = ("sweep", "--queue", tmp_path / "league.toml", "--work-dir", tmp_path / "work", "--dry-run")
    shown = call(*words)
    assert (shown.code, shown.err) == (0, "")
    assert "4 cells: 1 done, 1 interrupted, 1 failed, 1 waiting" in shown.out
    assert "Left: about 3 min of one worker, by 1 finished cells" in shown.out
    answer = json.loads(call(*words, "--json").out)
    assert [cell["state"] for cell in answer["cells"]] == ["done", "interrupted", "failed", "waiting"]
    assert (answer["cells"][0]["label"], answer["left_seconds"]) == ("main", 180.0)


def test_a_queue_file_stands_alone(tmp_path: Path, call: Callable[..., Called]) -> None:
    queue_of(tmp_path, OURS)
    shown = call("sweep", "--queue", tmp_path / "league.toml", "--seed", "1", "--dry-run", "--work-dir", tmp_path)
    assert (shown.code, "options for seeds do not go with it" in shown.err) == (2, True)
    shown = call("sweep", "--queue", tmp_path / "league.toml", "--name", "wide", "--dry-run", "--work-dir", tmp_path)
    assert (shown.code, "options for name do not go with it" in shown.err) == (2, True)
    shown = call("sweep", "--method", "ours", "--dry-run", "--work-dir", tmp_path)
    assert (shown.code, "Missing option '--task'" in shown.err) == (2, True)


def test_a_split_that_was_drawn_with_another_share_is_refused_at_once(
    tiny_coco: Path, tmp_path: Path, split: Callable[..., Called], call: Callable[..., Called]
) -> None:
    assert split("--unlabelled-percent", "50").code == 0
    table = f'task = "{tiny_coco / "tiny.toml"}"\nmethods = ["ours"]\npreset = "smoke"\nunlabelled_percent = 25'
    queue_of(tmp_path, table)
    words = ("--queue", tmp_path / "league.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    shown = call("sweep", *words)
    assert shown.code == 2
    assert "holds a split with unlabelled_percent 50" in shown.err
    assert "make-splits --force" in shown.err
    assert not (tmp_path / "work" / "runs").exists()


@pytest.mark.slow
def test_a_league_of_one_cell_is_drawn_run_and_found_done(
    tiny_coco: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    table = f'task = "{tiny_coco / "tiny.toml"}"\nmethods = ["supervised"]\npreset = "smoke"\nunlabelled_percent = 50\n'
    settings = {"iterations": 2, "generations": 1, "warmup_iterations": 0, "labelled_per_gpu": 2, "workers": 0}
    queue_of(
        tmp_path, table + "settings = { " + ", ".join(f"{key} = {value}" for key, value in settings.items()) + " }"
    )
    words = ("sweep", "--queue", tmp_path / "league.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    shown = call(*words)
    assert shown.code == 0, shown.out + shown.err
    (cell,) = json.loads(call(*words, "--json").out)
    assert cell["state"] == "done"
    manifest = read_manifest(tmp_path / "work" / "splits" / "tiny" / "seed0")
    assert manifest.held("unlabelled_percent") == {"unlabelled_percent": 50.0}
