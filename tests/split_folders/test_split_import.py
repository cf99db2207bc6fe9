"""``splits import``: files that others published become a split that is trained on like a drawn one, or are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from split_folders import content, data_bytes, folder

from cissod_bench.catalogue import load_task
from cissod_bench.split_folders.ensure import draw_options, ensure_split
from cissod_bench.splitting.manifest import read_manifest, verify

Call = Callable[..., Any]


@pytest.fixture
def published(split: Call, tmp_path: Path) -> Path:
    """A folder with the files of a drawn split, as somebody else may have published them."""
    assert split(work="theirs").code == 0
    place = tmp_path / "published"
    shutil.copytree(folder(tmp_path, work="theirs"), place)
    (place / "manifest.json").unlink()
    return place


@pytest.fixture
def take(call: Call, tmp_path: Path, tiny_coco: Path, published: Path) -> Call:
    """Return a function that imports the published files for the tiny task."""

    def run(*options: object, data_root: Path = tiny_coco) -> Any:
        files = ("--labelled", published / "labelled.json", "--unlabelled", published / "unlabelled.json")
        where = ("--data-root", data_root, "--work-dir", tmp_path / "work")
        return call("splits", "import", "--task", tiny_coco / "tiny.toml", *files, *where, *options)

    return run


def edited(path: Path, change: Callable[[Any], object]) -> Any:
    data = content(path)
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return data


def only_val(tiny_coco: Path, tmp_path: Path) -> Path:
    """A data root that lacks the task's training file."""
    root = tmp_path / "val only"
    shutil.copytree(tiny_coco, root)
    (root / "tiny/annotations/train.json").unlink()
    return root


def test_a_published_split_is_the_drawn_one_and_says_that_it_was_imported(
    take: Call, split: Call, tmp_path: Path, call: Call
) -> None:
    done = take()
    assert done.code == 0, done.err
    assert "(imported)" in done.out
    mine, theirs = folder(tmp_path), folder(tmp_path, work="theirs")
    assert data_bytes(mine) == data_bytes(theirs)
    imported, drawn = verify(mine).document, read_manifest(theirs).document
    files = {
        role: {"path": f"{role}.json", "sha256": drawn["files"][f"{role}.json"]} for role in ("labelled", "unlabelled")
    }
    assert imported["imported"] is True
    assert imported["imported_files"] == files
    assert imported["hidden_boxes"] == "from train"
    same = drawn.keys() - {"cover"}
    assert {key: imported[key] for key in same} == {key: drawn[key] for key in same}
    assert str(tmp_path) not in (mine / "manifest.json").read_text(encoding="utf-8")
    assert call("splits", "verify", "--work-dir", tmp_path / "work").code == 0
    assert "imported, drawn by others" in split().out  # make-splits keeps it
    shown = call("splits", "show", "tiny", "--work-dir", tmp_path / "work").out
    assert f"given labelled   labelled.json  sha256 {drawn['files']['labelled.json']}" in shown
    rows = json.loads(call("splits", "list", "--json", "--work-dir", tmp_path / "work").out)
    assert [(one["imported"], one["options"]) for one in rows] == [(True, {})]


def test_an_imported_split_is_trained_on(take: Call, tmp_path: Path, tiny_coco: Path) -> None:
    from cissod_bench.catalogue import load_method
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.running.plan import make_plan

    take()
    plan = make_plan(
        find_task(str(tiny_coco / "tiny.toml")),
        load_method("soft-teacher"),
        data_root=tiny_coco,
        work_dir=tmp_path / "work",
        preset_name="smoke",
    )
    assert plan.split == folder(tmp_path)
    assert plan.manifest.imported is True


def test_boxes_in_the_unlabelled_file_are_never_used(take: Call, tmp_path: Path, published: Path) -> None:
    shutil.copy(published / "hidden.json", published / "unlabelled.json")
    edited(published / "unlabelled.json", lambda data: [box.update(bbox=[0, 0, 3, 3]) for box in data["annotations"]])
    done = take()
    assert done.code == 0
    assert "boxes. None is used: D_u must show none" in done.err
    assert data_bytes(folder(tmp_path)) == data_bytes(folder(tmp_path, work="theirs"))


def test_hidden_boxes_may_be_given(take: Call, tmp_path: Path, tiny_coco: Path, published: Path, call: Call) -> None:
    done = take("--hidden", published / "hidden.json", data_root=only_val(tiny_coco, tmp_path))
    assert done.code == 0
    assert "it was not checked that the images are its own" in done.err
    assert data_bytes(folder(tmp_path)) == data_bytes(folder(tmp_path, work="theirs"))
    manifest = read_manifest(folder(tmp_path)).document
    assert (manifest["hidden_boxes"], list(manifest["inputs"])) == ("given", ["val"])
    assert manifest["imported_files"]["hidden"]["path"] == "hidden.json"
    assert not any("original_boxes" in one for one in manifest["per_class"].values())
    assert call("splits", "verify", "--work-dir", tmp_path / "work").code == 0
    gone = edited(published / "hidden.json", lambda data: data.update(annotations=[], images=data["images"][1:]))
    done = take("--hidden", published / "hidden.json", "--split-seed", 1)
    assert done.code == 3
    assert f"1 images of {published / 'unlabelled.json'} are missing" in done.err
    assert gone["images"]


