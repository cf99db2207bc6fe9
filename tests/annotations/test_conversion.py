"""``data convert``: COCO files with the same classes in all parts, and which part lacks which class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from label_formats import Photo, photos, write_coco, write_images, write_voc, write_yolo

from cissod_bench.annotations.class_names import join_classes
from cissod_bench.annotations.label_files import read_labels
from cissod_bench.annotations.reading import read_annotations

Call = Callable[..., Any]
BOX = (1, 2, 30, 40)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of VOC that name other classes."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write_voc(tmp_path / "a", [Photo("one", (("seal", BOX), ("boat", BOX), ("seal", BOX)))])
    second = write_voc(tmp_path / "b", [Photo("two", (("seal", BOX), ("auk", BOX), ("Sea l", BOX)))])
    return first, second


def test_classes_are_joined_by_name_and_each_part_says_what_it_lacks(two: tuple[Path, Path]) -> None:
    contents, report = join_classes({part: read_labels(path) for part, path in zip(("train", "val"), two, strict=True)})
    assert dict(report.numbers) == {"boat": 1, "seal": 2, "Sea l": 3, "auk": 4}
    assert contents["train"]["categories"] == contents["val"]["categories"]
    assert [box["category_id"] for box in contents["val"]["annotations"]] == [2, 4, 3]
    assert report.objects == {"train": {"boat": 1, "seal": 2}, "val": {"Sea l": 1, "auk": 1, "seal": 1}}
    assert report.missing == {"train": ("Sea l", "auk"), "val": ("boat",)}
    assert report.unlike == (("seal", "Sea l"),)
    assert report.warnings[1] == "val does not name 'boat', which train names."


def test_a_class_keeps_what_else_its_record_says(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "a.json", photos(2))
    content = json.loads(path.read_text())
    content["categories"][2] = {"id": 70, "name": " seal ", "supercategory": "animal"}
    for box in content["annotations"]:
        box["category_id"] = {3: 70}.get(box["category_id"], box["category_id"])
    path.write_text(json.dumps(content))
    contents, report = join_classes({"train": read_labels(path)})
    assert contents["train"]["categories"][2] == {"id": 70, "name": "seal", "supercategory": "animal"}
    assert contents["train"]["annotations"] == content["annotations"]
    assert report.warnings == ()


def test_data_convert_writes_every_part_of_a_data_yaml(tmp_path: Path, call: Call) -> None:
    data = write_yolo(tmp_path, photos(3))
    (tmp_path / "images/val").symlink_to("train")
    (tmp_path / "labels/val").symlink_to("train")
    data.write_text(data.read_text() + "val: images/val\n")
    done = call("data", "convert", data, "--out", tmp_path / "coco", "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert list(facts["parts"]) == ["train", "val"]
    assert facts["missing"] == {}
    for part in ("train", "val"):
        with read_annotations(Path(facts["parts"][part]["file"])) as read:
            assert len(read.image_ids) == 3
            assert read.classes == ("boat", "puffin", "seal")


def test_data_convert_tells_which_part_lacks_which_class(two: tuple[Path, Path], tmp_path: Path, call: Call) -> None:
    done = call("data", "convert", f"train={two[0]}", f"val={two[1].parent}", "--out", tmp_path / "coco")
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["boat", "1", "not", "named"] in rows
    assert ["seal", "2", "1"] in rows
    assert "Warning: val does not name 'boat', which train names." in done.err
    assert "'seal' and 'Sea l' are two classes; is one meant?" in done.err
    assert f"{tmp_path}/coco/val.json: 1 images below {two[1].parent}/JPEGImages, 3 boxes" in done.out


WRONG = {
    ("a=x.json", "a=y.json"): (2, "There are two parts 'a'"),
    ("../a=x.json",): (2, "cannot be the name of a part"),
    ("x.json", "--images", "b=photos"): (2, "there is no part 'b'; there is x"),
    ("x.csv",): (3, "x.csv does not exist"),
    ("x.json",): (3, "x.json"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_data_convert_cannot_do_is_one_message_with_a_remedy(
    tmp_path: Path, call: Call, words: tuple[str, ...]
) -> None:
    code, message = WRONG[words]
    done = call("data", "convert", *words, "--out", tmp_path / "coco")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n  -> ") == 1
    assert not (tmp_path / "coco").exists()


def test_images_may_be_named_for_all_parts_and_for_one(tmp_path: Path, call: Call) -> None:
    shown = photos(2)
    labels = write_coco(tmp_path / "labels.json", shown)
    write_images(tmp_path / "photos", shown)
    options = ("--images", f"b={tmp_path}/photos", "--images", tmp_path)
    facts = json.loads(
        call("data", "convert", f"a={labels}", f"b={labels}", *options, "--out", tmp_path / "c", "--json").out
    )
    assert [facts["parts"][part]["images"] for part in "ab"] == [str(tmp_path), f"{tmp_path}/photos"]


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_a_python_task_that_is_drawn_from_another_format_is_told_to_convert_it_first(
    tmp_path: Path, call: Call, kind: str
) -> None:
    shown = photos(40)
    source = {"yolo": write_yolo, "voc": write_voc}[kind](tmp_path, shown)
    images = {"yolo": "images/train", "voc": "JPEGImages"}[kind]
    (tmp_path / "held").mkdir()
    write_images(tmp_path / "held", [Photo("v", (("puffin", BOX), ("seal", BOX), ("boat", BOX)))])
    write_coco(tmp_path / "val.json", [Photo("v", (("puffin", BOX), ("seal", BOX), ("boat", BOX)))])

    def drawn(annotations: str) -> Any:
        (tmp_path / "harbour.py").write_text(
            "from cissod_bench.splitting.scenarios import draw_by_minority\n"
            "from cissod_bench.splitting.task import Task\n"
            'TASK = Task(title="H", source="tests", minority=("puffin",), groups=("maj", "min"), iterations=1,\n'
            f'    inputs={{"train": "{annotations}", "val": "val.json"}},\n'
            f'    images={{"train": "{images}", "val": "held"}},\n'
            '    draw=draw_by_minority, draw_defaults={"min_instances": 3, "labelled_percent": 30.0})\n'
        )
        places = ("--data-root", tmp_path, "--work-dir", tmp_path / "work")
        return call("make-splits", "--task", tmp_path / "harbour.py", *places)

    done = drawn(source.relative_to(tmp_path).as_posix())
    assert done.code == 3
    assert "is no COCO file" in done.err
    assert f"cissod-bench data convert train={source} --out annotations" in done.err
    assert call("data", "convert", f"train={source}", "--out", tmp_path / "annotations").code == 0
    assert drawn("annotations/train.json").code == 0
