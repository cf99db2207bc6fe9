"""What is odd in a user's own data is told: broken photographs, unread formats, spellings, missing files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called
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


def test_a_folder_of_photographs_in_unread_formats_alone_is_refused(own: Path) -> None:
    shutil.rmtree(own.parent / "unlabelled")
    (own.parent / "unlabelled").mkdir()
    (own.parent / "unlabelled" / "a.heic").write_bytes(b"of a phone")
    with pytest.raises(DataFault, match=r"1 pictures are of formats that are not read, such as a\.heic") as fault:
        split_of(own)
    assert fault.value.remedy == "write them as JPEG or PNG"
