"""What is odd in a user's own data is told: broken photographs, unread formats, spellings, missing files."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called
from label_formats import photos, write_yolo
from own_data import harbour, read, split_of, write
from PIL import Image

from cissod_bench.errors import DataFault

Call = Callable[..., Called]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return the harbour's task file."""
    return harbour(tmp_path / "harbour")


def test_a_photograph_that_is_cut_off_or_of_an_unread_format_is_left_out_and_counted(own: Path) -> None:
    unlabelled = own.parent / "unlabelled"
    Image.effect_noise((80, 80), 60).convert("RGB").save(unlabelled / "whole.jpg")
    whole = (unlabelled / "whole.jpg").read_bytes()
    (unlabelled / "cut.jpg").write_bytes(whole[:-200])
    (unlabelled / "phone.jpg").write_bytes(whole + b"what a phone writes behind it")
    png = next(unlabelled.glob("*.png")).read_bytes()
    (unlabelled / "quay" / "cut.png").write_bytes(png[:-40])
    (unlabelled / "quay" / "IMG_1.HEIC").write_bytes(b"of a phone")
    manifest = split_of(own).manifest
    assert manifest.counts["unlabelled"] == 30
    assert manifest.left_out == {
        "of D_u that cannot be read, left out": 2,
        "of D_u in formats that are not read (such as HEIC), left out": 1,
    }


def test_a_labelled_class_that_no_scored_image_shows_is_told_with_the_likely_spelling(own: Path, call: Call) -> None:
    content = read(own.parent / "labelled.json")
    content["categories"].append({"id": 9, "name": "sqaure"})
    content["annotations"][0]["category_id"] = 9
    write(own.parent / "labelled.json", content)
    told = "1 class with labelled boxes and no scored one, so without an AP: 'sqaure'. Should 'sqaure' be 'square'?"
    work = own.parents[1] / "work"
    assert f"Note: {told}" in call("make-splits", "--task", own, "--work-dir", work).out
    checked = call("data", "check", "--task", own, "--work-dir", work)
    assert f"Warning: {told}" in checked.err
    assert "12 labelled images, 28 photographs" in " ".join(checked.out.split())
    assert f"Listing {own.parent / 'unlabelled'}" in checked.out
    assert "/tmp" not in checked.out.replace(str(own.parent), "")


def test_what_a_check_refuses_is_told_with_its_remedy(own: Path, call: Call) -> None:
    content = read(own.parent / "labelled.json")
    content["categories"][0]["name"] = "Circle"
    write(own.parent / "labelled.json", content)
    checked = call("data", "check", "--task", own, "--work-dir", own.parents[1] / "work")
    assert "-> give a class the same name in both" in checked.out


def test_a_missing_image_is_told_with_the_file_that_it_may_be(own: Path, call: Call) -> None:
    first, second, *_ = sorted((own.parent / "photos").glob("a*"))
    first.rename(first.with_suffix(".PNG"))
    second.unlink()
    checked = call("data", "check", "--task", own, "--work-dir", own.parents[1] / "work")
    assert f"{first} is missing; there is {first.stem}.PNG\n" in checked.out
    assert f"{second} is missing\n" in checked.out


def test_all_that_a_task_file_names_and_that_is_missing_is_told_at_once_with_the_likely_name(
    own: Path, call: Call
) -> None:
    text = (
        own.read_text(encoding="utf-8")
        .replace('"unlabelled"', '["unlabeled", "more"]')
        .replace("val.json", "vall.json")
    )
    own.write_text(text, encoding="utf-8")
    lines = ("unlabelled] images: unlabeled. Did you mean 'unlabelled'?", "unlabelled] images: more\n", "'val.json'?")
    where = ("--task", own, "--work-dir", own.parents[1] / "work", "--data-root", own.parents[1] / "none")
    made = call("make-splits", *where)
    assert made.code == 3
    assert all(line in made.err for line in lines)
    assert f"correct the names in {own}" in made.err
    checked = call("data", "check", *where)
    assert all(line in checked.out for line in lines)
    assert "official sources" not in checked.out
    assert "Reading" not in made.out


