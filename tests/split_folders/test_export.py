"""``splits export``: Croissant that mlcroissant reads, and folders as Hugging Face's ``datasets`` documents them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from split_folders import FILES, content, data_bytes, folder

from cissod_bench.splitting.manifest import verify

Call = Callable[..., Any]


@pytest.fixture
def export(split: Call, tiny_coco: Path, tmp_path: Path, call: Call) -> Call:
    """Draw the tiny split; return a function that exports it."""
    split()

    def run(kind: str, *options: object, out: str = "out", data: Path = tiny_coco) -> Any:
        places = ("--data-root", data, "--work-dir", tmp_path / "work", "--out", tmp_path / out)
        return call("splits", "export", folder(tmp_path), "--format", kind, *places, *options)

    return run


def test_croissant_describes_the_files_by_their_hashes(export: Call, tmp_path: Path) -> None:
    options = (
        "--license",
        "CC-BY-4.0",
        "--url",
        "https://example.org/tiny",
        "--creator",
        "A. Author",
        "--date",
        "2026-11-29",
    )
    done = export("croissant", *options)
    assert (done.code, done.err) == (0, "")
    manifest = verify(tmp_path / "out")
    assert data_bytes(tmp_path / "out") == data_bytes(folder(tmp_path))
    described = content(tmp_path / "out/croissant.json")
    named = {one["contentUrl"]: one["sha256"] for one in described["distribution"]}
    assert {name: named[name] for name in FILES} == manifest.files
    assert described["identifier"] == f"sha256:{manifest.split_sha256}"
    assert manifest.split_sha256 in described["citeAs"]
    assert "author = {A. Author}, year = {2026}" in described["citeAs"]
    assert described["citeAs"] in done.out
    assert (described["license"], described["datePublished"]) == ("CC-BY-4.0", "2026-11-29")
    first = (tmp_path / "out/croissant.json").read_bytes()
    export("croissant", *options, out="again")
    assert (tmp_path / "again/croissant.json").read_bytes() == first


def test_mlcroissant_validates_the_description_and_reads_every_record(export: Call, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    export("croissant", "--license", "CC-BY-4.0", "--date", "2026-11-29")
    data = mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json"))
    assert not data.metadata.ctx.issues.errors
    assert not data.metadata.ctx.issues.warnings
    labelled, hidden = content(tmp_path / "out/labelled.json"), content(tmp_path / "out/hidden.json")
    records = {
        name: list(data.records(name)) for name in ("classes", "labelled_images", "labelled_boxes", "hidden_boxes")
    }
    assert {one["classes/group"] for one in records["classes"]} == {"maj", "min"}
    parts = [one["labelled_images/part"].decode() for one in records["labelled_images"]]
    assert parts == [one["part"] for one in labelled["images"]]
    boxes = [(one["labelled_boxes/image_id"], one["labelled_boxes/bbox"]) for one in records["labelled_boxes"]]
    assert boxes == [(one["image_id"], one["bbox"]) for one in labelled["annotations"]]
    assert len(records["hidden_boxes"]) == len(hidden["annotations"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def test_hugging_face_folders_hold_images_and_their_records(export: Call, tiny_coco: Path, tmp_path: Path) -> None:
    """By the documented layout of an imagefolder: ``datasets`` weighs 200 MB and is not installed for one test."""
    done = export("huggingface", "--json")
    assert done.code == 0
    out, given = tmp_path / "out", content(folder(tmp_path) / "labelled.json")
    assert json.loads(done.out)["files"] == [str(out / part) for part in ("labelled", "validation", "unlabelled")]
    labelled, unlabelled, scored = (lines(out / part) for part in ("labelled", "unlabelled", "validation"))
    assert [(one["image_id"], one["part"]) for one in labelled] == [(one["id"], one["part"]) for one in given["images"]]
    boxes = sorted(box for one in labelled for box in zip(one["objects"]["id"], one["objects"]["bbox"], strict=True))
    assert boxes == [(one["id"], one["bbox"]) for one in given["annotations"]]
    assert all(set(one) == {"file_name", "image_id", "width", "height"} for one in unlabelled)
    assert set(scored[0]) == set(labelled[0])
    assert sum(len(one["objects"]["id"]) for one in scored) == len(
        content(tiny_coco / "tiny/annotations/val.json")["annotations"]
    )
    for part, records in (("labelled", labelled), ("unlabelled", unlabelled)):
        one = records[0]
        name = one["file_name"].removeprefix("train/")
        assert (out / part / one["file_name"]).read_bytes() == (tiny_coco / "tiny/images/train" / name).read_bytes()
    assert verify(out / "split").files == verify(folder(tmp_path)).files


@pytest.mark.parametrize("written", ["C:\\\\old\\\\val\\\\{}", "/home/old/val/{}"])
def test_scored_images_whose_names_came_from_another_machine_are_published_too(
    written: str, split: Call, tiny_coco: Path, tmp_path: Path, call: Call
) -> None:
    val = tiny_coco / "tiny/annotations/val.json"
    names = [image["file_name"] for image in content(val)["images"]]
    text = val.read_text()
    for name in names:
        text = text.replace(f'"{name}"', f'"{written.format(name)}"')
    val.write_text(text)
    split()
    places = ("--data-root", tiny_coco, "--work-dir", tmp_path / "work", "--out", tmp_path / "out")
    done = call("splits", "export", folder(tmp_path), "--format", "huggingface", *places)
    assert done.code == 0, done.err
    assert [one["file_name"] for one in lines(tmp_path / "out/validation")] == [f"val/{name}" for name in names]


def test_the_card_names_the_parts_and_the_hash(export: Call, tmp_path: Path) -> None:
    export("huggingface", "--license", "cc-by-4.0")
    _, head, text = (tmp_path / "out/README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(head)
    assert (card["license"], card["pretty_name"]) == ("cc-by-4.0", "Tiny shapes, split 0")
    configurations = {
        one["config_name"]: {part["split"]: part["path"] for part in one["data_files"]} for one in card["configs"]
    }
    assert configurations == {
        "labelled": {"train": "labelled/**", "validation": "validation/**"},
        "unlabelled": {"train": "unlabelled/**"},
    }
    assert verify(folder(tmp_path)).split_sha256 in text


def test_without_the_validation_file_the_scored_images_are_left_out_and_it_is_told(
    export: Call, tiny_coco: Path, tmp_path: Path
) -> None:
    (tiny_coco / "tiny/annotations/val.json").write_text("{}")
    done = export("huggingface")
    assert done.code == 0
    assert "Warning: The validation file is not at hand" in done.err
    assert "Warning: A publication should say more: --license, --url, --creator, --date." in done.err
    assert not (tmp_path / "out/validation").exists()


@pytest.mark.parametrize("kind", ["croissant", "huggingface"])
def test_nothing_that_is_there_is_written_over(export: Call, tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    done = export(kind)
    assert done.code == 2
    assert "out is there already." in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_split_that_was_changed_or_lacks_an_image_is_not_published(
    export: Call, tiny_coco: Path, tmp_path: Path
) -> None:
    image = next(iter((tiny_coco / "tiny/images/train").iterdir()))
    image.unlink()
    done = export("huggingface")
    assert (done.code, (tmp_path / "out").exists()) == (3, False)
    assert f"The image {image} is missing." in done.err
    labelled = folder(tmp_path) / "labelled.json"
    labelled.write_bytes(labelled.read_bytes() + b"\n")
    assert "has been changed" in export("croissant").err
    assert export("croissant", "--date", "today").code == 2
