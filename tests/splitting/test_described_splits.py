"""A split that is not what its task describes now is refused by run, sweep, evaluate and make-splits."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from split_folders import content, data_bytes, folder, made_manifest

from cissod_bench.catalogue import list_tasks, load_task
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.split_folders.ensure import draw_options
from cissod_bench.splitting.manifest import read_manifest
from cissod_bench.splitting.statements import changed, stated
from cissod_bench.splitting.task import Task

Call = Callable[..., Any]
Places = tuple[object, ...]
METHOD = ("--method", "soft-teacher", "--preset", "smoke")


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / "tiny.toml").read_text(encoding="utf-8")
        assert old in text
        (root / "tiny.toml").write_text(text.replace(old, new), encoding="utf-8")

    return change


def added(line: str) -> Callable[[Path], None]:
    return replaced("title =", f"{line}\ntitle =")


def other_content(role: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / f"tiny/annotations/{role}.json"
        path.write_bytes(path.read_bytes() + b"\n")

    return change


def moved(root: Path) -> None:
    (root / "tiny/annotations/train.json").rename(root / "tiny/annotations/moved.json")
    replaced("annotations/train.json", "annotations/moved.json")(root)


def other_images(root: Path) -> None:
    (root / "tiny/images/train").rename(root / "tiny/images/others")
    replaced("images/train", "images/others")(root)


CHANGES: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "percent": (replaced("= 20\nmin", "= 30\nmin"), "labelled_percent was 20.0 and is 30.0", 2),
    "minimum": (replaced("min_instances = 3", "min_instances = 2"), "min_instances was 3 and is 2", 2),
    "cover": (added('cover = "uniform"'), "cover was 'useful' and is 'uniform'", 2),
    "dm minority": (added('dm_minority = "ignore"'), "dm_minority was 'drop' and is 'ignore'", 2),
    "minority": (
        replaced('["heart", "arrow"]', '["heart", "circle"]'),
        "minority has lost 'arrow' and has got 'circ",
        2,
    ),
    "fewer": (replaced('["heart", "arrow"]', '["arrow"]'), "minority has lost 'heart'", 2),
    "folder": (other_images, "images of train was 'tiny/images/train' and is 'tiny/images/others'", 2),
    "file": (moved, "inputs of train was 'tiny/annotations/train.json' and is 'tiny/annotations/moved.json'", 2),
    "train": (other_content("train"), "it was drawn from another", 3),
    "val": (other_content("val"), "it was drawn from another", 3),
}
KEPT: dict[str, Callable[[Path], None]] = {
    "title": replaced("Tiny shapes", "Small shapes"),
    "order": replaced('["heart", "arrow"]', '["arrow", "heart"]'),
    "slashes": replaced("tiny/images/val", "./tiny//images/val"),
    "number": replaced("= 20\nmin", "= 20.0\nmin"),
    "default": added('dm_minority = "drop"'),
    "settings": replaced("iterations = 20", "iterations = 30"),
}


@pytest.fixture
def places(tiny_coco: Path, tmp_path: Path) -> Places:
    return ("--data-root", tiny_coco, "--work-dir", tmp_path / "work")


@pytest.fixture
def users(call: Call, tiny_coco: Path, tmp_path: Path, places: Places) -> dict[str, Callable[..., Any]]:
    """Every command that uses a split as the task's, by name; none of them trains."""
    task = ("--task", tiny_coco / "tiny.toml")
    found = tmp_path / "found.json"
    found.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]))
    return {
        "run": lambda *more: call("run", *METHOD, *task, "--dry-run", "--no-measure", *places, *more),
        "sweep": lambda *more: call("sweep", *METHOD, *task, *places, *more),
        "evaluate": lambda *more: call("evaluate", "--split", folder(tmp_path), "--predictions", found, *places, *more),
        "make-splits": lambda *more: call("make-splits", *task, *places, *more),
    }


