"""TIDE's error types, outcomes and confusions on cases made by hand, and beside the scorer's own AP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored import box, write

from cissod_bench.scoring.by_size import MEASURES, by_size
from cissod_bench.scoring.confusions import confusion, outcomes
from cissod_bench.scoring.error_types import TYPES, Errors, error_types
from cissod_bench.scoring.evaluate import score
from cissod_bench.scoring.ground_truth import read_ground_truth
from cissod_bench.scoring.matching import Matching, average_precision, match
from cissod_bench.scoring.predictions import read_detections

CAT, DOG = 3, 7
GROUPS = {"maj": ["cat"], "min": ["dog"]}


def det(bbox: Sequence[float], category: int = CAT, score: float = 0.9, image: int = 10) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), "score": score}


def compared(folder: Path, boxes: Sequence[Any], found: Sequence[Any]) -> tuple[Matching, Errors]:
    truth = read_ground_truth(write(folder, boxes))
    matching = match(truth, read_detections(list(found), truth))
    return matching, error_types(matching, GROUPS)


ONE_CAT = [box(10, CAT, [0, 0, 10, 10])]
WHOLE, THIRD, FAR = [0, 0, 10, 10], [0, 0, 10, 3], [50, 50, 5, 5]


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        ([det(WHOLE)], ["correct"]),
        ([det(THIRD)], ["location"]),
        ([det(WHOLE, DOG)], ["class"]),
        ([det(THIRD, DOG)], ["both"]),
        ([det(WHOLE), det(WHOLE, score=0.5)], ["correct", "duplicate"]),
        ([det(FAR)], ["background"]),
        ([det(WHOLE, image=20)], ["background"]),  # an image without a box
        ([det([0, 0, 10, 1])], ["location"]),  # 0.1 with its own class still touches it
        ([det([0, 0, 10, 1], DOG)], ["background"]),  # and with another class no longer
        ([det([0, 0, 10, 5], DOG)], ["class"]),  # exactly half
    ],
)
def test_each_type_of_error_is_told_from_the_others(tmp_path: Path, found: list[Any], kinds: list[str]) -> None:
    assert compared(tmp_path, ONE_CAT, found)[1].kinds == kinds


def test_a_detection_of_two_types_is_of_the_first(tmp_path: Path) -> None:
    both = [*ONE_CAT, box(10, DOG, [0, 0, 10, 4])]
    _, errors = compared(tmp_path, both, [det([0, 0, 10, 4])])  # 0.4 of the cat, all of the dog
    assert errors.kinds == ["location"]


def test_mending_a_type_gains_what_it_costs_and_nothing_else_does(tmp_path: Path) -> None:
    _, errors = compared(tmp_path, [*ONE_CAT, box(20, DOG, WHOLE)], [det(WHOLE, DOG), det(FAR, DOG, 0.95, 20)])
    assert errors.ap50 == {"all": 0.0, "maj": 0.0, "min": 0.0}
    assert errors.gained["class"] == {"all": 50.0, "maj": 100.0, "min": 0.0}
    assert errors.gained["background"]["all"] == 0.0  # what is left finds nothing all the same
    assert errors.count("missed") == 1
    assert errors.gained["missed"]["min"] == 0.0  # no dog is left to be found: the class keeps its AP


def test_only_the_best_of_several_errors_on_a_box_is_mended(tmp_path: Path) -> None:
    matching, errors = compared(tmp_path, ONE_CAT, [det(WHOLE, DOG, 0.9), det(THIRD, CAT, 0.8)])
    assert errors.kinds == ["class", "location"]
    assert errors.gained["class"]["maj"] == 100.0
    assert errors.gained["location"]["maj"] == 0.0  # it goes, for a better one lies on its box
    assert not errors.missed.any()
    assert len(matching.found.scores) == 2


def test_a_box_that_any_error_could_have_found_is_not_missed(tmp_path: Path) -> None:
    three = [box(10, CAT, [40 * place, 0, 10, 10]) for place in range(3)]
    _, errors = compared(tmp_path, three, [det([0, 0, 10, 3]), det([40, 0, 10, 10], DOG)])
    assert errors.missed.tolist() == [False, False, True]


def test_crowd_regions_are_neither_missed_nor_make_a_detection_wrong(tmp_path: Path) -> None:
    boxes = [box(10, CAT, [0, 0, 40, 40], iscrowd=1), box(20, CAT, WHOLE)]
    matching, errors = compared(tmp_path, boxes, [det(WHOLE), det(WHOLE, DOG, 0.8), det(WHOLE, image=20, score=0.7)])
    assert errors.kinds == ["ignored", "background", "correct"]
    assert errors.ap50["maj"] == 100.0
    result = outcomes(matching, list(errors.kinds))
    assert result.boxes == ("ignored", "missed")
    assert result.detections == ("ignored", "background")


def test_no_box_and_no_detection_are_no_error(tmp_path: Path) -> None:
    for boxes, found in (([], [det(WHOLE)]), (ONE_CAT, []), ([], [])):
        matching, errors = compared(tmp_path, boxes, found)
        assert len(errors.kinds) == len(found)
        assert outcomes(matching, list(errors.kinds)).shown == min(len(boxes), len(found))
        assert set(errors.gained) == set(TYPES)


def drawn(seed: int) -> tuple[list[Any], list[Any]]:
    """Boxes of two classes on two images, crowds among them, and detections around them with ties in score."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(40):
        corner, size = rng.uniform(0, 100, 2), rng.uniform(5, 60, 2)
        crowd, image = int(rng.random() < 0.1), int(rng.choice([10, 20]))
        boxes.append(box(image, int(rng.choice([CAT, DOG])), [*corner, *size], iscrowd=crowd))
    found = []
    for own in (boxes[place] for place in rng.integers(0, len(boxes), 150)):
        near = np.array(own["bbox"]) + rng.normal(0, 5, 4)
        category = own["category_id"] if rng.random() < 0.7 else int(rng.choice([CAT, DOG]))
        near[2:] = near[2:].clip(1)
        found.append(det(near.tolist(), category, round(float(rng.random()), 1), own["image_id"]))
    return boxes, found


