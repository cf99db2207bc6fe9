"""``data check``: what is missing, broken or trained on elsewhere is told; nothing is fetched or written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from split_folders import content

from cissod_bench.annotations.image_check import Named, decoded
from cissod_bench.annotations.overlaps import box_signatures
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.catalogue import load_task
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.split_folders.data_check import DataCheck

Call = Callable[..., Any]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "coco_mini.toml"


@pytest.fixture
def check(tiny_coco: Path, tmp_path: Path, call: Call) -> Call:
    """Return a function that checks the tiny task."""

    def run(*options: object) -> Any:
        task = ("--task", tiny_coco / "tiny.toml")
        return call("data", "check", *task, "--data-root", tiny_coco, "--work-dir", tmp_path / "work", *options)

    return run


def states(done: Any) -> dict[str, str]:
    """The state of each file and folder of the first task of a JSON answer."""
    return {f"{one['role']} {one['what']}": one["state"] for one in json.loads(done.out)[0]["checks"]}


def edited(path: Path, change: Callable[[Any], object]) -> None:
    data = content(path)
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_sound_data_is_told_with_its_counts(check: Call, tiny_coco: Path, tmp_path: Path) -> None:
    before = sorted(path for path in tiny_coco.rglob("*"))
    done = check("--json")
    assert done.code == 0
    found = json.loads(done.out)[0]
    assert (found["task"], found["state"], found["faults"], found["warnings"]) == ("tiny", "ok", [], [])
    annotations, _, images, _ = found["checks"]
    source = content(tiny_coco / "tiny/annotations/train.json")
    boxes = len(source["annotations"])
    policy = {"degenerate": 0, "outside": 0, "clipped": 0, "crowd": 0}
    assert annotations["counts"] == {"images": 40, "boxes": boxes, "classes": 5, **policy}
    assert images["counts"] == {"named": 40, "there": 40, "checked": 40, "faulty": 0}
    assert sorted(path for path in tiny_coco.rglob("*")) == before
    assert not (tmp_path / "work").exists()
    text = check().out
    assert f"40 images, {boxes} boxes, 5 classes" in " ".join(text.split())


def test_missing_data_is_a_failure_only_where_its_task_is_named(call: Call, tmp_path: Path) -> None:
    where = ("--data-root", tmp_path / "none", "--work-dir", tmp_path / "work")
    done = call("data", "check", *where)
    assert done.code == 0
    for told in ("instances_train2017.json: http://images.cocodataset.org", "lvis_v1_val.json: https://www.lvisdata"):
        assert told in done.out
    assert "draws its own images" in " ".join(done.out.split())
    named = call("data", "check", "--task", "coco-split1", *where, "--json")
    assert named.code == 3
    assert "The data of coco-split1 is not all there" in named.err
    assert set(states(named).values()) == {"missing"}
    assert sorted(tmp_path.iterdir()) == []


def test_images_that_are_missing_links_or_folders_are_counted_and_the_first_ten_named(
    check: Call, tiny_coco: Path, tmp_path: Path
) -> None:
    images = tiny_coco / "tiny/images/train"
    for number in range(1, 14):
        (images / f"{number:06d}.png").unlink()
    (images / "000014.png").unlink()
    (images / "000014.png").mkdir()
    outside = tmp_path / "outside.png"
    shutil.move(images / "000015.png", outside)
    (images / "000015.png").symlink_to(outside)
    (images / "000016.png").unlink()
    (images / "000016.png").symlink_to(images / "gone.png")
    os.replace(images / "000017.png", images / "inside.png")
    (images / "000017.png").symlink_to("inside.png")  # a link that stays inside is sound
    done = check("--json")
    assert done.code == 3
    folder = json.loads(done.out)[0]["checks"][2]
    assert (folder["state"], folder["counts"]["faulty"]) == ("broken", 16)
    assert folder["faults"] == [f"{images / f'{number:06d}.png'} is missing" for number in range(1, 11)]
    assert f"... and 6 more of {images}" in check().out
    for number in range(1, 14):
        shutil.copy(images / "000020.png", images / f"{number:06d}.png")
    told = "\n".join(json.loads(check("--json").out)[0]["checks"][2]["faults"])
    assert "000014.png is a folder" in told
    assert "000015.png is a link that leaves" in told
    assert "000016.png is a link to nothing" in told
    assert "000017.png" not in told


def test_a_link_of_an_image_may_lead_elsewhere_in_the_data_root(check: Call, tiny_coco: Path) -> None:
    images = tiny_coco / "tiny/images/train"
    (tiny_coco / "originals").mkdir()
    shutil.move(images / "000015.png", tiny_coco / "originals" / "15.png")
    (images / "000015.png").symlink_to("../../../originals/15.png")
    assert check().code == 0
    assert check("--deep").code == 0


def test_a_folder_of_images_that_is_a_link_may_lie_anywhere(check: Call, tiny_coco: Path, tmp_path: Path) -> None:
    images = tiny_coco / "tiny/images/train"
    shutil.move(images, tmp_path / "elsewhere")
    images.symlink_to(tmp_path / "elsewhere")
    assert check().code == 0


def test_a_link_between_the_image_folder_and_the_images_is_told(check: Call, tiny_coco: Path, tmp_path: Path) -> None:
    images = tiny_coco / "tiny/images/train"
    edited(
        tiny_coco / "tiny/annotations/train.json",
        lambda data: [image.update(file_name=f"part/{image['file_name']}") for image in data["images"]],
    )
    shutil.move(images, tmp_path / "part")
    images.mkdir()
    (images / "part").symlink_to(tmp_path / "part")
    done = check("--json")
    assert done.code == 3
    assert "is a link that leaves" in json.loads(done.out)[0]["checks"][2]["faults"][0]


def test_deep_decodes_the_images_and_compares_their_sizes(check: Call, tiny_coco: Path) -> None:
    images = tiny_coco / "tiny/images/train"
    assert check("--deep").code == 0
    (images / "000003.png").write_bytes(b"")
    (images / "000005.png").write_bytes((images / "000005.png").read_bytes()[:-40])
    edited(tiny_coco / "tiny/annotations/train.json", lambda data: data["images"][6].update(width=9))
    assert states(check("--json"))["train images"] == "ok"  # the listing sees names alone
    done = check("--deep", "--json")
    assert done.code == 3
    folder = json.loads(done.out)[0]["checks"][2]
    assert folder["counts"]["faulty"] == 3
    for told, fault in zip(("000003.png: the image is empty", "000005.png", "9 x"), folder["faults"], strict=True):
        assert told in fault


def test_a_sample_is_spread_evenly_and_needs_deep(check: Call, tiny_coco: Path) -> None:
    done = check("--deep", "--sample", 7, "--json")
    assert [one["counts"].get("checked") for one in json.loads(done.out)[0]["checks"]][2:] == [7, 5]
    assert "add --deep" in check("--sample", 7).err
    with read_annotations(tiny_coco / "tiny/annotations/train.json") as data:
        named = Named(tiny_coco / "nowhere", data.file_names, data.widths, data.heights)
    told = decoded(named, most=4)
    assert (told.checked, told.faulty) == (4, 4)
    assert [text.split(".png")[0][-6:] for text in told.first] == ["000001", "000011", "000021", "000031"]


def test_a_broken_file_is_named_and_the_others_are_still_checked(check: Call, tiny_coco: Path) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    path.write_bytes(path.read_bytes()[:-100])
    done = check("--json")
    assert done.code == 3
    assert states(done) == {
        "train annotations": "broken",
        "val annotations": "ok",
        "train images": "ok",
        "val images": "ok",
    }
    assert f"{path} is cut off at byte" in json.loads(done.out)[0]["checks"][0]["faults"][0]
    assert "The data of tiny is broken" in done.err


def test_boxes_outside_and_other_classes_in_val_are_told(check: Call, tiny_coco: Path) -> None:
    edited(tiny_coco / "tiny/annotations/train.json", lambda data: data["annotations"][0].update(bbox=[0, 0, 9999, 9]))
    edited(tiny_coco / "tiny/annotations/val.json", lambda data: data["categories"][0].update(name="disc"))
    done = check()
    assert done.code == 3
    assert "1 reaching out of it" in " ".join(done.out.split())
    assert "category 1 is 'disc', but it is 'circle' in" in done.out


def test_an_image_that_is_trained_on_and_scored_is_a_fault(check: Call, tiny_coco: Path) -> None:
    text = (tiny_coco / "tiny.toml").read_text(encoding="utf-8").replace("images/val", "images/train")
    (tiny_coco / "tiny.toml").write_text(text, encoding="utf-8")
    done = check()
    assert done.code == 3
    assert "10 of 10 images of" in done.out
    assert "the first is tiny/images/train/000001.png; an image that is scored must not be trained on" in done.out


def test_copies_of_training_images_in_val_are_a_fault_but_equal_ids_alone_are_none(
    check: Call, tiny_coco: Path
) -> None:
    train, val = (tiny_coco / f"tiny/annotations/{role}.json" for role in ("train", "val"))
    ids = [{image["id"] for image in content(path)["images"]} for path in (train, val)]
    assert ids[0] & ids[1]
    assert check().code == 0
    source = content(train)
    kept = {image["id"] for image in source["images"][:4]}
    copied = {
        "images": [image for image in source["images"] if image["id"] in kept],
        "annotations": [box for box in source["annotations"] if box["image_id"] in kept][::-1],
        "categories": source["categories"],
    }
    val.write_text(json.dumps(copied), encoding="utf-8")
    done = check()
    assert done.code == 3
    assert "4 of 4 images of" in done.out
    assert "have id, name, size and boxes of an image of" in done.out


def test_signatures_of_boxes_do_not_depend_on_order_or_ids(tiny_coco: Path) -> None:
    path = tiny_coco / "tiny/annotations/train.json"
    with read_annotations(path) as data:
        before = box_signatures(data)
    edited(
        path,
        lambda data: data.update(annotations=[{**box, "id": 9000 - box["id"]} for box in data["annotations"]][::-1]),
    )
    with read_annotations(path) as data:
        assert np.array_equal(box_signatures(data), before)
    edited(path, lambda data: data["annotations"][0]["bbox"].__setitem__(2, data["annotations"][0]["bbox"][2] - 1))
    with read_annotations(path) as data:
        assert (box_signatures(data) != before).sum() == 1


@pytest.fixture
def lvis(tmp_path: Path) -> Path:
    """A data root with LVIS files: 6 train images, 4 val images of which 3 are MS-COCO's training images."""
    root = tmp_path / "data"

    def image(number: int, folder: str) -> dict[str, Any]:
        url = f"http://images.example.org/{folder}/{number:012d}.jpg"
        return {"id": number, "width": 10, "height": 10, "coco_url": url}

    train = [image(number, "train2017") for number in range(1, 7)]
    val = [image(number, "train2017") for number in (7, 8, 9)] + [image(10, "val2017")]
    for role, images in (("train", train), ("val", val)):
        path = root / load_task("lvis").inputs[role]
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
        path.write_text(json.dumps(data), encoding="utf-8")
    return root