@pytest.mark.parametrize("name", CHANGES)
def test_a_task_that_was_changed_is_refused_with_what_differs_and_a_command_that_mends_it(
    split: Call, call: Call, users: dict[str, Call], tiny_coco: Path, tmp_path: Path, name: str
) -> None:
    assert split().code == 0
    change, message, code = CHANGES[name]
    change(tiny_coco)
    remedies = set()
    for use in users.values():
        for quiet in ((), ("-q",)):
            done = use(*quiet)
            if name == "val" and use is users["evaluate"]:
                assert "--ground-truth" in done.err
                assert done.code == 3
                continue
            assert done.code == code, (done.out, done.err)
            assert f"{folder(tmp_path)} is not the split that {tiny_coco / 'tiny.toml'} describes now: " in done.err
            assert message in done.err
            remedies |= set(re.findall(r"make the split again: (.*)", done.err))
    assert not (tmp_path / "work/runs").exists()
    (remedy,) = remedies
    words = shlex.split(remedy)
    assert words[:2] == ["cissod-bench", "make-splits"]
    mended = call(*words[1:])
    assert mended.code == 0, mended.err
    for used in ("run", "evaluate", "make-splits"):
        assert users[used]().code == 0


@pytest.mark.parametrize("name", KEPT)
def test_what_changes_neither_split_nor_scores_is_no_change(
    split: Call, users: dict[str, Call], tiny_coco: Path, name: str
) -> None:
    assert split().code == 0
    KEPT[name](tiny_coco)
    for used in ("run", "evaluate", "make-splits"):
        done = users[used]()
        assert done.code == 0, done.err


def test_all_that_differs_is_told_at_once(split: Call, users: dict[str, Call], tiny_coco: Path) -> None:
    split()
    for name in ("percent", "cover", "minority", "train", "val"):
        CHANGES[name][0](tiny_coco)
    done = users["run"]("-q")
    assert done.code == 3
    for name in ("percent", "cover", "minority"):
        assert CHANGES[name][1] in done.err
    for role in ("train", "val"):
        assert f"it was drawn from another {tiny_coco / f'tiny/annotations/{role}.json'}" in done.err


def test_a_split_that_runs_need_is_left_alone_by_the_first_command_of_the_remedy(
    split: Call, call: Call, users: dict[str, Call], tiny_coco: Path, tmp_path: Path
) -> None:
    split()
    (tmp_path / "work/runs/tiny/split0").mkdir(parents=True)
    before = data_bytes(folder(tmp_path))
    CHANGES["percent"][0](tiny_coco)
    done = users["run"]()
    assert done.code == 2
    (remedy,) = re.findall(r"which its runs need: (.*)", done.err)
    assert "--force" not in remedy
    assert call(*shlex.split(remedy)[1:]).code == 0
    assert data_bytes(folder(tmp_path)) == before
    assert data_bytes(folder(tmp_path, work="work-new")) != before


def test_options_that_the_user_chose_are_the_tasks_no_longer_and_said_by_run(
    split: Call, users: dict[str, Call], tiny_coco: Path, tmp_path: Path
) -> None:
    assert split("--labelled-percent", "40", "--dm-minority", "ignore").code == 0
    chosen = data_bytes(folder(tmp_path))
    ran = users["run"]()
    assert ran.code == 0, ran.err
    assert "drawn with labelled_percent 40.0 (the task's 20.0), dm_minority ignore (the task's drop)" in ran.out
    assert users["evaluate"]().code == 0
    CHANGES["percent"][0](tiny_coco)
    done = users["run"]()
    assert "labelled_percent was 20.0 and is 30.0" in done.err
    assert "--labelled-percent 40.0 --dm-minority ignore" in done.err  # what was chosen is not lost
    assert split("--labelled-percent", "40", "--dm-minority", "ignore", "--force").code == 0
    assert data_bytes(folder(tmp_path)) == chosen