@pytest.mark.parametrize("seed", range(5))
def test_ap50_is_the_scorers_to_the_last_digit(tmp_path: Path, seed: int) -> None:
    boxes, found = drawn(seed)
    path = write(tmp_path, boxes)
    scores = score(path, found, groups=GROUPS, check_boxes=False)
    _, errors = compared(tmp_path, boxes, found)
    assert errors.ap50["all"] == pytest.approx(scores.ap50, abs=1e-9)
    for kind in TYPES:
        assert all(gain is not None and gain >= 0 for gain in errors.gained[kind].values())


@pytest.mark.parametrize("seed", range(3))
def test_ap_by_size_and_ar_are_pycocotools_own(tmp_path: Path, seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes, found = drawn(seed)
    for number, own in enumerate(boxes, start=1):  # areas that are not the boxes', as masks have them
        own |= {"id": number, "area": own["bbox"][2] * own["bbox"][3] * (0.3 + 0.1 * (number % 7))}
    path = write(tmp_path, boxes)
    gt = COCO(str(path))
    scorer = COCOeval(gt, gt.loadRes(found), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    truth = read_ground_truth(path)
    ours = by_size(truth, read_detections(found, truth), {"all": [0, 1]})
    for measure, expected in zip(MEASURES, scorer.stats[[3, 4, 5, 6, 7, 8]], strict=True):
        value = ours[measure]["all"]
        assert (-1 if value is None else value / 100) == pytest.approx(expected, abs=1e-9), measure


def test_average_precision_of_no_box_is_undefined_and_of_nothing_found_zero() -> None:
    none = np.zeros(0, np.bool_)
    assert average_precision(none, 0) is None
    assert average_precision(none, 3) == 0.0
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_as_many_detections_are_shown_as_there_are_boxes(tmp_path: Path) -> None:
    boxes = [*ONE_CAT, box(20, DOG, WHOLE)]
    found = [det(WHOLE, score=0.2), det(WHOLE, CAT, 0.6, 20), det(FAR, score=0.1), det(FAR, score=0.05)]
    matching, errors = compared(tmp_path, boxes, found)
    result = outcomes(matching, list(errors.kinds))
    assert (result.shown, result.least) == (2, 0.2)
    assert result.detections == ("wrong class", "found")
    assert result.boxes == ("found", "wrong class")


def test_confusions_count_every_box_once_and_what_lies_on_nothing(tmp_path: Path) -> None:
    boxes = [*ONE_CAT, box(20, DOG, WHOLE), box(20, DOG, [60, 60, 10, 10])]
    found = [det(WHOLE), det(WHOLE, CAT, 0.8, 20), det(FAR, DOG, 0.7)]
    matching, errors = compared(tmp_path, boxes, found)
    counts = confusion(matching, outcomes(matching, list(errors.kinds)))
    # taken for     cat dog missed
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_a_found_box_is_not_taken_for_what_lies_on_it_too(tmp_path: Path) -> None:
    boxes = [*ONE_CAT, box(10, DOG, FAR)]
    matching, errors = compared(tmp_path, boxes, [det(WHOLE, DOG, 0.9), det(WHOLE, CAT, 0.8)])
    result = outcomes(matching, list(errors.kinds))
    assert result.boxes == ("found", "missed")
    assert result.detections == ("wrong class", "found")


ON_IT = [0, 2, 10, 10]
"""A box of another object that lies on ``WHOLE`` by two thirds, as a rider lies on a horse."""


@pytest.mark.parametrize(
    ("boxes", "found", "kinds", "expected"),
    [
        ([], [det(WHOLE)], ["correct"], "missed"),
        ([], [det(WHOLE), det(WHOLE, score=0.8)], ["correct", "class"], "wrong class"),  # a second cat took it for one
        ([], [det(ON_IT, score=0.95), det(WHOLE, score=0.8)], ["correct", "class"], "wrong class"),
        ([], [det(WHOLE), det(ON_IT, DOG, 0.8)], ["correct", "correct"], "found"),
        ([box(10, CAT, [0, 0, 90, 90], iscrowd=1)], [det(WHOLE), det(FAR)], ["correct", "ignored"], "missed"),
    ],
)
def test_a_detection_that_found_its_box_takes_no_other_one_for_it(
    tmp_path: Path, boxes: list[Any], found: list[Any], kinds: list[str], expected: str
) -> None:
    matching, errors = compared(tmp_path, [*ONE_CAT, box(10, DOG, ON_IT), *boxes], found)
    assert errors.kinds == kinds
    result = outcomes(matching, kinds)
    assert result.boxes[:2] == ("found", expected)
    counts = confusion(matching, result)
    assert counts[1].tolist() == {"missed": [0, 0, 1], "found": [0, 1, 0], "wrong class": [1, 0, 0]}[expected]
    assert bool(errors.missed[1]) == (expected == "missed")  # as the types of errors have it


def test_a_detection_on_a_crowd_region_takes_no_box_for_its_class(tmp_path: Path) -> None:
    boxes = [box(10, CAT, [0, 0, 90, 90], iscrowd=1), box(10, DOG, ON_IT)]
    matching, errors = compared(tmp_path, boxes, [det(WHOLE)])
    result = outcomes(matching, list(errors.kinds))
    assert (result.boxes, result.detections) == (("ignored", "missed"), ("ignored",))