def test_a_folder_of_photographs_in_unread_formats_alone_is_refused(own: Path) -> None:
    shutil.rmtree(own.parent / "unlabelled")
    (own.parent / "unlabelled").mkdir()
    (own.parent / "unlabelled" / "a.heic").write_bytes(b"of a phone")
    with pytest.raises(DataFault, match=r"1 pictures are of formats that are not read, such as a\.heic") as fault:
        split_of(own)
    assert fault.value.remedy == "write them as JPEG or PNG"


def test_scored_images_that_are_labelled_are_refused_and_copies_of_such_are_told(own: Path, call: Call) -> None:
    labelled, scored = sorted((own.parent / "photos").glob("a*"))[0], sorted((own.parent / "photos").glob("b*"))[0]
    shutil.copy(labelled, scored)
    where = ("--task", own, "--work-dir", own.parents[1] / "work")
    told = f"1 scored image has the bytes of a labelled one, so that AP says too much: {scored}."
    assert f"Note: {told}" in call("make-splits", *where).out
    assert f"Warning: {told}" in call("data", "check", *where).err
    own.write_text(own.read_text(encoding="utf-8").replace("val.json", "labelled.json"), encoding="utf-8")
    for done in (call("make-splits", *where), call("data", "check", *where)):
        assert done.code == 3
        assert (
            f"12 of 12 scored images are labelled images, the first is {labelled}; an image that is"
            in done.out + done.err
        )
        assert "name other labels in [val]" in done.out + done.err
        assert "train.json" not in done.out + done.err


def test_photographs_that_cannot_be_read_are_named(own: Path, call: Call) -> None:
    for number in range(4):
        (own.parent / "unlabelled" / f"broken {number}.JPG").write_bytes(b"\xff\xd8 no end")
    told = call("make-splits", "--task", own, "--work-dir", own.parents[1] / "work")
    assert "Note: 4 unlabelled photographs are left out: " in told.out
    assert all((f"broken {number}.JPG" in told.out) == (number < 3) for number in range(4))
    assert "  in no part: 4 images of D_u that cannot be read" in told.out


def test_a_check_tells_every_minority_class_that_does_not_exist(own: Path, call: Call) -> None:
    own.write_text(own.read_text(encoding="utf-8").replace('"heart", "arrow"', '"Heart", "arow"'), encoding="utf-8")
    where = ("--task", own, "--work-dir", own.parents[1] / "work")
    for done in (call("data", "check", *where), call("make-splits", *where)):
        assert done.code
        assert (
            "no class 'Heart'. Did you mean 'heart'? There is no class 'arow'. Did you mean 'arrow'? Kn"
            in done.out + done.err
        )


@pytest.mark.parametrize("command", [("make-splits",), ("data", "check")])
def test_pictures_in_unread_formats_and_pipes_are_named(own: Path, call: Call, command: tuple[str, ...]) -> None:
    for name in ("IMG_1.HEIC", "old.gif"):
        (own.parent / "unlabelled" / name).write_bytes(b"of a phone")
    os.mkfifo(own.parent / "unlabelled" / "pipe.jpg")
    done = call(*command, "--task", own, "--work-dir", own.parents[1] / "work")
    told = done.out + done.err
    named = ", ".join(f"{own.parent}/unlabelled/{name}" for name in ("IMG_1.HEIC", "old.gif"))
    assert f"2 unlabelled pictures are left out, because only formats such as JPEG and PNG are read: {named}." in told
    assert f"{own.parent}/unlabelled/pipe.jpg: the image cannot be read (a pipe or device)." in told
    assert done.code == 0


@pytest.mark.parametrize("twin", ["Circle", "cir_cle", "CIRCLE"])
def test_two_spellings_of_a_class_that_both_parts_show_are_told(own: Path, call: Call, twin: str) -> None:
    for name in ("labelled.json", "val.json"):
        content = read(own.parent / name)
        content["categories"].append({"id": 9, "name": twin})
        content["annotations"][0]["category_id"] = 9
        write(own.parent / name, content)
    checked = call("data", "check", "--task", own, "--work-dir", own.parents[1] / "work")
    assert f"Warning: 'circle' and '{twin}' are two classes; is one meant?" in checked.err


