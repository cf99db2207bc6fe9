"""``splits verify``: a split is counted again from its files; a wrong one is told even if its hashes fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from split_folders import content, folder
from wrong_splits import rewrite

from cissod_bench.catalogue import load_task
from cissod_bench.split_folders.ensure import draw_options, ensure_split

Call = Callable[..., Any]


@pytest.fixture
def splits(call: Call, tmp_path: Path) -> Call:
    """Return a function that calls a command of ``splits`` on the work folder."""

    def run(command: str, *options: object) -> Any:
        return call("splits", command, *options, "--work-dir", tmp_path / "work")

    return run


@pytest.mark.parametrize(
    "options", [(), ("--dm-minority", "ignore"), ("--unlabelled-percent", 50), ("--cover", "uniform")], ids=str
)
def test_what_was_drawn_is_sound(splits: Call, split: Call, tiny_coco: Path, options: tuple[object, ...]) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    odd = content(path)
    for box, bbox in zip(odd["annotations"], ([0, 0, 0, 5], [9000, 0, 5, 5], [-10, -5, 40, 30]), strict=False):
        box["bbox"] = bbox
    odd["annotations"][3]["iscrowd"] = odd["annotations"][30]["iscrowd"] = 1
    path.write_text(json.dumps(odd), encoding="utf-8")
    assert split(*options).code == 0
    done = splits("verify", "--json")
    assert done.code == 0
    assert [one["faults"] for one in json.loads(done.out)] == [[]]


def test_files_that_were_changed_or_lost_are_all_named(splits: Call, split: Call, tmp_path: Path) -> None:
    split("--split-seed", 0, "--split-seed", 1, "--split-seed", 2)
    changed, lost = folder(tmp_path, 0) / "hidden.json", folder(tmp_path, 2) / "unlabelled.json"
    changed.write_bytes(changed.read_bytes().replace(b"}", b" }", 1))
    lost.unlink()
    done = splits("verify")
    assert done.code == 3
    assert "2 of 3 splits are broken" in done.err
    assert f"{changed} has been changed: its sha256 is" in done.err
    assert done.err.count(f"{lost} does not exist.") == 1
    assert f"{folder(tmp_path, 1)}: sound" in done.out
    assert splits("verify", folder(tmp_path, 1)).code == 0
    assert splits("verify", "tiny").code == 3


def both(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["unlabelled.json"]["images"].append(files["labelled.json"]["images"][0])


def leak(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["unlabelled.json"]["annotations"] = files["hidden.json"]["annotations"][:2]


def leak_crowd(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["unlabelled.json"]["annotations"] = [{**files["hidden.json"]["annotations"][0], "iscrowd": 1}]


def lose_hidden(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    gone = files["hidden.json"]["images"].pop()["id"]
    hidden = files["hidden.json"]
    hidden["annotations"] = [box for box in hidden["annotations"] if box["image_id"] != gone]


def lose_box(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["labelled.json"]["annotations"].pop(0)


def same_box(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["labelled.json"]["annotations"][0]["id"] = files["hidden.json"]["annotations"][0]["id"]


def show_minority(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    labelled = files["labelled.json"]
    in_d_m = {image["id"] for image in labelled["images"] if image["part"] == "D_m"}
    minority = next(one["id"] for one in labelled["categories"] if one["name"] == manifest["groups"]["min"][0])
    next(box for box in labelled["annotations"] if box["image_id"] in in_d_m)["category_id"] = minority


def no_parts(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    for image in files["labelled.json"]["images"]:
        del image["part"]


def other_part(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    next(image for image in files["labelled.json"]["images"] if image["part"] == "D_m")["part"] = "D_x"


def part_of_another_type(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["labelled.json"]["images"][0]["part"] = 3


def wrong_count(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    manifest["counts"]["unlabelled"] += 1
    manifest["boxes"]["hidden"] += 1


def wrong_class(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    manifest["per_class"]["heart"]["unlabelled_images"] += 1


def wrong_group(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    manifest["per_group"]["maj"]["hidden"] += 1


def other_classes(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    for one in files["hidden.json"]["categories"]:
        one["name"] = one["name"].upper()


def reach_out(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    files["labelled.json"]["annotations"][0]["bbox"][0] = -9


def no_ignore(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    manifest["rewritten"]["ignored"] = [files["labelled.json"]["annotations"][0]["id"]]


def too_few(files: dict[str, Any], manifest: dict[str, Any]) -> None:
    manifest["min_instances"] = 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (both, r"1 images are in D_l and in D_u, the first is \d+; they must be disjoint"),
        (leak, r"unlabelled.json shows 2 boxes, the first is \d+; D_u must show none"),
        (leak_crowd, r"unlabelled.json shows 1 boxes"),
        (lose_hidden, r"unlabelled.json and hidden.json must hold the same images; 1 are in one alone"),
        (lose_box, r"boxes.labelled is \d+ by the files; the manifest says \d+"),
        (same_box, r"1 boxes are in labelled.json and hidden.json, the first is \d+"),
        (show_minority, r"labelled.json: 1 minority boxes of D_m are shown"),
        (no_parts, r"labelled.json: no image says whether it is in D_m or D_s"),
        (other_part, r"labelled.json: images in D_x is 1 by the files; the manifest says 0"),
        (part_of_another_type, r"labelled.json: images: Expected `str`, got `int` - at `\$.part`"),
        (wrong_count, r"counts.unlabelled is (\d+) by the files[\s\S]*boxes.hidden is \d+ by the files"),
        (wrong_class, r"per_class.heart.unlabelled_images is \d+ by the files"),
        (wrong_group, r"per_group.maj.hidden is \d+ by the files"),
        (other_classes, r"hidden.json: its categories are not the classes of the manifest"),
        (reach_out, r"labelled.json: 1 boxes are without area or reach out of their image"),
        (no_ignore, r"labelled.json: 1 boxes must be ignore regions \(iscrowd 1\) and are not"),
        (too_few, r"labelled.json: 2 classes have fewer than 1000 boxes: heart, arrow"),
        (lambda files, manifest: manifest["ids_sha256"].update(D_s="ab"), r"ids_sha256.D_s is \w+ by the files"),
        (lambda files, manifest: manifest["below_minimum"].append("heart"), r"below_minimum is \[\] by the files"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_split_is_told_even_if_its_hashes_fit(
    splits: Call, split: Call, tmp_path: Path, change: Any, message: str
) -> None:
    split()
    rewrite(folder(tmp_path), change)
    done = splits("verify", "tiny")
    assert done.code == 3
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err


@pytest.fixture
def longtail(tmp_path: Path) -> Path:
    """The folder of a split of LVIS, drawn from 300 images in its format: groups come from counts in D_l."""
    task = load_task("lvis")
    rng = np.random.default_rng(0)
    images = [
        {"id": number, "width": 100, "height": 80, "coco_url": f"http://images.example.org/train2017/{number}.jpg"}
        for number in range(1, 301)
    ]
    held = [(number, kind) for number in range(1, 301) for kind in range(1, 13) if rng.random() < 1 / kind]
    boxes = [
        {"id": place, "image_id": number, "category_id": kind, "bbox": [1, 2, 30, 40]}
        for place, (number, kind) in enumerate(held, 1)
    ]
    classes = [{"id": kind, "name": f"class {kind}", "frequency": "fcr"[kind % 3]} for kind in range(1, 13)]
    for role in ("train", "val"):
        path = tmp_path / task.inputs[role]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"images": images, "annotations": boxes, "categories": classes})
        path.write_text(text if role == "train" else text.replace("train2017", "val2017"), encoding="utf-8")
    return ensure_split(task, tmp_path, tmp_path / "work", draw_options(task, labelled_percent=50)).folder


def test_groups_by_frequency_are_counted_again(splits: Call, longtail: Path) -> None:
    assert splits("verify").code == 0
    shown = splits("show", "lvis").out
    assert "view official" in shown
    groups = content(longtail / "manifest.json")["groups"]
    assert all(groups.values())

    def other_groups(files: dict[str, Any], manifest: dict[str, Any]) -> None:
        manifest["groups"]["f"].append(manifest["groups"]["r"].pop())

    rewrite(longtail, other_groups)
    done = splits("verify", "lvis")
    assert done.code == 3
    assert (
        f"groups.f is not what the images of D_l give; 1 classes differ, the first is {groups['r'][-1]!r}" in done.err
    )


def test_an_imported_long_tail_has_the_groups_of_the_drawn_one(
    splits: Call, longtail: Path, tmp_path: Path, call: Call
) -> None:
    def take() -> Any:
        files = ("--labelled", longtail / "labelled.json", "--unlabelled", longtail / "unlabelled.json")
        where = ("--data-root", tmp_path, "--work-dir", tmp_path / "work", "--split-seed", 3)
        return call("splits", "import", "--task", "lvis", *files, *where, "--json")

    path = tmp_path / load_task("lvis").inputs["val"]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("val2017", "train2017"), encoding="utf-8")
    done = take()
    assert done.code == 3
    assert "D_l, D_u and the scored images must share none" in done.err
    path.write_text(text, encoding="utf-8")
    done = take()
    assert done.code == 0, done.err
    (imported, drawn) = json.loads(done.out), content(longtail / "manifest.json")
    for key in ("groups", "views", "counts", "per_class", "files"):
        assert imported[key] == drawn[key]
    assert splits("verify").code == 0