def test_val_images_of_lvis_that_others_train_on_are_warned_about(call: Call, lvis: Path, tmp_path: Path) -> None:
    done = call("data", "check", "--data-root", lvis, "--work-dir", tmp_path / "work", "--json")
    assert done.code == 0
    found = {one["task"]: one for one in json.loads(done.out)}
    (warning,) = found["lvis"]["warnings"]
    others = "coco-o365, coco-split1, coco-split2"
    assert f"3 of its 4 val images lie in coco/train2017, which {others} train on." in warning
    assert f"Never start lvis from a detector or checkpoint trained on {others}, nor add their D_l or D_u" in warning
    assert f"Warning: {warning}" in done.err
    assert [one["warnings"] for name, one in found.items() if name != "lvis"] == [[]] * (len(found) - 1)


def test_scoring_on_other_images_of_the_same_data_set_is_no_trap(call: Call, lvis: Path, tmp_path: Path) -> None:
    path = lvis / load_task("coco-split1").inputs["val"]
    path.parent.mkdir(parents=True)
    images = [{"id": 10, "width": 10, "height": 10, "file_name": "000000000010.jpg"}]
    data = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    path.write_text(json.dumps(data), encoding="utf-8")
    done = call("data", "check", "--data-root", lvis, "--work-dir", tmp_path / "work", "--json")
    assert {one["task"] for one in json.loads(done.out) if one["warnings"]} == {"lvis"}


