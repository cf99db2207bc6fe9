"""LVIS and the toy long tail: 10 % of the images, every class at least once, groups by counts in D_l (Sec. 4.3)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.catalogue import load_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.split_folders.ensure import SplitOnDisk, draw_options, ensure_split
from cissod_bench.splitting import toy_images
from cissod_bench.splitting.drawing import cover_rarest_first
from cissod_bench.splitting.scenarios import frequency_groups

TASK = load_task("lvis")
CLASSES = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """1500 images in LVIS's format, without ``file_name``; class k is in about 700 / k of them."""
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(1, 1501):
        folder = "train2017" if number % 3 else "val2017"
        images.append({
            "id": number, "width": 100, "height": 80, "license": 1, "neg_category_ids": [1], "date_captured": "",
            "not_exhaustive_category_ids": [], "coco_url": f"http://images.example.org/{folder}/{number:012d}.jpg",
        })  # fmt: skip
        for kind in np.flatnonzero(rng.random(CLASSES) < 700 / 1500 / np.arange(1, CLASSES + 1)) + 1:
            boxes.append({"id": len(boxes) + 1, "image_id": number, "category_id": int(kind), "bbox": [1, 2, 30, 40]})
    classes = [
        {"id": kind, "name": f"class {kind}", "frequency": "f" if kind < 5 else "c" if kind < 20 else "r"}
        for kind in range(1, CLASSES + 1)
    ]
    for role in ("train", "val"):
        path = tmp_path / TASK.inputs[role]
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"images": images, "annotations": boxes, "categories": classes})
        path.write_text(text if role == "train" else text.replace("2017/00", "2017/99"), encoding="utf-8")
    return tmp_path


def drawn(root: Path, seed: int = 0, **options: Any) -> SplitOnDisk:
    return ensure_split(TASK, root, root / "work", draw_options(TASK, split_seed=seed, **options))


def content(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("seed", range(5))
def test_ten_percent_of_the_images_with_boxes_show_every_class(root: Path, seed: int) -> None:
    split = drawn(root, seed)
    source, labelled = content(root / TASK.inputs["train"]), content(split.folder / "labelled.json")
    annotated = {one["image_id"] for one in source["annotations"]}
    shown = {image["id"] for image in labelled["images"]}
    assert len(shown) == round(0.1 * len(annotated))
    assert shown <= annotated
    assert {one["category_id"] for one in labelled["annotations"]} == set(range(1, CLASSES + 1))
    assert len(labelled["annotations"]) == sum(one["image_id"] in shown for one in source["annotations"])
    rest = {image["id"] for image in content(split.folder / "unlabelled.json")["images"]}
    assert rest | shown == {image["id"] for image in source["images"]}
    assert not rest & shown


def test_records_keep_their_bytes_and_federated_fields(root: Path) -> None:
    split = drawn(root)
    source = {image["id"]: image for image in content(root / TASK.inputs["train"])["images"]}
    for name in ("labelled.json", "unlabelled.json", "hidden.json"):
        for image in content(split.folder / name)["images"]:
            assert image == source[image["id"]]


def test_groups_come_from_image_counts_in_d_l_and_the_official_ones_are_a_view(root: Path) -> None:
    split = drawn(root)
    labelled = content(split.folder / "labelled.json")
    images = Counter(kind for _, kind in {(one["image_id"], one["category_id"]) for one in labelled["annotations"]})
    groups = split.manifest.groups
    for kind in range(1, CLASSES + 1):
        count = images[kind]
        group = "r" if count <= 10 else "c" if count <= 100 else "f"
        assert f"class {kind}" in groups[group]
    assert split.manifest.views["official"] == {
        "f": [f"class {kind}" for kind in range(1, 5)],
        "c": [f"class {kind}" for kind in range(5, 20)],
        "r": [f"class {kind}" for kind in range(20, CLASSES + 1)],
    }
    unlabelled = 1500 - len(labelled["images"])
    assert split.manifest.counts == {
        "D_m": 0,
        "D_s": 0,
        "labelled": len(labelled["images"]),
        "unlabelled": unlabelled,
    }


def test_bounds_belong_to_the_lower_group() -> None:
    images = np.array([0, 10, 11, 100, 101])
    assert frequency_groups(tuple("abcde"), images, (10, 100)) == {"f": ("e",), "c": ("c", "d"), "r": ("a", "b")}


def test_images_are_named_by_the_last_two_parts_of_their_url(root: Path) -> None:
    with read_annotations(drawn(root).folder / "labelled.json", naming="coco_url") as file:
        assert {name.split("/")[0] for name in file.file_names} == {"train2017", "val2017"}
        assert all(name.count("/") == 1 and name.endswith(".jpg") for name in file.file_names)


def test_a_url_that_leaves_the_folder_is_refused(root: Path) -> None:
    path = root / TASK.inputs["train"]
    data = content(path)
    data["images"][7]["coco_url"] = "http://images.example.org/a/../000000000007.jpg"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataFault, match=r"images\[7\].coco_url must be relative, without '\.\.'"):
        drawn(root)


def test_rare_classes_are_covered_first_by_the_next_images_of_the_order() -> None:
    # Class 2 is in image 3 alone, which also holds class 1; so class 1 needs no image of its own.
    box_image, box_class = np.array([0, 1, 2, 3, 3], np.int32), np.array([0, 1, 1, 1, 2], np.int16)
    order = np.array([2, 1, 0, 3])
    chosen = cover_rarest_first(order, box_image, box_class, num_classes=3, least=1)
    assert sorted(chosen.tolist()) == [0, 3]
    chosen = cover_rarest_first(order, box_image[:4], box_class[:4], num_classes=2, least=1)
    assert sorted(chosen.tolist()) == [0, 2]


def test_classes_with_too_few_boxes_are_listed(root: Path) -> None:
    path = root / TASK.inputs["train"]
    data = content(path)
    data["annotations"] = [one for one in data["annotations"] if one["category_id"] not in (38, 40)]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataFault, match=r"needs 1 boxes. Fewer have: 'class 38' \(0\), 'class 40' \(0\)"):
        drawn(root)


@pytest.mark.parametrize("options", [{"minority": ("class 2",)}, {"dm_minority": "ignore"}, {"cover": "useful"}])
def test_options_of_the_other_scenario_are_refused(root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageFault, match="has no --"):
        drawn(root, **options)


@pytest.mark.slow
def test_the_toy_long_tail_has_one_tail_in_d_l_and_d_u(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_painted(pixels: Any, placed: Any, dice: toy_images.Dice) -> None:
        dice.many(21)  # four colours, and clouds of 3 x 3
        dice.number()

    # What a shape looks like moves no box, if as many numbers are drawn; most of the drawing's time is spared.
    monkeypatch.setattr(toy_images, "paint", not_painted)
    monkeypatch.setattr(toy_images, "with_noise", lambda pixels, dice: pixels.astype(np.uint8))
    task = load_task("toy-longtail")
    manifest = ensure_split(task, tmp_path, tmp_path, draw_options(task)).manifest
    assert all(manifest.groups[group] for group in ("f", "c", "r"))
    assert manifest.imbalance is not None
    assert manifest.imbalance > 50
    counts = [(one.boxes, one.unlabelled_boxes) for one in manifest.per_class.values()]
    labelled, unlabelled = np.log10(np.array(counts)).T
    assert np.corrcoef(labelled, unlabelled)[0, 1] > 0.95