def test_a_manifest_of_an_older_version_is_compared_by_what_it_holds(
    split: Call, users: dict[str, Call], tiny_coco: Path, tmp_path: Path
) -> None:
    assert split().code == 0
    path = folder(tmp_path) / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in content(path).items() if key != "stated"}))
    assert users["run"]().code == 0
    for name in ("percent", "minimum", "cover", "dm minority", "minority", "folder"):
        before = (tiny_coco / "tiny.toml").read_bytes()
        CHANGES[name][0](tiny_coco)
        done = users["run"]()
        assert done.code == 2
        assert CHANGES[name][1] in done.err
        (tiny_coco / "tiny.toml").write_bytes(before)


def test_an_imported_split_is_not_held_to_options_of_a_draw(
    split: Call, call: Call, users: dict[str, Call], tiny_coco: Path, tmp_path: Path, places: Places
) -> None:
    split(work="theirs")
    files = [(f"--{part}", folder(tmp_path, work="theirs") / f"{part}.json") for part in ("labelled", "unlabelled")]
    assert call("splits", "import", "--task", tiny_coco / "tiny.toml", *files[0], *files[1], *places).code == 0
    CHANGES["percent"][0](tiny_coco)
    assert users["run"]().code == 0
    CHANGES["minority"][0](tiny_coco)
    done = users["run"]()
    assert done.code == 2
    assert CHANGES["minority"][1] in done.err
    assert "cissod-bench splits import --labelled FILE --unlabelled FILE" in done.err


def test_evaluate_finds_the_task_by_name_or_is_told_where_it_is(
    split: Call, users: dict[str, Call], tiny_coco: Path, tmp_path: Path
) -> None:
    split()
    (tiny_coco / "tiny.toml").rename(tmp_path / "tiny.toml")
    done = users["evaluate"]()
    assert done.code == 0
    assert "The task file tiny.toml is neither here nor in" in done.err
    replaced("min_instances = 3", "min_instances = 2")(tmp_path)
    done = users["evaluate"]("--task", tmp_path / "tiny.toml")
    assert done.code == 2
    assert "min_instances was 3 and is 2" in done.err
    assert "is a split of the task 'tiny'; --task names 'toy'" in users["evaluate"]("--task", "toy").err
    assert users["evaluate"]("--ground-truth", tiny_coco / "tiny/annotations/val.json").code == 0


def test_every_field_of_a_task_is_stated_or_known_to_concern_no_split(tiny_coco: Path) -> None:
    task = find_task(str(tiny_coco / "tiny.toml"))
    others: dict[str, Any] = {
        **{"inputs": {}, "images": {}, "groups": ("a",), "metric": "lvis", "max_dets": 1, "score_floor": 0.5},
        **{"minority": ("circle",), "cover": "uniform", "frequency_bounds": (1, 2), "naming": "coco_url"},
        **{"swapped": ("a.jpg",), "absent": ("a.jpg",), "draw_defaults": {"unlabelled_percent": 50.0}},
    }
    apart = {"title", "source", "name", "file", "official", "draw"}
    apart |= {"iterations", "repeat_threshold", "crs_gamma", "exif", "preset", "crowd_ignored"}  # of a run
    for one in fields(Task):
        if one.name in others:
            assert stated(replace(task, **{one.name: others[one.name]})) != stated(task), one.name
        elif one.name not in apart | {"prepare", "conversion"}:  # a field that is newer than this test is stated
            assert one.name in stated(task)


@pytest.mark.parametrize("name", list_tasks())
def test_a_task_states_the_same_after_json(name: str) -> None:
    task = load_task(name)
    manifest = made_manifest(stated=json.loads(json.dumps(stated(task))))
    assert changed(manifest, task, draw_options(task)) == {}


def test_the_manifest_holds_what_the_task_stated(split: Call, tiny_coco: Path, tmp_path: Path) -> None:
    split("--labelled-percent", "40")
    manifest = read_manifest(folder(tmp_path)).document
    assert manifest["stated"] == stated(find_task(str(tiny_coco / "tiny.toml")))
    assert (manifest["labelled_percent"], manifest["stated"]["labelled_percent"]) == (40.0, 20.0)
    assert str(tmp_path) not in json.dumps(manifest)
