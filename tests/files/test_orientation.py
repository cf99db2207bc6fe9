"""EXIF orientation: what is turned, how a data set decides it, and that every reader does the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Called
from PIL import Image, ImageOps
from tiny import CHANGES

from cissod_bench.catalogue import load_method
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.exif_evidence import Evidence, decide, look
from cissod_bench.files.images import check_header, read_image
from cissod_bench.files.orientation import AS_STORED, Reading, reading_of
from cissod_bench.running.assembly import scored_images, sources
from cissod_bench.running.plan import Plan, make_plan
from cissod_bench.running.run import execute

TAGS = range(1, 9)
APPLY = Reading(apply=True)


def picture(width: int = 40, height: int = 30) -> np.ndarray:
    down, right = np.mgrid[0:height, 0:width]
    return np.stack([right * 6, down * 8, (right + down) * 3], axis=2).astype(np.uint8)


def tagged(path: Path, tag: int, pixels: np.ndarray | None = None) -> Path:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(picture() if pixels is None else pixels).save(path, exif=exif)
    return path


def turn(path: Path, tag: int) -> None:
    """Store an image so that it is shown as it was, with an orientation that says how."""
    shown = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = tag
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[tag]
    note = Image.Exif()
    note[0x0112] = back
    shown.info["exif"] = note.tobytes()
    ImageOps.exif_transpose(_with(shown, back)).save(path, exif=exif)


def _with(image: Image.Image, tag: int) -> Image.Image:
    image.getexif()[0x0112] = tag
    return image


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("tag", TAGS)
def test_an_image_is_turned_as_pillow_turns_it_or_not_at_all(tmp_path: Path, tag: int, suffix: str) -> None:
    path = tagged(tmp_path / f"a.{suffix}", tag)
    with Image.open(path) as image:
        stored, shown = np.asarray(image.convert("RGB")), np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    for reading, wanted in ((AS_STORED, stored), (APPLY, shown)):
        read = read_image(path, wanted.shape[1], wanted.shape[0], reading)
        assert read.shape == wanted.shape
        assert read.flags.c_contiguous
        assert np.abs(read[:, :, ::-1].astype(int) - wanted).mean() < 3


@pytest.mark.parametrize("tag", [3, 6])
def test_a_tiff_is_read_as_every_decoder_shows_it(tmp_path: Path, tag: int) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.tiff", tiffinfo={0x0112: tag})
    wanted = np.asarray(Image.open(tmp_path / "a.tiff").convert("RGB"))[:, :, ::-1]
    for reading in (AS_STORED, APPLY):
        assert np.array_equal(read_image(tmp_path / "a.tiff", wanted.shape[1], wanted.shape[0], reading), wanted)


@pytest.mark.parametrize("noted", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path, noted: int) -> None:
    path = tagged(tmp_path / "a.png", noted)
    assert check_header(path).tag == 1
    assert read_image(path, 40, 30, APPLY).shape == (30, 40, 3)


def test_broken_exif_data_is_none(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert check_header(tmp_path / "a.png").tag == 1


def test_the_other_way_round_is_told_with_the_key_that_decides(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.png", 6)
    for reading, size in ((AS_STORED, (30, 40)), (APPLY, (40, 30))):
        with pytest.raises(DataFault, match="EXIF orientation") as fault:
            read_image(path, *size, reading)
        assert 'exif = "auto"' in str(fault.value.remedy)
    with pytest.raises(DataFault, match="its annotation says 31 x 40") as fault:
        read_image(path, 31, 40)
    assert "exif" not in str(fault.value.remedy)


@pytest.mark.parametrize("apply", [False, True])
def test_by_size_an_image_is_read_the_way_that_fits_and_else_as_the_others(tmp_path: Path, apply: bool) -> None:
    reading = Reading(apply=apply, by_size=True)
    path = tagged(tmp_path / "a.png", 6)
    assert np.array_equal(read_image(path, 40, 30, reading), read_image(path, 40, 30, AS_STORED))
    assert np.array_equal(read_image(path, 30, 40, reading), read_image(path, 30, 40, APPLY))
    for half in (tagged(tmp_path / "b.png", 3), tagged(tmp_path / "c.png", 8, picture(30, 30))):
        width, height = Image.open(half).size
        alike = read_image(half, width, height, Reading(apply=apply))
        assert np.array_equal(read_image(half, width, height, reading), alike)


def test_a_folder_is_decided_by_the_sizes_that_tell_and_goes_with_the_others_where_none_does(tmp_path: Path) -> None:
    sixth, third = tagged(tmp_path / "a.png", 6), tagged(tmp_path / "b.png", 3)
    plain = tagged(tmp_path / "c.png", 1)
    shown, stored = look([(sixth, 30, 40), (plain, 40, 30)]), look([(sixth, 40, 30)])
    unclear, nothing = look([(third, 40, 30), (tmp_path / "none.png", 3, 3)]), look([(plain, 40, 30)])
    assert (shown.tagged, unclear.tagged, nothing.tagged) == (1, 1, 0)
    assert decide({"train": shown, "val": nothing}) == {"train": "apply", "val": "none"}
    assert decide({"train": unclear, "val": stored}) == {"train": "ignore", "val": "ignore"}
    assert decide({"train": shown, "val": stored}) == {"train": "apply", "val": "ignore"}
    with pytest.raises(DataFault, match=r"1 of the val images.*b\.png") as fault:
        decide({"train": nothing, "val": unclear})
    assert 'exif = "apply"' in str(fault.value.remedy)
    assert 'exif = "ignore"' in str(fault.value.remedy)
    with pytest.raises(DataFault, match=r"train images contradict each other.*a\.png.*a\.png"):
        decide({"train": shown + stored, "val": nothing})
    assert look([(sixth, 31, 40)]) == Evidence(misfit=(sixth,))


def oriented(root: Path, tags: tuple[int, ...], *, stated: str, roles: tuple[str, ...] = ("train", "val")) -> None:
    """Turn every third image of the tiny data set on its side, or state the sizes as they are stored."""
    for role in roles:
        file = root / f"tiny/annotations/{role}.json"
        content = json.loads(file.read_bytes())
        for number, image in enumerate(content["images"][::3]):
            path = root / f"tiny/images/{role}" / image["file_name"]
            turn(path, tags[number % len(tags)])
            if stated == "stored":
                image["width"], image["height"] = Image.open(path).size
        file.write_text(json.dumps(content), encoding="utf-8")


def planned(root: Path, work: Path, key: str = "") -> Plan:
    file = root / "tiny.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text((f'exif = "{key}"\n' if key else "") + text.removeprefix('exif = "ignore"\n'), encoding="utf-8")
    changes = (*CHANGES, "iterations=2", "generations=2")
    options: Any = {"data_root": root, "work_dir": work, "preset_name": "smoke", "changes": changes}
    return make_plan(find_task(str(file)), load_method("soft-teacher"), **options)


def test_training_and_scoring_read_the_pixels_that_the_boxes_were_drawn_on(tmp_path: Path, tiny_coco: Path) -> None:
    plain = planned(tiny_coco, tmp_path / "plain")
    before = [one.image(row) for source in (*sources(plain), scored_images(plain)[0]) for one in [source] for row in
              range(len(one))]  # fmt: skip
    oriented(tiny_coco, (6, 8, 5, 3), stated="shown")
    plan = planned(tiny_coco, tmp_path / "turned")
    record = execute(plan, restart=False, say=lambda text: None, quiet=True)
    assert record.exif == {"train": "apply", "val": "apply"}
    decided = planned(tiny_coco, tmp_path / "turned", "apply")
    after = [source.image(row) for source in (*sources(decided), scored_images(decided)[0]) for row in
             range(len(source))]  # fmt: skip
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_sizes_as_stored_leave_the_images_as_they_are(tmp_path: Path, tiny_coco: Path) -> None:
    oriented(tiny_coco, (6, 3), stated="stored")
    record = execute(planned(tiny_coco, tmp_path), restart=False, say=lambda text: None, quiet=True)
    assert record.exif == {"train": "ignore", "val": "ignore"}


def test_a_run_with_images_that_do_not_tell_is_refused_until_the_task_says(tmp_path: Path, tiny_coco: Path) -> None:
    oriented(tiny_coco, (3,), stated="shown")
    with pytest.raises(DataFault, match="no stated size tells"):
        execute(planned(tiny_coco, tmp_path), restart=False, say=lambda text: None, quiet=True)
    plan = planned(tiny_coco, tmp_path, "ignore")
    assert execute(plan, restart=False, say=lambda text: None, quiet=True).exif == {"train": "ignore", "val": "ignore"}
    changed = replace(plan, task=replace(plan.task, exif="apply"))
    (plan.folder / "run.json").write_bytes((plan.folder / "run.json").read_bytes().replace(b'"done"', b'"interrupted"'))
    with pytest.raises(UsageFault, match="EXIF orientation 'ignore'; now it would be 'apply'"):
        execute(changed, restart=False, say=lambda text: None, quiet=True)


def test_a_run_with_images_that_contradict_each_other_is_refused(tmp_path: Path, tiny_coco: Path) -> None:
    oriented(tiny_coco, (6,), stated="shown", roles=("train",))
    file = tiny_coco / "tiny/annotations/train.json"
    content = json.loads(file.read_bytes())
    first = content["images"][0]
    first["width"], first["height"] = Image.open(tiny_coco / "tiny/images/train" / first["file_name"]).size
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataFault, match="train images contradict each other"):
        execute(planned(tiny_coco, tmp_path), restart=False, say=lambda text: None, quiet=True)


@pytest.mark.parametrize("role", ["train", "val"])
def test_the_deep_check_counts_orientations_and_decides_as_a_run_does(
    call: Callable[..., Called], tiny_coco: Path, tmp_path: Path, role: str
) -> None:
    words = ("data", "check", "--deep", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--json",
             "--work-dir", tmp_path)  # fmt: skip
    assert all(check["counts"].get("oriented", 0) == 0 for check in json.loads(call(*words).out)[0]["checks"])
    oriented(tiny_coco, (6, 3), stated="shown", roles=(role,))
    done = call(*words)
    assert done.code == 0, done.err
    checks = {(one["role"], one["what"]): one for one in json.loads(done.out)[0]["checks"]}
    expected = {"train": 14, "val": 4}[role]
    assert checks[role, "images"]["counts"]["oriented"] == expected
    assert checks[role, "images"]["exif"] == "apply"
    assert f"{expected} with an EXIF orientation (turned)" in " ".join(
        call(*[w for w in words if w != "--json"]).out.split()
    )


def test_the_deep_check_refuses_images_that_do_not_tell(
    call: Callable[..., Called], tiny_coco: Path, tmp_path: Path
) -> None:
    oriented(tiny_coco, (3,), stated="shown")
    words = ("data", "check", "--deep", "--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco)
    done = call(*words, "--work-dir", tmp_path)
    assert done.code == 3
    assert "no stated size tells" in " ".join(done.out.split())


@pytest.mark.parametrize("case", ["exchanged", "turned, size as shown", "turned, size as stored", "sound"])
def test_a_run_survives_whatever_images_listed_as_exchanged_turn_out_to_be(
    tmp_path: Path, tiny_coco: Path, case: str
) -> None:
    file = tiny_coco / "tiny/annotations/train.json"
    content = json.loads(file.read_bytes())
    listed = [image for image in content["images"] if image["width"] != image["height"]][:6]
    pixels = {}
    for image in listed:
        path = tiny_coco / "tiny/images/train" / image["file_name"]
        pixels[image["file_name"]] = np.asarray(Image.open(path).convert("RGB"))
        if case.startswith("turned"):
            turn(path, 6)
        if case in ("exchanged", "turned, size as stored"):
            image["width"], image["height"] = image["height"], image["width"]
    file.write_text(json.dumps(content), encoding="utf-8")
    plan = planned(tiny_coco, tmp_path / "unlisted")
    task = replace(plan.task, exif="sizes", swapped=tuple(image["file_name"] for image in listed))
    options: Any = {"preset_name": "smoke", "changes": (*CHANGES, "iterations=2", "generations=2")}
    plan = make_plan(task, load_method("oracle"), data_root=tiny_coco, work_dir=tmp_path, **options)
    assert execute(plan, restart=False, say=lambda text: None, quiet=True).exif == {"train": "sizes", "val": "sizes"}
    source = sources(plan)[0]
    rows = {source.name(row): row for row in range(len(source))}
    shown = [one for one in content["annotations"] if one["category_id"] <= 3]  # minority boxes of D_m are dropped
    for image in listed:
        row = rows[image["file_name"]]
        read = source.image(row)[:, :, ::-1]
        assert read.shape[:2] == source.size(row)[::-1]
        kept = {tuple(np.round(box, 2).tolist()) for box in source.boxes[source.box_rows(row)].astype(float)}
        for x, y, width, height in (one["bbox"] for one in shown if one["image_id"] == image["id"]):
            assert (x, y, round(x + width, 2), round(y + height, 2)) in kept
        if case != "turned, size as stored":  # the boxes are those of the picture as it is shown
            assert np.array_equal(read, pixels[image["file_name"]])


def test_built_in_tasks_on_the_images_of_coco_or_drawn_ones_never_look() -> None:
    assert reading_of("ignore") == AS_STORED
    assert {find_task(name).exif for name in ("coco-split1", "coco-split2", "lvis", "toy", "toy-longtail")} == {
        "ignore"
    }
