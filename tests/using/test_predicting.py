"""Predicting on photographs: the saved predictions again, broken images left out, thresholds and pictures."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from commands import Called
from PIL import Image
from tiny import CHANGES
from used_runs import SHORT, used_run

import cissod_bench
from cissod_bench.contract.parts import Detections
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.orientation import AS_STORED, TAG, Reading
from cissod_bench.records import run_folder as runs
from cissod_bench.running.plan import Plan
from cissod_bench.using.loaded import load_run, recorded_plan
from cissod_bench.using.photographs import Skipped, listed, photographs
from cissod_bench.using.pictures import colour_of, drawn


def read(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.name.endswith(".gz") else data)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return used_run(tmp_path_factory.mktemp("used"))


def by_image(results: list[dict[str, Any]], images: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = {image["id"]: image["file_name"] for image in images}
    found: dict[str, list[Any]] = {name: [] for name in names.values()}
    for entry in results:
        found[names[entry["image_id"]]].append((entry["category_id"], entry["bbox"], entry["score"]))
    return found


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_on_the_scored_images_it_gives_the_saved_predictions(
    plan: Plan, tmp_path: Path, call: Callable[..., Called], model: str
) -> None:
    done = call("predict", "--run", plan.folder, "--images", plan.images["val"], "--out", tmp_path, "--model", model)
    assert done.code == 0, done.err
    images = read(tmp_path / "images.json")
    saved = runs.PREDICTIONS if model == "teacher" else runs.STUDENT_PREDICTIONS
    expected = by_image(read(plan.folder / saved), read(plan.val)["images"])
    assert by_image(read(tmp_path / "detections.json.gz"), images["images"]) == expected
    assert sum(map(len, expected.values())) > 20
    assert [category["name"] for category in images["categories"]] == list(plan.classes)
    assert "6 images" in done.out


def test_it_needs_neither_the_images_nor_the_files_of_the_training(
    plan: Plan, tmp_path: Path, call: Callable[..., Called]
) -> None:
    moved = shutil.copytree(plan.folder.parents[5], tmp_path / "elsewhere")
    (tmp_path / "photos").mkdir()
    shutil.copy(next(plan.images["val"].iterdir()), tmp_path / "photos" / "a.png")
    run = moved / plan.folder.relative_to(plan.folder.parents[5])
    task = shutil.copy(plan.folder.parents[6] / "data" / "tiny.toml", tmp_path / "tiny.toml")
    words = ("predict", "--run", run, "--task", task, "--images", tmp_path / "photos", "--data-root", tmp_path)
    done = call(*words, "--work-dir", tmp_path / "work", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["images"] == 1
    named = "-".join(plan.folder.parts[-3:])
    assert named.startswith("soft-teacher-smoke-default")
    assert Path(told["dir"]) == tmp_path / "work" / "predictions" / "tiny" / named / "photos"


def test_broken_images_are_named_and_left_out_or_refused(
    plan: Plan, tmp_path: Path, call: Callable[..., Called]
) -> None:
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    whole = next(plan.images["val"].iterdir())
    shutil.copy(whole, photos / "below" / "whole.png")
    (photos / "text.jpg").write_text("no image")
    (photos / "cut.png").write_bytes(whole.read_bytes()[:-40])  # its header is sound
    (photos / "notes.txt").write_text("no image either")
    (photos / "._whole.png").write_bytes(b"of another system")
    words = ("predict", "--run", plan.folder, "--images", photos, "--out", tmp_path / "out")
    done = call(*words, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert sorted(image["name"] for image in told["skipped"]) == ["cut.png", "text.jpg"]
    assert told["images"] == 1
    assert done.err.count("Left out: ") == 2
    assert [image["file_name"] for image in read(tmp_path / "out" / "images.json")["images"]] == ["below/whole.png"]
    new = (*words[:-1], tmp_path / "new" / "out")
    strict = call(*new, "--strict")
    assert strict.code == 3
    assert "text.jpg: this is no image" in strict.err
    (photos / "text.jpg").unlink()
    cut = call(*new, "--strict", "--pictures")  # told while it predicts
    assert (cut.code, "cut.png" in cut.err) == (3, True)
    (photos / "below" / "whole.png").unlink()
    assert "none of the images can be read" in call(*new).err
    assert not (tmp_path / "new").exists()


def test_thresholds_per_class_are_picked_on_val_and_written_beside(
    plan: Plan, tmp_path: Path, call: Callable[..., Called]
) -> None:
    words = (
        "predict",
        "--run",
        plan.folder,
        "--images",
        plan.images["val"],
        "--data-root",
        plan.folder.parents[6] / "data",
    )
    done = call(*words, "--out", tmp_path / "per-class", "--threshold", "per-class", "--json")
    assert done.code == 0, done.err
    written = read(tmp_path / "per-class" / "thresholds.json")
    assert list(written["classes"]) == list(plan.classes)
    assert {name: own["threshold"] for name, own in written["classes"].items()} == json.loads(done.out)["thresholds"]
    names = {category["id"]: category["name"] for category in read(plan.val)["categories"]}
    kept = read(tmp_path / "per-class" / "detections.json.gz")
    assert all(one["score"] >= written["classes"][names[one["category_id"]]]["threshold"] for one in kept)
    every = read(plan.folder / runs.PREDICTIONS)
    for name, own in written["classes"].items():
        expected = [one for one in every if names[one["category_id"]] == name and one["score"] >= own["threshold"]]
        assert sum(names[one["category_id"]] == name for one in kept) == len(expected)
    fixed = call(*words, "--out", tmp_path / "fixed", "--threshold", "0.3")
    assert fixed.code == 0
    assert all(one["score"] >= 0.3 for one in read(tmp_path / "fixed" / "detections.json.gz"))
    for word in ("high", "1.5", "nan"):
        assert "A threshold is a score in [0, 1]. Got" in call(*words, "--threshold", word).err
    assert "leave --checkpoint out" in call(*words, "--threshold", "per-class", "--checkpoint", "best").err


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize("content", ["garbage", "another format", "another run"])
def test_a_wrong_checkpoint_is_told_to_somebody_who_uses_it(
    plan: Plan, tmp_path: Path, call: Callable[..., Called], content: str, command: str
) -> None:
    file = tmp_path / "wrong.pth"
    if content == "garbage":
        file.write_bytes(b"garbage")
    else:
        state = torch.load(plan.folder / runs.CHECKPOINT, weights_only=True)
        change = {"format": 0} if content == "another format" else {"identity": {**state["identity"], "split": "other"}}
        torch.save({**state, **change}, file)
    places = ("--data-root", plan.folder.parents[6] / "data", "--work-dir", plan.folder.parents[5])
    more = ("--images", plan.images["val"], "--out", tmp_path / "out") if command == "predict" else ()
    done = call(command, "--run", plan.folder, "--checkpoint", file, *places, *more)
    assert done.code in (2, 3)
    assert str(file) in done.err
    assert f"-> name a readable checkpoint of {plan.folder}: --checkpoint last, best or FILE" in done.err
    assert not (tmp_path / "out").exists()


def test_pictures_show_the_boxes(plan: Plan, tmp_path: Path, call: Callable[..., Called]) -> None:
    words = ("predict", "--run", plan.folder, "--images", f"{plan.images['val']}/*", "--out", tmp_path)
    done = call(*words, "--pictures", "--threshold", "0.06")
    assert done.code == 0, done.err
    images = read(tmp_path / "images.json")["images"]
    for image in images:
        picture = cv2.imread(str(tmp_path / "pictures" / f"{image['file_name']}.jpg"))
        assert picture.shape[:2] == (image["height"], image["width"])
    original = cv2.imread(str(plan.images["val"] / images[0]["file_name"]))
    changed = np.abs(cv2.imread(str(tmp_path / "pictures" / f"{images[0]['file_name']}.jpg")).astype(int) - original)
    assert (changed.max(axis=2) > 60).mean() > 0.02


def test_a_box_and_its_name_have_the_colour_of_the_class() -> None:
    import torch

    found = Detections(1, 0, torch.tensor([[10.0, 40.0, 50.0, 80.0]]), torch.tensor([1]), torch.tensor([0.9]))
    picture = drawn(np.zeros((100, 100, 3), np.uint8), found, ("disc", "Étoile"))
    assert tuple(picture[60, 10]) == colour_of(1)
    assert tuple(picture[60, 30]) == (0, 0, 0)
    assert len({colour_of(channel) for channel in range(80)}) == 80


def test_a_place_is_a_folder_a_file_or_a_pattern(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "c/d.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(place: str) -> list[str]:
        folder, files = listed(place)
        return [file.relative_to(folder).as_posix() for file in files]

    assert names(str(tmp_path)) == ["a.png", "b.jpg", "c/d.png"]
    assert names(str(tmp_path / "a.png")) == ["a.png"]
    assert names(str(tmp_path / "*.jpg")) == ["b.jpg"]
    assert names(str(tmp_path / "**" / "*.png")) == ["a.png", "c/d.png"]
    for wrong in ("nowhere", "nowhere/*.png"):
        with pytest.raises(DataFault, match="there is no such folder"):
            listed(str(tmp_path / wrong))
    with pytest.raises(DataFault, match="none of the 2 images can be read"):
        photographs(str(tmp_path / "?.*"), AS_STORED)


def test_photographs_are_turned_as_the_run_turned_its_own(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[TAG] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "phone.jpg", exif=exif)
    assert photographs(str(tmp_path), Reading(apply=True)).records([0])[0] == {
        **{"id": 1, "file_name": "phone.jpg", "width": 20, "height": 30}
    }
    stored = photographs(str(tmp_path), AS_STORED)
    assert stored.source.size(0) == (30, 20)
    assert stored.source.image(0).shape == (20, 30, 3)


def test_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "outside.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "photos" / "inside.png")
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "outside.png")
    told = list[Skipped]()
    images = photographs(str(tmp_path / "photos"), AS_STORED, told.append)
    assert [image.name for image in told] == ["link.png"]
    assert "link that leaves" in told[0].reason
    assert len(images.source) == 1
    of_data = photographs(str(tmp_path / "photos"), AS_STORED, within=tmp_path)  # as a training reads them
    assert [of_data.source.image(row).shape for row in range(len(of_data.source))] == [(20, 30, 3)] * 2


def test_a_run_whose_split_is_gone_or_another_is_refused(plan: Plan, tmp_path: Path) -> None:
    record = runs.read_record(plan.folder)
    places = {"data_root": tmp_path, "work_dir": tmp_path}
    with pytest.raises(DataFault, match=r"lies in none of") as told:
        recorded_plan(record, tmp_path, plan.task, plan.method, **places)
    assert "copy the split's folder" in str(told.value)  # an archive of `runs pack` holds its manifest alone
    from cissod_bench.catalogue import load_method

    with pytest.raises(UsageFault, match="holds a run of the method"):
        load_run(plan.folder, plan.task, load_method("ours"), **places)


def test_from_python_a_run_is_found_used_and_reported(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = plan.folder.parents[6]
    places: dict[str, Any] = {"data_root": root / "data", "work_dir": root / "work"}
    settings = dict(change.split("=", 1) for change in (*CHANGES, *SHORT))
    task = root / "data" / "tiny.toml"
    run = cissod_bench.train(task, "soft-teacher", preset="smoke", settings=settings, **places)  # it is there already
    assert (run.folder, run.record.status, set(run.ap)) == (plan.folder, "done", {"all", "maj", "min"})
    found = cissod_bench.predict(run.folder, plan.images["val"], tmp_path / "found", **places)
    saved, again = (read(path) for path in (plan.folder / runs.PREDICTIONS, tmp_path / "found" / "detections.json.gz"))
    assert (found.images, len(again)) == (6, len(saved))
    files = cissod_bench.report(root / "work" / "runs", tmp_path / "tables", formats=["md"], work_dir=root / "work")
    assert files
    assert all(file.is_file() and file.is_relative_to(tmp_path / "tables") for file in files)
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageFault, match="no report format 'pptx'"):
        cissod_bench.report(root / "work" / "runs", formats=["pptx"])
    with pytest.raises(DataFault, match="there is no run to report on"):
        cissod_bench.report(tmp_path / "found")
