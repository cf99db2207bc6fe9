"""MS-COCO -> Objects365: two data sets in one labelled file, matched by class id (Sec. 4.1)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.catalogue import load_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.split_folders.ensure import SplitOnDisk, draw_options, ensure_split
from cissod_bench.splitting.manifest import verify

TASK = load_task("coco-o365")
MINORITY = 287
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
SPORTS_BALL, BEAR, TEDDY_BEAR, O365_BEAR = 37, 23, 88, 296
SWAPPED, MISSING = "images/v2/patch44/objects365_v2_02024631.jpg", "images/v1/patch6/objects365_v1_00320534.jpg"


def write(path: Path, images: list[Any], boxes: list[Any], classes: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": classes}), encoding="utf-8")


def box(number: int, image: int, category: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": [1, 2, 30, 40], **more}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Objects365: 600 images with 12 boxes each, two special ones; MS-COCO: an image for each of its classes."""
    names = [{"id": number, "name": f"class {number}"} for number in range(1, 366)]
    rng = np.random.default_rng(0)
    images = [
        {"id": number, "width": 100, "height": 80, "file_name": f"images/v1/patch{number % 3}/{number}.jpg"}
        for number in range(1, 601)
    ]
    images[0]["file_name"], images[1]["file_name"] = SWAPPED, MISSING
    kinds = rng.permutation(np.resize(np.arange(1, 366), 7200))
    boxes = [box(number, 1 + number % 600, int(kind)) for number, kind in enumerate(kinds, 1)]
    write(tmp_path / TASK.inputs["train"], images, boxes, names)
    write(tmp_path / TASK.inputs["val"], images[2:5], [], names)
    coco = [{"id": 7 + n, "width": 100, "height": 80, "file_name": f"{n}.jpg"} for n in range(len(COCO_IDS) + 1)]
    shown = [box(n + 1, 7 + n, kind, segmentation=[[1, 2, 3]]) for n, kind in enumerate(COCO_IDS)]
    shown.append(box(999, 7, SPORTS_BALL))
    classes = [{"id": number, "name": f"coco {number}"} for number in COCO_IDS]
    write(tmp_path / TASK.inputs["coco"], coco, shown, classes)
    return tmp_path


def drawn(root: Path, seed: int = 0, **options: Any) -> SplitOnDisk:
    return ensure_split(TASK, root, root / "work", draw_options(TASK, split_seed=seed, **options))


def content(split: SplitOnDisk, name: str) -> Any:
    return json.loads((split.folder / name).read_bytes())


def test_78_classes_are_the_majority_and_both_bears_are_one(root: Path) -> None:
    split = drawn(root)
    groups = split.manifest.groups
    assert (len(groups["maj"]), len(groups["min"])) == (78, MINORITY)
    labelled = content(split, "labelled.json")
    assert [one["id"] for one in labelled["categories"]] == list(range(1, 366))
    from_coco = {image["id"]: image["file_name"] for image in labelled["images"] if image.get("root") == "coco"}
    kinds = {
        from_coco[one["image_id"]]: one["category_id"]
        for one in labelled["annotations"]
        if one["image_id"] in from_coco
    }
    assert kinds[f"{COCO_IDS.index(BEAR)}.jpg"] == kinds[f"{COCO_IDS.index(TEDDY_BEAR)}.jpg"] == O365_BEAR
    assert {f"class {kind}" for kind in kinds.values()} == set(groups["maj"])


def test_images_of_sports_balls_alone_and_without_boxes_are_dropped_and_counted(root: Path) -> None:
    split = drawn(root)
    names = {image["file_name"] for image in content(split, "labelled.json")["images"] if "root" in image}
    ball, empty = f"{COCO_IDS.index(SPORTS_BALL)}.jpg", f"{len(COCO_IDS)}.jpg"
    assert names == {f"{n}.jpg" for n in range(len(COCO_IDS) + 1)} - {ball, empty}
    assert split.manifest.left_out["without a box of a common class"] == 2
    assert split.manifest.counts["D_m"] == 79