def test_without_the_boxes_of_d_u_their_counts_are_unknown(
    take: Call, tmp_path: Path, tiny_coco: Path, call: Call
) -> None:
    done = take(data_root=only_val(tiny_coco, tmp_path))
    assert done.code == 0
    assert "The boxes of D_u are not known" in done.err
    made = folder(tmp_path)
    assert content(made / "hidden.json")["annotations"] == []
    manifest = read_manifest(made).document
    assert manifest["hidden_boxes"] == "unknown"
    assert not any("unlabelled_boxes" in one for one in manifest["per_class"].values())
    assert "unknown hidden boxes" in call("splits", "show", made).out
    assert call("splits", "verify", made).code == 0


def test_parts_that_nobody_states_are_found_by_the_minority_boxes(take: Call, tmp_path: Path, published: Path) -> None:
    edited(published / "labelled.json", lambda data: [image.pop("part") for image in data["images"]])
    assert take().code == 0
    assert content(folder(tmp_path) / "labelled.json") == content(folder(tmp_path, work="theirs") / "labelled.json")


def test_boxes_that_were_counted_anew_keep_their_ids_and_hidden_ones_are_lifted(
    take: Call, tmp_path: Path, published: Path, call: Call
) -> None:
    hidden = {box["id"] for box in content(published / "hidden.json")["annotations"]}
    anew = edited(
        published / "labelled.json",
        lambda data: [box.update(id=number) for number, box in enumerate(data["annotations"])],
    )
    assert take().code == 0
    made = folder(tmp_path)
    assert content(made / "labelled.json")["annotations"] == anew["annotations"]
    lifted = {box["id"] for box in content(made / "hidden.json")["annotations"]}
    (offset,) = read_manifest(made).document["offsets"].values()
    assert offset["images"] == 0
    assert lifted == {number + offset["annotations"] for number in hidden}
    assert call("splits", "verify", made).code == 0


def test_images_in_neither_file_are_counted(take: Call, tmp_path: Path, published: Path) -> None:
    edited(published / "unlabelled.json", lambda data: data.update(images=data["images"][3:]))
    assert take().code == 0
    manifest = read_manifest(folder(tmp_path)).document
    assert manifest["left_out"] == {"in neither of the imported files": 3}
    drawn = read_manifest(folder(tmp_path, work="theirs")).document
    assert manifest["counts"]["unlabelled"] == drawn["counts"]["unlabelled"] - 3
    assert manifest["per_class"]["circle"]["original_boxes"] == drawn["per_class"]["circle"]["original_boxes"]


def test_a_split_that_is_there_needs_force(take: Call, split: Call, tmp_path: Path) -> None:
    split("--dm-minority", "ignore")
    before = data_bytes(folder(tmp_path))
    refused = take()
    assert refused.code == 2
    assert "is there already" in refused.err
    assert "--force" in refused.err
    assert data_bytes(folder(tmp_path)) == before
    assert take("--force").code == 0
    assert data_bytes(folder(tmp_path)) == data_bytes(folder(tmp_path, work="theirs"))


def shared_id(files: dict[str, Any]) -> None:
    files["unlabelled"]["images"][0]["id"] = files["labelled"]["images"][0]["id"]


def shared_file(files: dict[str, Any]) -> None:
    files["unlabelled"]["images"][0]["file_name"] = files["labelled"]["images"][0]["file_name"]


def other_class(files: dict[str, Any]) -> None:
    files["labelled"]["categories"][0]["name"] = "disc"


def fewer_classes(files: dict[str, Any]) -> None:
    files["unlabelled"]["categories"].pop()


def unknown_id(files: dict[str, Any]) -> None:
    files["unlabelled"]["images"][1]["id"] = 999


def other_file(files: dict[str, Any]) -> None:
    files["unlabelled"]["images"][1]["file_name"] = "000999.png"


def other_size(files: dict[str, Any]) -> None:
    files["unlabelled"]["images"][1]["width"] += 1


def other_root(files: dict[str, Any]) -> None:
    files["labelled"]["images"][2]["root"] = "coco"


def scored(files: dict[str, Any]) -> None:
    files["labelled"]["images"][2]["root"] = "val"
    files["labelled"]["images"][2]["file_name"] = "000001.png"


def no_box(files: dict[str, Any]) -> None:
    files["labelled"]["annotations"] = []


def no_image(files: dict[str, Any]) -> None:
    files["unlabelled"]["images"] = []


def half_a_part(files: dict[str, Any]) -> None:
    del files["labelled"]["images"][1]["part"]


