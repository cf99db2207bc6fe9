"""LVIS and Objects365 in the formats they are published in: drawn, trained on and scored, from command to table."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Called
from formats import write_coco, write_lvis, write_objects365
from tiny import CHANGES

from cissod_bench.catalogue import list_methods, load_method, load_task
from cissod_bench.contract import presets
from cissod_bench.contract.method import USES_UNLABELLED
from cissod_bench.files.images import read_image
from cissod_bench.running.assembly import scored_images, sources
from cissod_bench.running.plan import Plan, make_plan
from splits.coco_o365 import CLASSES, MISSING, SWAPPED

pytestmark = pytest.mark.slow  # drawing the images takes longer than most tests

TASKS = {"lvis": ("f", "c", "r"), "coco-o365": ("maj", "min")}
SIZES = {"lvis": (120, 100), "coco-o365": (277, 74)}  # images of D_l and D_u
METHODS = [name for name in list_methods() if load_method(name).images in USES_UNLABELLED]
# A little more than one of all classes has by chance, so that a random teacher is sure enough of some.
SURE = {"lvis": 0.001, "coco-o365": 0.003}
THRESHOLDS = ("score_floor", "initial_threshold", "rpn_threshold", "theta")
# A few iterations of a detector of a few thousand weights.
QUICK = (*CHANGES, "iterations=6", "generations=2", "checkpoint_every=3", "proposals_test=50,10")


@pytest.fixture(autouse=True)
def short_smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let preset smoke have 8 iterations instead of 20: what is asked here is whether the data can be trained on."""
    monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, "smoke": replace(presets.SMOKE, iterations=8)})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with MS-COCO train2017, Objects365 and LVIS."""
    folder = tmp_path_factory.mktemp("formats")
    for write in (write_coco, write_objects365, write_lvis):
        write(folder)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the work folder of all tests here: splits are drawn once, and the table shows all runs."""
    return tmp_path_factory.mktemp("work")


def planned(root: Path, work: Path, task: str, method: str = "soft-teacher") -> Plan:
    return make_plan(load_task(task), load_method(method), data_root=root, work_dir=work, preset_name="smoke")


def annotations(path: Path) -> Any:
    return json.loads(path.read_bytes())


def run_folder(work: Path, task: str, method: str) -> Path:
    scale = "smoke-default" if method == "soft-teacher" else "smoke-default+quick"
    return work / "runs" / task / "split0" / method / scale / "seed0"


@pytest.mark.parametrize("task", TASKS)
def test_every_image_is_found_in_its_folder_with_the_size_its_record_says(root: Path, work: Path, task: str) -> None:
    plan = planned(root, work, task)
    (labelled, unlabelled), (val, _) = sources(plan), scored_images(plan)
    assert (len(labelled), len(unlabelled)) == SIZES[task]
    for source in (labelled, unlabelled, val):
        for row in range(len(source)):
            width, height = (int(side) for side in source.sizes[row])
            assert read_image(source.file(row), width, height).shape == (height, width, 3)


def test_objects365_images_come_from_two_roots_and_are_named_without_the_annotators_folders(
    root: Path, work: Path
) -> None:
    plan = planned(root, work, "coco-o365")
    labelled, unlabelled = sources(plan)
    files = {role: [one.file(row) for row in range(len(one))] for role, one in (("l", labelled), ("u", unlabelled))}
    parents = Counter(file.parent.relative_to(root).as_posix().split("/patch")[0] for file in files["l"])
    counts = plan.manifest.counts
    assert parents == {"coco/train2017": counts["D_m"], "objects365/train": counts["D_s"]}
    assert {file.relative_to(root / "objects365/train").parts[0][:5] for file in files["u"]} == {"patch"}
    named = {file.relative_to(root / "objects365/train").as_posix() for file in files["u"]}
    named |= {file.as_posix().split("objects365/train/")[-1] for file in files["l"]}
    assert SWAPPED[0] in named
    assert MISSING[0] not in named
    of_coco = {row for row, file in enumerate(files["l"]) if "coco" in file.relative_to(root).parts}
    shown = {plan.manifest.classes[label] for row in of_coco for label in labelled.labels[labelled.box_rows(row)]}
    assert shown == set(plan.groups["maj"])
    assert len(shown) == len(set(CLASSES.values())) == 78


def test_lvis_val_mixes_two_folders_of_coco(root: Path, work: Path) -> None:
    source, category_ids = scored_images(planned(root, work, "lvis"))
    parents = Counter(source.file(row).parent.relative_to(root).as_posix() for row in range(len(source)))
    assert parents == {"coco/train2017": 30, "coco/val2017": 10}
    assert category_ids == tuple(range(1, 1204))


