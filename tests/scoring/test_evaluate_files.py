"""Reading what is scored: broken validation and predictions files are refused with their place; pieces are seamless."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored import DETECTION, TWO_CLASSES, box, write, write_federated

from cissod_bench.errors import DataFault
from cissod_bench.scoring import predictions as detections
from cissod_bench.scoring.evaluate import score
from cissod_bench.scoring.ground_truth import read_ground_truth
from cissod_bench.scoring.predictions import read_detections

BROKEN_PREDICTIONS = {
    "empty file": (b"", "the file is empty"),
    "cut off": (b'[{"image_id": 10, "cat', "not JSON"),
    "object": (b"{}", "Expected `array`, got `object`"),
    "byte order mark": (b"\xef\xbb\xbf[]", "byte order mark"),
    "cut-off gzip": (gzip.compress(b"[]" * 99)[:-9], "damaged gzip file"),
    "missing key": (b'[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 4]}]', "entry 0: .*`score`"),
    "text": (b'[{"image_id": 10, "category_id": "3", "bbox": [1, 2, 3, 4], "score": 1}]', "entry 0: Expected `int`"),
    "three numbers": (b'[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3], "score": 1}]', "entry 0: .*length 4"),
    "NaN in the file": (b'[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 4], "score": NaN}]', "entry 0: NaN"),
    "too large": (
        b'[{"image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 1e999], "score": 1}]',
        "entry 0: .*out of range",
    ),
}


@pytest.mark.parametrize("case", BROKEN_PREDICTIONS)
def test_a_broken_predictions_file_is_refused_with_its_place(case: str, tmp_path: Path) -> None:
    content, message = BROKEN_PREDICTIONS[case]
    path = tmp_path / "found.json"
    path.write_bytes(content)
    with pytest.raises(DataFault, match=f"found.json: .*{message}"):
        score(write(tmp_path, []), path, groups={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 11}, "the image id 11 is not in the validation file's 2"),
        ({"category_id": 4}, "the category id 4 is not in the validation file's 2"),
        ({"score": float("nan")}, "the score is nan"),
        ({"score": float("inf")}, "the score is inf"),
        ({"bbox": [0.0, 0.0, float("nan"), 1.0]}, "is not finite"),
        ({"bbox": [0.0, 0.0, -1.0, 1.0]}, "negative side"),
        ({"score": "high"}, "Expected `float`, got `str`"),
    ],
)
def test_a_wrong_entry_is_named_by_its_index(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=f"predictions: entry 2: .*{message}"):
        score(write(tmp_path, []), [DETECTION, DETECTION, DETECTION | change], groups={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "categories": []}, "missing required field `annotations`"),
        ({"images": [{"id": 1}, {"id": 1}], "categories": [], "annotations": []}, "images: the id 1 stands twice"),
        (
            {"images": [], "categories": [*TWO_CLASSES, {"id": 8, "name": "cat"}], "annotations": []},
            "'cat' stands twice",
        ),
        ({"images": [{"id": 1}], "categories": [], "annotations": [box(1, 9, [0, 0, 1, 1])]}, "category id 9"),
        (
            {"images": [], "categories": TWO_CLASSES, "annotations": [box(5, 3, [0, 0, 1, 1])]},
            "entry 0: the image id 5",
        ),
        ({"images": [{"id": 1}], "categories": TWO_CLASSES, "annotations": [box(1, 3, [0, 0])]}, "entry 0: .*length 4"),
    ],
)
def test_a_broken_validation_file_is_refused_with_its_place(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataFault, match=f"val.json: .*{message}"):
        score(path, [], groups={})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_named_in_both_files(encoding: str, tmp_path: Path) -> None:
    truth, found = write(tmp_path, []), tmp_path / "found.json"
    found.write_text(json.dumps([DETECTION]), encoding=encoding)
    with pytest.raises(DataFault, match=r"found.json: starts with a byte order mark"):
        score(truth, found, groups={})
    truth.write_text(truth.read_text(), encoding=encoding)
    with pytest.raises(DataFault, match=r"val.json: starts with a byte order mark"):
        score(truth, [], groups={})


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 700 + "NaN" + "]" * 700, '[{"more": ' + "[" * 100_000 + "]" * 100_000 + "}]"]
)
def test_what_nests_too_deeply_is_a_fault(text: str, tmp_path: Path) -> None:
    truth, found = write(tmp_path, []), tmp_path / "found.json"
    found.write_text(text)
    with pytest.raises(DataFault, match=r"found.json: "):
        score(truth, found, groups={})
    truth.write_text('{"images": [], "categories": [], "annotations": [], "more": ' + text)
    with pytest.raises(DataFault, match=r"val.json: "):
        score(truth, [], groups={})


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=r"nowhere.json: there is no such file"):
        score(tmp_path / "nowhere.json", [], groups={})
    with pytest.raises(DataFault, match=r"found.json: there is no such file"):
        score(write(tmp_path, []), tmp_path / "found.json", groups={})


FIVE = [
    {"image_id": 20 - 10 * (i % 2), "category_id": 3, "bbox": [i, 0.5, 10, 10], "score": i / 8, "note": "},{ }, {"}
    for i in range(5)
]
LAYOUTS = {
    "compact": json.dumps(FIVE, separators=(",", ":")),
    "usual": json.dumps(FIVE),
    "indented": "\n " + json.dumps(FIVE, indent=2) + " \n",
    "nested objects in every entry": json.dumps([{**entry, "more": [{"a": 1}, {"b": {}}]} for entry in FIVE]),
    "escaped quotes": json.dumps([{**entry, "note": '"},{"'} for entry in FIVE]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pieces_of_any_size_give_the_columns_of_the_whole_file(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, path = read_ground_truth(write(tmp_path, [])), tmp_path / "found.json"
    path.write_text(LAYOUTS[layout])
    for size in range(1, len(LAYOUTS[layout]) + 2):
        monkeypatch.setattr(detections, "PIECE_BYTES", size)
        found = read_detections(path, truth)
        np.testing.assert_array_equal(found.scores, np.arange(5) / 8)
        np.testing.assert_array_equal(found.image, [1, 0, 1, 0, 1])
        np.testing.assert_array_equal(found.boxes, [[i, 0.5, 10, 10] for i in range(5)])


def test_pieces_are_as_small_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detections, "PIECE_BYTES", 2 * len(json.dumps(DETECTION)) + 4)
    pieces = list(detections._pieces(json.dumps([DETECTION] * 5).encode()))
    assert [len(piece) for piece in pieces] == [2, 2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1] + ",]", "not JSON"),
        (lambda text: text.replace("},{", "},,{", 1), "not JSON"),
        (lambda text: text + "]", "not JSON"),
        (lambda text: "0" + text, "Expected `array`, got `int`"),
        (lambda text: text[:-1], "not JSON"),
        (lambda text: text.replace('"score":0.375', '"score":"0.375"'), "entry 3: Expected `float`"),
        (lambda text: text.replace('"score":0.375', '"score":NaN'), "entry 3: NaN"),
        (lambda text: text.replace('"category_id":3', '"category_id":4'), "entry 0: the category id 4"),
    ],
)
def test_a_fault_is_named_by_its_place_in_the_file_whatever_the_pieces(
    change: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, path = read_ground_truth(write(tmp_path, [])), tmp_path / "found.json"
    plain = json.dumps([{key: entry[key] for key in DETECTION} for entry in FIVE], separators=(",", ":"))
    path.write_text(change(plain))
    for size in range(1, len(plain) + 2):
        monkeypatch.setattr(detections, "PIECE_BYTES", size)
        with pytest.raises(DataFault, match=f"found.json: .*{message}"):
            read_detections(path, truth)


@pytest.mark.parametrize(
    ("image", "annotation", "message"),
    [
        ({"neg_category_ids": None}, {}, r"images\[0\] \(id 10\) lacks neg_category_ids"),
        ({"not_exhaustive_category_ids": None}, {}, r"images\[0\] \(id 10\) lacks not_exhaustive_category_ids"),
        ({"neg_category_ids": [3, 4]}, {}, r"\(id 10\).neg_category_ids: the category id 4 is not among the file's 2"),
        ({"not_exhaustive_category_ids": [-1]}, {}, r"not_exhaustive_category_ids: the category id -1"),
        ({"neg_category_ids": 3}, {}, "entry 0: Expected `array"),
        ({}, {"area": -1}, "annotations: entry 0: the area is -1"),
        ({}, {"area": "large"}, "entry 0: Expected `float"),
    ],
)
def test_a_file_that_lacks_what_federated_scoring_needs_is_refused_with_the_place(
    image: dict[str, Any], annotation: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_federated(tmp_path, [box(10, 3, [0, 0, 10, 10], **annotation)], **image)
    with pytest.raises(DataFault, match=f"val.json: .*{message}"):
        score(path, [DETECTION], groups={}, metric="lvis")


def test_an_image_without_the_federated_fields_is_named_by_its_id(tmp_path: Path) -> None:
    path = write_federated(tmp_path, [])
    content = json.loads(path.read_text())
    del content["images"][1]["neg_category_ids"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataFault, match=r"images\[1\] \(id 20\) lacks neg_category_ids"):
        score(path, [], groups={}, metric="lvis")
    assert score(path, [], groups={}).all is None, "COCO's rules need no such field"