def minority_in_d_m(files: dict[str, Any]) -> None:
    for image in files["labelled"]["images"]:
        image["part"] = "D_m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shared_id, r"share 1 image ids, the first is"),
        (shared_file, r"share 1 image file, the first is tiny/images/train/"),
        (other_class, r"category 1 is 'circle', but it is 'disc' in"),
        (fewer_classes, r"there is none of that id in"),
        (unknown_id, r"unlabelled.json: images[1] (999, "),
        (other_file, r"is 000999.png, "),
        (other_size, r"Both must agree"),
        (other_root, r"images name the root 'coco'; the task's image folders are train, val"),
        (scored, r"share 1 image file, the first is tiny/images/val/000001.png"),
        (no_box, r"annotations hold no box"),
        (no_image, r"images is empty; D_u needs at least one"),
        (half_a_part, r"images[1].part must be D_m or D_s, as others say. Got ''"),
        (minority_in_d_m, r"is of D_m and shows a minority box"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_breaks_the_contract_is_refused_and_nothing_written(
    take: Call, tmp_path: Path, published: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    files = {role: content(published / f"{role}.json") for role in ("labelled", "unlabelled")}
    change(files)
    for role, data in files.items():
        (published / f"{role}.json").write_text(json.dumps(data), encoding="utf-8")
    done = take()
    assert done.code == 3, done.out
    assert message in done.err
    assert str(published) in done.err
    assert not folder(tmp_path).exists()


def test_files_that_are_missing_or_cut_off_are_named(take: Call, tmp_path: Path, published: Path) -> None:
    path = published / "labelled.json"
    text = path.read_bytes()
    path.write_bytes(text[: len(text) // 2])
    assert f"{path} is cut off" in take().err
    path.unlink()
    assert f"{path} does not exist" in take().err
    assert not folder(tmp_path).exists()


def box(number: int, image: int, category: int) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": [1, 2, 30, 40]}


def test_images_of_two_data_sets_keep_their_folders(call: Call, tmp_path: Path) -> None:
    task, coco_ids = load_task("coco-o365"), [1, *range(2, 91)]
    coco_ids = [number for number in coco_ids if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    classes = [{"id": number, "name": f"class {number}"} for number in range(1, 366)]
    images = [
        {"id": number, "width": 100, "height": 80, "file_name": f"images/v2/patch1/{number}.jpg"}
        for number in range(1, 501)
    ]
    boxes = [box(number, 1 + number % 400, 1 + number * 7 % 365) for number in range(1, 4400)]
    coco = [{"id": number, "width": 100, "height": 80, "file_name": f"{number}.jpg"} for number in coco_ids]
    shown = [box(number, number, number) for number in coco_ids]
    contents = {
        "train": (images, boxes, classes),
        "val": ([{**images[0], "file_name": "images/v2/patch9/900.jpg"}], [], classes),
        "coco": (coco, shown, [{"id": number, "name": f"coco {number}"} for number in coco_ids]),
    }
    for role, parts in contents.items():
        path = tmp_path / task.inputs[role]
        path.parent.mkdir(parents=True, exist_ok=True)
        data = dict(zip(("images", "annotations", "categories"), parts, strict=True))
        path.write_text(json.dumps(data), encoding="utf-8")
    theirs = ensure_split(task, tmp_path, tmp_path / "theirs", draw_options(task))

    def take(seed: int) -> Any:
        files = ("--labelled", theirs.folder / "labelled.json", "--unlabelled", theirs.folder / "unlabelled.json")
        where = ("--data-root", tmp_path, "--work-dir", tmp_path / "work", "--split-seed", seed)
        return call("splits", "import", "--task", "coco-o365", *files, *where)

    assert take(0).code == 0
    made = tmp_path / "work/splits/coco-o365/seed0"
    assert data_bytes(made) == data_bytes(theirs.folder)
    assert read_manifest(made).document["groups"] == theirs.manifest.groups
    assert call("splits", "verify", made).code == 0
    assert call("splits", "verify", theirs.folder).code == 0
    edited(
        theirs.folder / "labelled.json",
        lambda data: [image.pop("root", None) for image in data["images"] if image["part"] == "D_m"],
    )
    done = take(1)
    assert done.code == 3
    assert "Images that are none: 79" in done.err
    assert 'must say in which folder they lie: "root"' in done.err


def test_make_splits_and_run_keep_an_imported_split_without_the_training_file(
    take: Call, tmp_path: Path, tiny_coco: Path, call: Call
) -> None:
    root = only_val(tiny_coco, tmp_path)
    take(data_root=root)
    where = ("--data-root", root, "--work-dir", tmp_path / "work")
    kept = call("make-splits", "--task", tiny_coco / "tiny.toml", *where)
    assert kept.code == 0, kept.err
    path = root / "tiny/annotations/val.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert "was drawn from another" in call("make-splits", "--task", tiny_coco / "tiny.toml", *where).err