def test_the_oracle_adds_the_hidden_boxes_of_objects365_to_images_from_both_roots(root: Path, work: Path) -> None:
    plan = planned(root, work, "coco-o365", "oracle")
    labelled, unlabelled = sources(plan)
    crowd = 1
    assert len(labelled) == sum(SIZES["coco-o365"])
    assert len(labelled.boxes) == plan.manifest.boxes.labelled + plan.manifest.boxes.hidden + crowd
    assert len(unlabelled.boxes) == 0
    assert all(labelled.file(row).is_file() for row in range(len(labelled)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_a_smoke_run_trains_predicts_and_is_scored(
    root: Path, work: Path, call: Callable[..., Called], task: str, method: str
) -> None:
    """Soft Teacher with the preset as it is, the others for a few iterations of one that is sure of something."""
    changes = () if method == "soft-teacher" else (*QUICK, *(f"{name}={SURE[task]}" for name in THRESHOLDS))
    words = ["--name", "quick"] * bool(changes) + [word for change in changes for word in ("--set", change)]
    where = ("--data-root", root, "--work-dir", work)
    answer = call("--json", "run", "--method", method, "--task", task, "--preset", "smoke", *where, *words)
    assert answer.code == 0, answer.err
    (record,) = json.loads(answer.out)
    assert record["status"] == "done"
    columns = {"all", *TASKS[task]}
    for who in ("teacher", "student"):
        assert record["ap"][who].keys() == columns
        assert all(0 <= value <= 100 for value in record["ap"][who].values())
    assert record["data"] == dict(zip(("labelled", "unlabelled"), SIZES[task], strict=True))
    assert {name: len(members) for name, members in record["groups"].items()} == {
        "lvis": {"f": 8, "c": 40, "r": 1155},
        "coco-o365": {"maj": 78, "min": 287},
    }[task]
    folder = run_folder(work, task, method)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == record["settings"]["iterations"]
    assert {f"pseudo_cls_{group}" for group in TASKS[task]} <= lines[-1].keys()
    if changes:
        assert sum(lines[-1][f"pseudo_cls_{group}"] for group in TASKS[task]) > 0
        found = json.loads(gzip.decompress((folder / "predictions.json.gz").read_bytes()))
        truth = annotations(root / load_task(task).inputs["val"])
        assert len(found) > len(truth["images"])
        assert {one["image_id"] for one in found} <= {image["id"] for image in truth["images"]}
        assert {one["category_id"] for one in found} <= {category["id"] for category in truth["categories"]}


def test_the_table_has_a_row_for_every_run_and_the_columns_of_its_task(
    root: Path, work: Path, call: Callable[..., Called]
) -> None:
    for task in TASKS:
        if not (run_folder(work, task, "soft-teacher") / "run.json").exists():
            test_a_smoke_run_trains_predicts_and_is_scored(root, work, call, task, "soft-teacher")
    out = work / "report"
    answer = call("report", "--work-dir", work, "--runs", work / "runs", "--format", "md", "--out", out)
    assert answer.code == 0, answer.err
    text = (out / "comparison.md").read_text(encoding="utf-8")
    for heading, task in (("## Table 2: ", "coco-o365"), ("## Table 3: LVIS", "lvis")):
        table = text.split(heading)[1].split("\n## ")[0].splitlines()
        (head,) = (line for line in table if " all " in line)
        assert [cell.strip() for cell in head.split("|")][2 : 3 + len(TASKS[task])] == ["all", *TASKS[task]]
        (row,) = (line for line in table if line.startswith("| Soft Teacher |"))
        ap = json.loads((run_folder(work, task, "soft-teacher") / "run.json").read_text())["ap"]["teacher"]
        cells = [cell.strip(" *") for cell in row.split("|")[2 : 3 + len(TASKS[task])]]
        assert cells == [f"{value:.1f}" for value in ap.values()]


def test_val_images_that_are_missing_are_told_before_the_training(
    root: Path, work: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    planned(root, work, "lvis")  # the split is there
    other = tmp_path / "data"
    (other / "coco").mkdir(parents=True)
    (other / "coco" / "train2017").symlink_to(root / "coco" / "train2017")
    (other / "lvis").symlink_to(root / "lvis")
    where = ("--data-root", other, "--work-dir", work)
    answer = call("run", "--method", "rfs", "--task", "lvis", "--preset", "smoke", "--seed", "7", *where)
    assert answer.code == 3
    assert "coco/val2017 is missing; " in answer.err
    assert "10 images in it" in answer.err
    assert not list(work.rglob("seed7/log.jsonl"))


def test_a_missing_image_folder_is_told_before_the_split_is_drawn(
    root: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    other = tmp_path / "data"
    for folder in ("objects365", "coco"):
        (other / folder).mkdir(parents=True)
        (other / folder / "annotations").symlink_to(root / folder / "annotations")
    (other / "objects365" / "train").symlink_to(root / "objects365" / "train")
    (other / "objects365" / "val").symlink_to(root / "objects365" / "val")
    where = ("--data-root", other, "--work-dir", tmp_path / "work")
    answer = call("run", "--method", "rfs", "--task", "coco-o365", "--preset", "smoke", *where)
    assert answer.code == 3
    assert "The folder of the coco images is missing" in answer.err
    assert not (tmp_path / "work" / "splits").exists()
