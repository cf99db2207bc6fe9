"""Score thresholds per class: the best F1 on a validation file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cissod_bench.scoring.ground_truth import read_ground_truth
from cissod_bench.scoring.predictions import read_detections
from cissod_bench.scoring.score_thresholds import DEFAULT, best_threshold, matched, pick_thresholds


def truth(path: Path, boxes: list[tuple[int, int, list[float], int]], **more: Any) -> Path:
    images = [{"id": number, **more} for number in (1, 2)]
    categories = [{"id": number, "name": name} for number, name in ((1, "cat"), (2, "dog"), (3, "owl"))]
    records = [
        {"id": place, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
        for place, (image, category, box, crowd) in enumerate(boxes, 1)
    ]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": records}))
    return path


def found(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


A, B = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 20.0, 20.0]


def test_each_class_gets_the_threshold_of_its_best_f1(tmp_path: Path) -> None:
    val = truth(tmp_path / "val.json", [(1, 1, A, 0), (2, 1, B, 0), (1, 2, A, 0)])
    results = [
        found(1, 1, A, 0.9), found(1, 1, B, 0.8), found(2, 1, B, 0.7), found(2, 1, A, 0.6),
        found(1, 2, B, 0.9), found(1, 2, A, 0.4), found(1, 2, A, 0.3),
    ]  # fmt: skip
    picked = pick_thresholds(val, results)
    # cat: right, wrong, right, wrong of 2: F1 2/3, 1/2, 4/5, 2/3. dog: wrong, right, a second one of the same box.
    assert picked["cat"].threshold == 0.7
    assert picked["cat"].f1 == pytest.approx(0.8)
    assert (picked["cat"].precision, picked["cat"].recall) == (pytest.approx(2 / 3), 1.0)
    assert picked["dog"].threshold == 0.4
    assert picked["dog"].f1 == pytest.approx(2 / 3)
    assert (picked["owl"].threshold, picked["owl"].f1, picked["owl"].boxes) == (DEFAULT, None, 0)


def test_a_detection_on_a_crowd_region_counts_neither_way(tmp_path: Path) -> None:
    val = truth(tmp_path / "val.json", [(1, 1, A, 0), (1, 1, [40.0, 40.0, 60.0, 60.0], 1)])
    picked = pick_thresholds(val, [found(1, 1, B, 0.9), found(1, 1, A, 0.8)])
    assert (picked["cat"].threshold, picked["cat"].f1, picked["cat"].boxes) == (0.8, 1.0, 1)


def test_by_lvis_rules_images_that_are_not_annotated_for_a_class_count_neither_way(tmp_path: Path) -> None:
    lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
    val = truth(tmp_path / "val.json", [(1, 1, A, 0), (1, 2, A, 0)], **lists)
    results = [found(1, 1, B, 0.9), found(1, 1, A, 0.8), found(2, 2, A, 0.9), found(1, 2, A, 0.8), found(2, 3, A, 0.9)]
    picked = pick_thresholds(val, results, metric="lvis")
    assert picked["cat"].f1 == 1.0
    assert picked["dog"].f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("more", "boxes", "precision", "recall"),
    [
        ({"ignore": 1}, 1, 1.0, 1.0),  # the detection on it does not count
        ({"area": 0.0}, 1, 0.5, 1.0),  # there is no such box, so the detection is wrong
        ({"iscrowd": 1}, 2, 1.0, 1.0),  # a box like others
    ],
)
def test_by_lvis_rules_odd_boxes_count_as_in_its_own_scorer(
    tmp_path: Path, more: dict[str, Any], boxes: int, precision: float, recall: float
) -> None:
    lists: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    val = truth(tmp_path / "val.json", [(1, 1, A, 0), (1, 1, B, 0)], **lists)
    content = json.loads(val.read_text())
    content["annotations"][1] |= more
    val.write_text(json.dumps(content))
    results = [found(1, 1, B, 0.9), found(1, 1, A, 0.8), found(1, 1, B, 0.7)]
    cat = pick_thresholds(val, results, metric="lvis")["cat"]
    assert (cat.threshold, cat.boxes, cat.precision, cat.recall) == (0.8, boxes, precision, recall)
    whole = read_ground_truth(val, federated=True)
    second = matched(whole, read_detections([*results, found(1, 1, B, 0.6)], whole))[2:]
    assert second.tolist() == [0, 0]  # one detection a box, ignored or not
    empty = matched(whole, read_detections([found(1, 1, [0.0, 0.0, 0.0, 9.0], 0.9)], whole))
    assert empty.tolist() == [-1]  # what has no area is not there


def test_equal_scores_are_taken_together() -> None:
    # Right and wrong at 0.5: taking only the right one is no threshold.
    own = best_threshold(np.array([0.5, 0.9, 0.5, 0.5, 0.5]), np.array([1, 1, 0, 0, 0], np.int8), boxes=2)
    assert own.threshold == 0.9
    assert own.f1 == pytest.approx(2 / 3)


def test_without_a_right_detection_nothing_is_picked(tmp_path: Path) -> None:
    val = truth(tmp_path / "val.json", [(1, 1, A, 0)])
    assert pick_thresholds(val, [found(1, 1, B, 0.9)])["cat"].threshold == DEFAULT
    assert pick_thresholds(val, [])["cat"].threshold == DEFAULT
