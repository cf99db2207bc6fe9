"""Pseudo labels judged by hidden boxes: the matching against its rule written out, and the reading of hidden.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from judged import CLASSES, GROUPS, detections_near, hidden_boxes, reference
from tiny import tiny_plan

from cissod_bench.contract.parts import Detections
from cissod_bench.training.judging import HiddenBoxes, Looks, judge, overlaps, read_hidden
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics


def looks_of(found: list[Detections], theta: torch.Tensor) -> Looks:
    statistics = PseudoLabelStatistics(GROUPS, CLASSES, lambda: None)
    statistics.observe(found, theta)
    statistics._columns()
    return statistics._looks[0]


@pytest.mark.parametrize("crowd", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_the_rule_applied_one_pseudo_label_at_a_time(seed: int, crowd: float) -> None:
    rng = np.random.default_rng(seed)
    hidden = hidden_boxes(rng, crowd=crowd)
    found = detections_near(rng, hidden, 60)
    theta = torch.tensor([0.5, 0.7, 0.85])
    counts = judge(looks_of(found, theta), hidden, len(CLASSES))
    np.testing.assert_array_equal(counts, reference(found, theta, hidden))
    assert (counts[2] > 0).all()
    assert (counts[2] < counts[1]).all()


def test_a_box_is_found_once_and_the_better_score_has_it() -> None:
    hidden = HiddenBoxes(
        np.array([4]),
        np.array([2]),
        np.array([[0, 0, 10, 10], [0, 0, 10, 12]], np.float32),
        np.array([0, 0], np.int16),
        np.zeros(2, np.bool_),
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    found = [Detections(4, 0, boxes, torch.zeros(3, dtype=torch.int64), torch.tensor([0.9, 0.95, 0.8]))]
    counts = judge(looks_of(found, torch.full((3,), 0.5)), hidden, 3)
    assert counts[:, 0].tolist() == [2, 3, 2]  # the second one takes the box it overlaps less; the third finds none


def test_overlaps_are_iou_and_the_share_in_a_crowd_region() -> None:
    box, truth = np.array([[0, 0, 4, 2]] * 2), np.array([[2, 0, 10, 2]] * 2)
    np.testing.assert_allclose(overlaps(box, truth, np.array([False, True])), [4 / 20, 0.5])
    assert overlaps(np.zeros((1, 4)), np.zeros((1, 4)), np.array([False])).tolist() == [0]


def test_an_image_that_the_hidden_file_does_not_name_has_no_boxes() -> None:
    hidden = hidden_boxes(np.random.default_rng(0))
    found = [
        Detections(image, 0, torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([1]), torch.tensor([0.9]))
        for image in (1, 11, 500)
    ]
    assert judge(looks_of(found, torch.full((3,), 0.5)), hidden, 3).tolist() == [[0, 0, 0], [0, 3, 0], [0, 0, 0]]


def test_a_hidden_file_that_is_not_sound_is_a_warning_and_not_the_end_of_the_run(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    path = plan.split / "hidden.json"
    hidden = read_hidden(path, plan.classes)
    assert hidden is not None
    assert len(hidden.boxes) == plan.manifest.boxes.hidden
    with pytest.warns(UserWarning, match=r"not judged.*hidden\.json has other classes"):
        assert read_hidden(path, plan.classes[::-1]) is None
    path.write_bytes(b"garbage")
    with pytest.warns(UserWarning, match=r"not judged.*hidden\.json"):
        assert read_hidden(path, plan.classes) is None


def test_no_hidden_box_is_cut_that_fits_an_image_of_exchanged_sides(tmp_path: Path) -> None:
    """Only the image can tell which of the two is its width."""
    path = tmp_path / "hidden.json"
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 90}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 5, 30, 20], "area": 600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.write_text(json.dumps(content))
    hidden = read_hidden(path, ["cat"], doubtful=["a.jpg"])
    assert hidden is not None
    assert hidden.boxes.tolist() == [[50, 5, 80, 25]]
    assert read_hidden(path, ["cat"]) is None  # it lies outside


def test_hidden_boxes_are_those_of_the_file_whatever_its_order(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    path = plan.split / "hidden.json"
    content = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    shuffled = {
        name: [content[name][i] for i in rng.permutation(len(content[name]))]
        for name in content
        if name in {"images", "annotations"}
    }
    path.write_text(json.dumps({**content, **shuffled}))
    hidden = read_hidden(path, plan.classes)
    assert hidden is not None
    begins, counts = hidden.rows_of(np.array([image["id"] for image in content["images"]]))
    channel = {category["id"]: place for place, category in enumerate(content["categories"])}
    for image, begin, count in zip(content["images"], begins, counts, strict=True):
        boxes = [box for box in content["annotations"] if box["image_id"] == image["id"]]
        corners = np.array([[x, y, x + width, y + height] for x, y, width, height in (box["bbox"] for box in boxes)])
        found, labels = hidden.boxes[begin : begin + count], hidden.labels[begin : begin + count]
        one, other = (np.argsort(rows.reshape(-1, 4)[:, 0], kind="stable") for rows in (corners, found))
        np.testing.assert_allclose(found[other], corners.reshape(-1, 4)[one], atol=0.5)  # clipped to the image
        assert labels[other].tolist() == [channel[boxes[place]["category_id"]] for place in one]
