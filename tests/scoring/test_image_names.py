"""Predictions that name images by their files: every way to write a name gives the AP of the ids, a doubt none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cissod_bench
from cissod_bench.errors import DataFault
from cissod_bench.scoring.evaluate import score_several

NAMES = ("val/000101.jpg", "val/000007.jpg", "val/bridge.2.png")
IDS = (3, 12, 40)
BOX = [10.0, 40.0, 100.0, 80.0]


def validation_file(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    images = [
        {"id": number, "width": 640, "height": 480, "file_name": name}
        for number, name in zip(IDS, names, strict=True)
    ]  # fmt: skip
    boxes = [{"id": place, "image_id": number, "category_id": 1, "bbox": BOX} for place, number in enumerate(IDS, 1)]
    content = {"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": boxes}
    path = folder / "val.json"
    path.write_text(json.dumps(content))
    return path


def predictions(names: list[Any]) -> list[dict[str, Any]]:
    """Return a right detection in the first image, and a box that is off by half in the others."""
    return [
        {"image_id": name, "category_id": 1, "bbox": [BOX[0] + 20 * place, *BOX[1:]], "score": 0.9 - 0.1 * place}
        for place, name in enumerate(names)
    ]


WAYS: dict[str, tuple[Callable[[str], Any], str]] = {
    "whole": (str, "file names, not"),
    "without folders": (lambda name: name.split("/")[-1], "file names without folders, not"),
    "without folders and ending": (lambda name: Path(name).stem, "file names without folders and ending, not"),
    "digits as numbers": (
        lambda name: int(Path(name).stem) if Path(name).stem.isdigit() else Path(name).stem,
        "the numbers in their file names, not",
    ),
    "digits as numbers, in text": (lambda name: Path(name).stem.lstrip("0"), "the numbers in their file names, not"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("as_file", [True, False])
def test_names_give_the_ap_of_the_ids_and_a_warning(way: str, as_file: bool, tmp_path: Path) -> None:
    truth = validation_file(tmp_path)
    plain = cissod_bench.score(truth, predictions(list(IDS)), groups={})
    written, words = WAYS[way]
    named: Any = predictions([written(name) for name in NAMES])
    if as_file:
        (tmp_path / "found.json").write_text(json.dumps(named))
        named = tmp_path / "found.json"
    told = f"images are named by {words} by their ids: .* is the image with id 3, val/000101.jpg"
    with pytest.warns(UserWarning, match=told):
        assert cissod_bench.score(truth, named, groups={}).all == plain.all
    assert plain.all is not None
    assert 0 < plain.all < 100


def test_ids_that_are_there_stay_ids_whatever_the_files_are_called(tmp_path: Path) -> None:
    truth = validation_file(tmp_path, ("12.jpg", "40.jpg", "3.jpg"))
    scores = cissod_bench.score(truth, predictions([3, 12, 40]), groups={})
    assert scores.all == cissod_bench.score(validation_file(tmp_path), predictions([3, 12, 40]), groups={}).all


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (NAMES, ["000101.jpg", "000008.jpg"]),  # one is no image of the file
        (NAMES, ["000101.jpg", "000007"]),  # two ways of writing
        (NAMES, [101, 3]),  # a name and an id
        (("a/1.jpg", "b/1.jpg", "c/2.jpg"), ["2", "1"]),  # two images of that name
        (("a/01.jpg", "b/001.jpg", "c/2.jpg"), [2, 1]),
        (("", "000007.jpg", "000101.jpg"), ["000101.jpg", "000007.jpg", ""]),
    ],
)
def test_names_that_leave_a_doubt_are_refused(names: tuple[str, ...], found: list[Any], tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="predictions: entry"):
        cissod_bench.score(validation_file(tmp_path, names), predictions(found), groups={})


def test_names_of_some_of_the_images_count_where_these_alone_are_scored(tmp_path: Path) -> None:
    truth = validation_file(tmp_path, ("a/1.jpg", "b/1.jpg", "c/2.jpg"))
    with pytest.warns(UserWarning, match="named by file names without folders and ending"):
        (scores,) = score_several(truth, [predictions(["1", "2"])], groups={}, images=[12, 40])
    (plain,) = score_several(truth, [predictions([12, 40])], groups={}, images=[12, 40])
    assert scores.all == plain.all