@pytest.mark.parametrize("forms", [("NFC", "NFD", "NFC"), ("NFD", "NFC", "NFD"), ("NFC", "NFC", "NFD")])
def test_an_accent_is_the_same_however_it_is_written(own: Path, forms: tuple[str, str, str]) -> None:
    name = "H\u00e9rz \u00d6l"
    for file, form in zip(("labelled.json", "val.json", "harbour.toml"), forms, strict=False):
        path, written = own.parent / file, unicodedata.normalize(form, name)
        path.write_text(path.read_text(encoding="utf-8").replace('"heart"', f'"{written}"'), encoding="utf-8")
    assert name in split_of(own).manifest.groups["min"]


@pytest.mark.parametrize(("file", "lack"), [("labelled.json", "learned"), ("val.json", "scored")])
@pytest.mark.parametrize("crowds", [False, True])
def test_labels_without_a_box_are_refused_by_the_users_own_name(
    own: Path, file: str, lack: str, *, crowds: bool
) -> None:
    content = read(own.parent / file)
    content["annotations"] = [{**box, "iscrowd": 1} for box in content["annotations"]] if crowds else []
    write(own.parent / file, content)
    with pytest.raises(DataFault, match=rf"{file}: its images have no box .*no class could be {lack}") as fault:
        split_of(own)
    assert "train.json" not in fault.value.message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("file", ["labelled.json", "val.json"])
def test_a_number_that_json_does_not_know_is_told_with_its_place(own: Path, file: str, number: str) -> None:
    content = read(own.parent / file)
    content["annotations"][3]["bbox"][2] = float(number)
    (own.parent / file).write_text(json.dumps(content, indent=1), encoding="utf-8")
    line = 1 + next(row for row, text in enumerate((own.parent / file).open()) if number in text)
    words = number if number != "-Infinity" else "Infinity"
    with pytest.raises(DataFault, match=rf"{file}, line {line}, byte \d+: -?{words} within the value of 'annotations'"):
        split_of(own)


def test_a_data_yaml_with_one_part_for_both_is_told_to_have_no_val(own: Path) -> None:
    data = write_yolo(own.parent / "yolo", photos(6))
    text = own.read_text(encoding="utf-8").replace('images = "photos"\n', "").replace('["heart", "arrow"]', '["boat"]')
    for name in ("labelled.json", "val.json"):
        text = text.replace(name, "yolo/data.yaml")
    own.write_text(text, encoding="utf-8")
    with pytest.raises(DataFault, match="6 of 6 scored images are labelled images") as fault:
        split_of(own)
    assert fault.value.remedy == f"name other labels in [val], or name the part val in {data}"


@pytest.mark.parametrize("file", ["labelled.json", "val.json"])
@pytest.mark.parametrize("way", ["{}", "./{}", "no/../{}"])
def test_an_image_in_two_records_is_told_with_its_places_in_the_users_file(own: Path, file: str, way: str) -> None:
    content = read(own.parent / file)
    first, number = content["images"][0], len(content["images"])
    content["images"].append({**first, "id": 4000, "file_name": way.format(first["file_name"])})
    write(own.parent / file, content)
    with pytest.raises(DataFault) as fault:
        split_of(own)
    both = f"images[0] (id {first['id']}) and images[{number}] (id 4000) are both '{first['file_name']}'"
    assert fault.value.message.startswith(f"{own.parent / file}: {both}")


@pytest.mark.parametrize("file", ["labelled.json", "val.json"])
@pytest.mark.parametrize("way", ["photos/{}", "elsewhere/{}"])
def test_images_that_are_not_in_their_folder_are_told_with_the_place_that_may_be_meant(
    own: Path, call: Call, file: str, way: str
) -> None:
    content = read(own.parent / file)
    names = [image["file_name"] for image in content["images"]]
    content["images"] = [{**image, "file_name": way.format(image["file_name"])} for image in content["images"]]
    write(own.parent / file, content)
    photos = own.parent / "photos"
    told = f"{len(names)} of {len(names)} images of {own.parent / file} are not in {photos}, the first is "
    told += f"{way.format(names[0])}; there is {photos / names[0]}."
    assert told in call("make-splits", "--task", own, "--work-dir", own.parents[1] / "work").out
