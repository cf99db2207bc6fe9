"""A task in a Python file of its own, and a task file whose classes are divided by frequency."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called

from cissod_bench.catalogue.task_files import find_task
from cissod_bench.errors import UsageFault
from cissod_bench.split_folders.ensure import draw_options
from cissod_bench.split_folders.listing import find_split

Call = Callable[..., Called]

PYTHON = """from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Task

TASK = Task(
    title="Tiny from Python",
    source="here",
    inputs={"train": "tiny/annotations/train.json", "val": "tiny/annotations/val.json"},
    images={"train": "tiny/images/train", "val": "tiny/images/val"},
    groups=("maj", "min"),
    draw=draw_by_minority,
    iterations=20,
    minority=("heart", "arrow"),
    draw_defaults={"labelled_percent": 20.0, "min_instances": 3},
)
"""
FREQUENCY = """title = "Tiny long tail"
groups = "frequency"
bounds = [2, 4]
labelled_percent = 20

[train]
annotations = "tiny/annotations/train.json"
images = "tiny/images/train"

[val]
annotations = "tiny/annotations/val.json"
images = "tiny/images/val"
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_python_file_is_a_task_wherever_a_task_is_named(tmp_path: Path, tiny_coco: Path, call: Call) -> None:
    path = put(tmp_path, "my_task.py", PYTHON)
    task = find_task(str(path))
    assert (task.name, task.file, task.title) == ("my-task", str(path), "Tiny from Python")
    work = tmp_path / "work"
    places = ("--data-root", tiny_coco, "--work-dir", work)
    done = call("make-splits", "--task", path, *places)
    assert done.code == 0, done.err
    assert json.loads(call("tasks", path, "--json").out)["name"] == "my-task"
    assert find_split(str(path), 0, work) == work / "splits" / "my-task" / "seed0"
    assert call("data", "check", "--task", path, *places).code == 0
    dry = call("run", "--task", path, "--method", "soft-teacher", "--dry-run", "--no-measure", *places)
    assert dry.code == 0, dry.err
    swept = call("sweep", "--task", path, "--method", "soft-teacher", "--dry-run", "--no-measure", *places)
    assert swept.code == 0, swept.err


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.py", None, "There is no file"),
        ("toy.py", PYTHON, "'toy' is the name of a built-in task"),
        ("a b.py", PYTHON, "becomes a folder"),
        ("mine.py", "METHOD = 3", r"declares no task: it has no top-level TASK = Task\(\.\.\.\)"),
        ("mine.py", "TASK = 3", r"TASK must be a Task \(cissod_bench/splitting/task\.py\)\. Got int"),
        ("mine.py", "\nTASK = 1 / 0", r"mine\.py, line 2: ZeroDivisionError"),
        ("mine.py", "TASK = (", r"mine\.py, line 1: SyntaxError"),
    ],
)
def test_a_wrong_python_file_is_refused_with_its_line(tmp_path: Path, name: str, text: str | None, told: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageFault, match=told) as fault:
        find_task(str(path))
    assert fault.value.remedy


def test_a_long_tail_of_own_data_is_drawn_as_the_second_scenario(tmp_path: Path, tiny_coco: Path, call: Call) -> None:
    """A share of all images with a box, each class at least once, groups by the images of D_l that show it."""
    path = put(tmp_path, "tail.toml", FREQUENCY)
    task = find_task(str(path))
    assert (task.groups, task.frequency_bounds, task.cover) == (("f", "c", "r"), (2, 4), None)
    options = draw_options(task)
    assert (options.labelled_percent, options.min_instances, options.minority) == (20.0, 1, None)
    work = tmp_path / "work"
    done = call("make-splits", "--task", path, "--data-root", tiny_coco, "--work-dir", work, "--json")
    assert done.code == 0, done.err
    (manifest,) = json.loads(done.out)
    assert manifest["counts"]["labelled"] == 8
    images = {name: counts["images"] for name, counts in manifest["per_class"].items()}
    groups = {"f": [n for n, c in images.items() if c > 4], "r": [n for n, c in images.items() if c <= 2]}
    assert {group: manifest["groups"][group] for group in groups} == groups
    assert manifest["below_minimum"] == []
    assert call("splits", "verify", manifest["dir"], "--data-root", tiny_coco).code == 0
    more = call("make-splits", "--task", path, "--data-root", tiny_coco, "--work-dir", tmp_path / "more",
                "--min-instances", 3, "--json")  # fmt: skip
    assert min(counts["boxes"] for counts in json.loads(more.out)[0]["per_class"].values()) >= 3


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ('groups = "frequency"\ncover = "useful"', "cover is of draws by a minority"),
        ('groups = "frequency"\nminority = ["heart"]', "divide the classes in two ways"),
        ('groups = "one"', 'groups must be "minority" or "frequency"'),
        ("", "minority names no class"),
        ('groups = "tail"', "groups: Invalid enum value 'tail'; it must be one of 'minority', 'frequency', 'one'"),
    ],
)
def test_groups_that_contradict_the_draw_are_refused(tmp_path: Path, head: str, told: str) -> None:
    text = FREQUENCY.replace('groups = "frequency"\nbounds = [2, 4]', head)
    with pytest.raises(UsageFault, match=told) as fault:
        find_task(str(put(tmp_path, "tail.toml", text)))
    assert fault.value.remedy