def test_folders_below_the_image_folder_that_were_not_fetched_are_missing_not_broken(
    call: Call, lvis: Path, tmp_path: Path
) -> None:
    (lvis / "coco/val2017").mkdir(parents=True)
    (lvis / "coco/val2017/000000000010.jpg").write_bytes(b"x")
    where = ("--data-root", lvis, "--work-dir", tmp_path / "work")
    every = call("data", "check", *where)
    assert every.code == 0
    assert f"{lvis / 'coco/train2017'}: http" in every.out
    done = call("data", "check", "--task", "lvis", *where, "--json")
    assert done.code == 3
    assert states(done)["val images"] == "missing"
    val = json.loads(done.out)[0]["checks"][3]
    assert val["counts"] == {"named": 4, "there": 1, "checked": 1, "faulty": 0}
    assert val["missing"] == [str(lvis / "coco/train2017")]


def test_images_of_lvis_are_found_by_the_url_they_came_from(call: Call, lvis: Path, tmp_path: Path) -> None:
    for folder, numbers in (("train2017", range(1, 9)), ("val2017", [10])):
        (lvis / "coco" / folder).mkdir(parents=True)
        for number in numbers:
            (lvis / "coco" / folder / f"{number:012d}.jpg").write_bytes(b"x")
    done = call("data", "check", "--task", "lvis", "--data-root", lvis, "--work-dir", tmp_path / "work", "--json")
    assert done.code == 3
    assert states(done)["train images"] == "ok"
    val = json.loads(done.out)[0]["checks"][3]
    assert val["faults"] == [f"{lvis / 'coco/train2017/000000000009.jpg'} is missing"]


def test_files_that_the_release_lacks_are_no_fault(tiny_coco: Path, tmp_path: Path) -> None:
    (tiny_coco / "tiny/images/train/000004.png").unlink()
    task = find_task(str(tiny_coco / "tiny.toml"))
    assert DataCheck(tiny_coco, tmp_path).check(task).state == "broken"
    found = DataCheck(tiny_coco, tmp_path).check(replace(task, absent=("000004.png",)))
    assert found.state == "ok"
    assert found.checks[2].counts == {"named": 40, "there": 39, "checked": 39, "faulty": 0}


def test_the_real_coco_annotations_are_sound(call: Call, test_data: Path, tmp_path: Path) -> None:
    done = call(
        "data", "check", "--task", EXAMPLE, "--data-root", test_data, "--work-dir", tmp_path, "--deep", "--sample", 40
    )
    assert done.code == 0
    assert "606 named, 38 looked at, 0 at fault" in " ".join(done.out.split())