def test_no_id_stands_twice_and_every_image_says_its_part_and_folder(root: Path) -> None:
    split = drawn(root)
    labelled, unlabelled = content(split, "labelled.json"), content(split, "unlabelled.json")
    images = labelled["images"] + unlabelled["images"]
    assert len({image["id"] for image in images}) == len(images)
    assert len({one["id"] for one in labelled["annotations"]}) == len(labelled["annotations"])
    offsets = split.manifest.document["offsets"]["coco"]
    for image in labelled["images"]:
        assert image["part"] == ("D_m" if image.get("root") == "coco" else "D_s")
        assert (image["id"] > offsets["images"]) == (image["part"] == "D_m")
    assert offsets == {"images": 1000, "annotations": 10_000}
    of_coco = [one for one in labelled["annotations"] if one["image_id"] > offsets["images"]]
    assert all(one["segmentation"] == [[1, 2, 3]] for one in of_coco)
    assert not any("root" in image or "part" in image for image in unlabelled["images"])


def test_minority_classes_have_their_boxes_and_d_s_shows_every_class(root: Path) -> None:
    split = drawn(root)
    labelled = content(split, "labelled.json")
    in_d_s = {image["id"] for image in labelled["images"] if image["part"] == "D_s"}
    source = json.loads((root / TASK.inputs["train"]).read_bytes())
    counts = Counter(one["category_id"] for one in labelled["annotations"] if one["image_id"] in in_d_s)
    minority = {number for number in range(1, 366) if f"class {number}" in split.manifest.groups["min"]}
    assert min(counts[number] for number in minority) >= 10
    assert split.manifest.below_minimum == []
    assert sum(counts.values()) == sum(one["image_id"] in in_d_s for one in source["annotations"])


def test_missing_images_are_in_no_part_and_swapped_sizes_are_put_right(root: Path) -> None:
    split = drawn(root)
    images = content(split, "labelled.json")["images"] + content(split, "unlabelled.json")["images"]
    by_name = {image["file_name"]: image for image in images}
    assert MISSING not in by_name
    assert split.manifest.left_out["missing in the release"] == 1
    assert (by_name[SWAPPED]["width"], by_name[SWAPPED]["height"]) == (80, 100)
    assert split.manifest.rewritten["swapped"] == [1]


def test_a_share_of_the_unlabelled_images_can_be_taken(root: Path) -> None:
    whole = drawn(root).manifest
    split = ensure_split(TASK, root, root / "other", draw_options(TASK, unlabelled_percent=10))
    part = split.manifest
    assert part.counts["unlabelled"] == round(0.1 * whole.counts["unlabelled"])
    assert part.left_out["not drawn into D_u"] == whole.counts["unlabelled"] - part.counts["unlabelled"]
    assert part.files["labelled.json"] == whole.files["labelled.json"]
    assert {image["id"] for image in content(split, "hidden.json")["images"]} == {
        image["id"] for image in content(split, "unlabelled.json")["images"]
    }


def test_the_same_seed_gives_the_same_bytes_in_any_order_of_records(root: Path) -> None:
    files = drawn(root, 3).manifest.files
    for role in ("train", "coco"):
        path = root / TASK.inputs[role]
        data = json.loads(path.read_bytes())
        for key in ("images", "annotations", "categories"):
            data[key].reverse()
        path.write_text(json.dumps(data), encoding="utf-8")
    again = ensure_split(TASK, root, root / "again", draw_options(TASK, split_seed=3))
    assert again.manifest.files == files
    assert drawn(root, 4).manifest.files != files
    assert verify(again.folder) == again.manifest


def test_too_few_boxes_of_a_class_are_an_error_that_lists_all_of_them(root: Path) -> None:
    path = root / TASK.inputs["train"]
    data = json.loads(path.read_bytes())
    data["annotations"] = [one for one in data["annotations"] if one["category_id"] not in (2, 4)]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataFault, match=r"'class 2' \(0\), 'class 4' \(0\)"):
        drawn(root)


def test_a_file_without_the_official_class_ids_is_refused(root: Path) -> None:
    path = root / TASK.inputs["coco"]
    data = json.loads(path.read_bytes())
    data["categories"] = [one for one in data["categories"] if one["id"] != 90]
    data["annotations"] = [one for one in data["annotations"] if one["category_id"] != 90]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataFault, match=r"instances_train2017.json: categories: there is no class of the id 90"):
        drawn(root)


@pytest.mark.parametrize("options", [{"minority": ("class 2",)}, {"dm_minority": "ignore"}])
def test_options_without_a_meaning_here_are_refused(root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageFault, match="has no --"):
        drawn(root, **options)
    assert not (root / "work/splits/coco-o365/seed0").exists()
