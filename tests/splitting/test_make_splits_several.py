"""``make-splits`` for several tasks: what is there is drawn, what is missing is told, a fault of one stops no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cissod_bench.catalogue import list_tasks, load_task
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.cli import make_splits
from cissod_bench.cli.common import Output
from cissod_bench.splitting.toy_images import write_shapes

Call = Callable[..., Any]


@pytest.fixture
def draw(call: Call, tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that draws every task of a catalogue of three: a sound one, a broken one, one without files."""
    weights = {"circle": 2.0, "square": 1.5, "triangle": 1.0, "heart": 1.0, "arrow": 0.8}
    write_shapes(tiny_coco / "tiny2", {"train": 40, "val": 10}, weights, seed=8, most=4)
    text = (tiny_coco / "tiny.toml").read_text(encoding="utf-8")
    (tiny_coco / "tiny2.toml").write_text(text.replace("tiny/", "tiny2/"), encoding="utf-8")
    path = tiny_coco / "tiny2/annotations/train.json"
    path.write_bytes(path.read_bytes()[:-50])
    known = {name: find_task(str(tiny_coco / f"{name}.toml")) for name in ("tiny2", "tiny")}
    known["lvis"] = load_task("lvis")
    monkeypatch.setattr("cissod_bench.catalogue.list_tasks", lambda: known)
    monkeypatch.setattr("cissod_bench.catalogue.load_task", known.__getitem__)

    def run(*options: object) -> Any:
        return call("make-splits", "--data-root", tiny_coco, "--work-dir", tmp_path / "work", *options)

    return run


def test_a_broken_task_is_told_at_the_end_and_the_others_are_drawn(draw: Call, tmp_path: Path, tiny_coco: Path) -> None:
    done = draw("--split-seed", 0, "--split-seed", 1, "--json")
    assert done.code == 3
    assert [(one["task"], one["split_seed"]) for one in json.loads(done.out)] == [("tiny", 0), ("tiny", 1)]
    assert "2 of 4 splits could not be drawn:" in done.err
    broken = tiny_coco / "tiny2/annotations/train.json"
    for seed in (0, 1):
        assert f"tiny2, split seed {seed}: {broken} is cut off at byte" in done.err
    assert "lvis is left out; these files are missing" in done.err
    assert "lvis_v1_train.json: https://www.lvisdataset.org" in done.err
    there = sorted(path.name for path in (tmp_path / "work/splits").iterdir() if not path.name.startswith("."))
    assert [name for name in there if (tmp_path / "work/splits" / name / "seed0").exists()] == ["tiny"]
    assert sorted(path.name for path in (tmp_path / "work/splits/tiny2").iterdir()) == [".seed0.lock", ".seed1.lock"]


def test_the_worst_fault_decides_the_exit_code(draw: Call, tiny_coco: Path) -> None:
    names = tiny_coco / "names.txt"
    names.write_text("pentagon\n", encoding="utf-8")
    done = draw("--minority", names)
    assert done.code == 3
    assert "tiny, split seed 0: There is no class 'pentagon'" in done.err
    assert "2 of 2 splits could not be drawn" in done.err
    assert done.out.count("D_l") == 0


def test_one_split_alone_tells_its_own_fault(call: Call, tiny_coco: Path, tmp_path: Path) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    path.write_bytes(path.read_bytes()[:-50])
    where = ("--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    done = call("make-splits", "--task", tiny_coco / "tiny.toml", *where, "--json")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[-2].startswith(f"Error: {path} is cut off")
    assert "could not be drawn" not in done.err


def test_without_data_the_toy_tasks_are_drawn_and_the_others_say_what_they_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = make_splits._available(Output(), tmp_path / "none")
    assert {task.name for task in tasks} == {name for name in list_tasks() if load_task(name).is_toy}
    told = capsys.readouterr().err
    for name in ("coco-split1", "coco-split2", "coco-o365", "lvis"):
        assert f"{name} is left out; these files are missing:" in told
        for path in load_task(name).inputs.values():
            assert f"  {tmp_path / 'none' / path}: http" in told
