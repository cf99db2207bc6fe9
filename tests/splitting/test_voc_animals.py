"""voc-animals: which photographs, how they are divided, and that a partial copy is refused with what it lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from split_folders import content
from voc_folders import BOX, YEAR, add_image, name_of, object_text, small_copy

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.catalogue import load_method, load_task
from cissod_bench.errors import DataFault
from cissod_bench.running.assembly import has_ignore_regions, sources
from cissod_bench.running.plan import make_plan
from cissod_bench.split_folders.data_check import DataCheck, Depth
from cissod_bench.split_folders.ensure import draw_options, dry_split, ensure_split, missing_inputs
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.voc_files import VOC2012
from splits.voc_animals import is_scored

Call = Callable[..., Any]


@pytest.fixture
def small(tmp_path: Path) -> Task:
    """The task on a small copy below ``tmp_path / "data"``."""
    return small_copy(tmp_path / "data")


def drawn(task: Task, tmp_path: Path, data: str = "data") -> Any:
    return ensure_split(task, tmp_path / data, tmp_path / "work", draw_options(task))


def files_of(tmp_path: Path) -> dict[str, Any]:
    return {role: content(tmp_path / f"work/data/voc-animals/annotations/{role}.json") for role in ("train", "val")}


def test_a_quarter_is_scored_and_the_rest_is_drawn_from(small: Task, tmp_path: Path) -> None:
    split = drawn(small, tmp_path)
    files = files_of(tmp_path)
    for role, file in files.items():
        assert file["images"]
        assert {is_scored(image["file_name"]) for image in file["images"]} == {role == "val"}
    counts = split.manifest.counts
    assert counts["labelled"] + counts["unlabelled"] == len(files["train"]["images"])
    assert split.manifest.groups == {"maj": ["cat", "dog", "person"], "min": ["cow", "horse", "sheep"]}


def test_records_have_numbers_of_the_names_and_difficult_objects_are_ignore_regions(
    small: Task, tmp_path: Path
) -> None:
    drawn(small, tmp_path)
    boxes = [box for file in files_of(tmp_path).values() for box in file["annotations"]]
    by_image = {image: [box for box in boxes if box["image_id"] == image] for image in (2008000010, 2008000011)}
    assert [(box["id"], box["category_id"], box["bbox"], box["iscrowd"]) for box in by_image[2008000010]] == [
        (2008000010001, 12, [2.0, 1.0, 18.5, 18.0], 0),
        (2008000010002, 15, [2.0, 1.0, 18.5, 18.0], 0),
        (2008000010003, 12, [0.0, 0.0, 9.0, 9.0], 1),
    ]
    assert [box["category_id"] for box in by_image[2008000011]] == [8]
    with read_annotations(tmp_path / "work/data/voc-animals/annotations/train.json") as data:
        assert data.crowd.sum() == sum(box["iscrowd"] for box in files_of(tmp_path)["train"]["annotations"]) > 0
        assert not (data.instances() & data.crowd).any()


def test_other_classes_boxes_are_left_out(tmp_path: Path) -> None:
    task = small_copy(tmp_path / "data")
    path = tmp_path / "data" / VOC2012 / "Annotations" / "2008_000002.xml"
    sofa = object_text(("sofa", BOX), difficult="1")
    path.write_text(path.read_text().replace("</annotation>", f"{sofa}</annotation>"))
    drawn(task, tmp_path)
    boxes = [box for file in files_of(tmp_path).values() for box in file["annotations"]]
    assert {box["category_id"] for box in boxes} == {8, 10, 12, 13, 15, 17}
    assert len([box for box in boxes if box["image_id"] == 2008000002]) == 1


def test_a_partial_copy_is_refused_with_what_it_lacks(small: Task, tmp_path: Path) -> None:
    (tmp_path / "data" / VOC2012 / "JPEGImages" / name_of(2)).unlink()
    (tmp_path / "data" / VOC2012 / "Annotations" / "2008_000004.xml").unlink()
    with pytest.raises(DataFault) as fault:
        drawn(small, tmp_path)
    assert fault.value.message == (
        f"{tmp_path / 'data' / VOC2012}: 78 of 80 images that show cat, cow, dog, horse, sheep; missing "
        "Annotations/2008_000004.xml, JPEGImages/2008_000002.jpg (2008: 78 of 80 images; dog: 19 of 20 boxes; "
        "horse: 6 of 7 boxes; all classes: 94 of 96 boxes)."
    )
    assert "VOCtrainval_11-May-2012.tar" in str(fault.value.remedy)
    assert not (tmp_path / "work/data/voc-animals").exists()


def test_of_images_that_are_wholly_missing_the_year_is_told(small: Task, tmp_path: Path) -> None:
    for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (tmp_path / "data" / VOC2012 / folder / f"2008_000002.{ending}").unlink()
    with pytest.raises(DataFault, match=r"79 of 80 images that show .* \(2008: 79 of 80 images; dog: 19 of 20 boxes"):
        drawn(small, tmp_path)


def test_images_that_are_too_many_are_refused(small: Task, tmp_path: Path) -> None:
    add_image(tmp_path / "data", 500, ("dog", BOX))
    with pytest.raises(DataFault, match="81 of 80 images"):
        drawn(small, tmp_path)


def test_photographs_of_the_test_set_without_annotations_are_no_fault(small: Task, tmp_path: Path) -> None:
    add_image(tmp_path / "data", 500, ("dog", BOX)).unlink()
    add_image(tmp_path / "data", 501, ("person", BOX))
    assert drawn(small, tmp_path).fresh


def test_a_copy_without_its_difficult_objects_gives_the_same_images(small: Task, tmp_path: Path) -> None:
    first = drawn(small, tmp_path).manifest.ids_sha256
    for path in (tmp_path / "data" / VOC2012 / "Annotations").iterdir():
        kept = [part for part in path.read_text().split("<object>") if "<difficult>1" not in part]
        text = "<object>".join(kept)
        path.write_text(text if text.rstrip().endswith("</annotation>") else text + "</annotation>")
    options = draw_options(small)
    assert dry_split(small, tmp_path / "data", tmp_path / "other", options).manifest.ids_sha256 == first


def test_the_files_are_written_once_and_again_when_the_copy_changes(small: Task, tmp_path: Path) -> None:
    drawn(small, tmp_path)
    stamp = tmp_path / "work/data/voc-animals/stamp.json"
    written = stamp.stat().st_mtime_ns
    assert not drawn(small, tmp_path).fresh
    assert stamp.stat().st_mtime_ns == written
    path = tmp_path / "data" / VOC2012 / "Annotations" / f"{YEAR}_000002.xml"
    path.write_text(path.read_text().replace("20.5", "21.5"))
    with pytest.raises(DataFault, match="it was drawn from another"):
        drawn(small, tmp_path)


def test_a_run_reads_the_photographs_from_the_data_root(small: Task, tmp_path: Path) -> None:
    where = {"data_root": tmp_path / "data", "work_dir": tmp_path / "work"}
    made = make_plan(small, load_method("soft-teacher"), **where)
    photographs = tmp_path / "data" / VOC2012 / "JPEGImages"
    assert {folder.resolve() for folder in made.images.values()} == {photographs.resolve()}
    assert made.preset == small.usual_preset == "photo"


@pytest.mark.parametrize("difficult", [True, False])
def test_difficult_objects_of_d_l_are_no_background_in_training(tmp_path: Path, difficult: bool) -> None:
    task = small_copy(tmp_path / "data", difficult=("dog", "cat") if difficult else ())
    made = make_plan(task, load_method("soft-teacher"), data_root=tmp_path / "data", work_dir=tmp_path / "work")
    labelled, _ = sources(made)
    assert labelled.ignored.any() == difficult
    assert has_ignore_regions(made, labelled) == difficult
    other = replace(made, task=replace(task, crowd_ignored=False))
    assert not has_ignore_regions(other, labelled)


def test_data_check_tells_what_is_there_missing_and_broken(small: Task, tmp_path: Path) -> None:
    check = DataCheck(tmp_path / "data", tmp_path / "work", others=[small], depth=Depth(deep=True)).check
    found = check(small)
    assert (found.state, found.faults, found.warnings) == ("ok", (), ())
    assert [(one.role, one.what, one.counts.get("faulty")) for one in found.checks] == [
        ("train", "annotations", None),
        ("val", "annotations", None),
        ("train", "images", 0),
        ("val", "images", 0),
    ]
    assert found.checks[2].path == str(tmp_path / "data" / VOC2012 / "JPEGImages")
    assert not (tmp_path / "work").exists()
    (tmp_path / "data" / VOC2012 / "JPEGImages" / name_of(2)).write_bytes(b"no photograph")
    assert [text for one in check(small).checks for text in one.faults if str(tmp_path / "data") in text]
    (tmp_path / "data" / VOC2012 / "JPEGImages" / name_of(2)).unlink()
    (broken,) = check(small).checks
    assert (broken.state, broken.faults[0].split(":")[1][:9]) == ("broken", " 79 of 80")


def test_without_voc_the_task_names_the_folders_and_where_they_come_from(call: Call, tmp_path: Path) -> None:
    lines = missing_inputs(load_task("voc-animals"), tmp_path)
    assert [line.partition(": ")[0] for line in lines] == [
        str(tmp_path / VOC2012 / folder) for folder in ("Annotations", "JPEGImages")
    ]
    assert all("VOCtrainval_11-May-2012.tar" in line for line in lines)
    where = ("--data-root", tmp_path, "--work-dir", tmp_path / "work")
    done = call("make-splits", "--task", "voc-animals", *where)
    assert done.code == 3
    assert "VOCdevkit/VOC2012/Annotations is missing" in done.err
    done = call("data", "check", "--task", "voc-animals", *where, "--json")
    assert done.code == 3
    assert json.loads(done.out)[0]["state"] == "missing"


# Of a copy whose photographs are shrunk to a shorter side of 256 pixels, without difficult objects.
REAL_SHA256 = "21bcc279c28e14d14655419c90dcfcf5e0dd764fe6d9ef68b0d54d6dab82b385"
FIFTH_SHA256 = "943319ab1cd298d529ebe0e6bb5a63d70400e2c58d0bc8942e8dba2dd34285bd"
FIFTH_IDS_SHA256 = "ad1e16e664a2dc8dbb93f421b8ce05fc341fa21067d3a498778153f9bb68f249"
REAL_IDS_SHA256 = {
    "D_m": "c218ccca42eaf7b01888e1fddbea32114b015eb914b3bb013b55258f7f4cfa1e",
    "D_s": "a272960487cf73b3255bb2f92fcb5fe468db91ab989c5b8ddae94a024f88b318",
    "unlabelled": "39007fa5da2cb554293cbaaf644489176576fe301f0cda572eb2323eac94bc12",
}


def test_the_split_of_the_real_photographs_with_seed_0_is_this_one(test_data: Path, tmp_path: Path) -> None:
    if not (test_data / VOC2012).is_dir():
        pytest.skip(f"CISSOD_TEST_DATA has no {VOC2012}")
    task = load_task("voc-animals")
    whole = ensure_split(task, test_data, tmp_path / "whole", draw_options(task, unlabelled_percent=100.0)).manifest
    assert whole.counts == {"D_m": 210, "D_s": 18, "labelled": 228, "unlabelled": 2502}
    assert (whole.boxes.labelled, whole.boxes.ignored, whole.boxes.hidden) == (352, 0, 4242)
    assert whole.ids_sha256 == REAL_IDS_SHA256  # of any copy
    assert whole.split_sha256 == REAL_SHA256
    manifest = ensure_split(task, test_data, tmp_path, draw_options(task)).manifest
    assert manifest.counts == {**whole.counts, "unlabelled": 500}  # what preset photo sees ten times
    assert manifest.ids_sha256 == {**REAL_IDS_SHA256, "unlabelled": FIFTH_IDS_SHA256}
    assert manifest.split_sha256 == FIFTH_SHA256
    val = content(tmp_path / "data/voc-animals/annotations/val.json")
    assert len(val["images"]) == 878
