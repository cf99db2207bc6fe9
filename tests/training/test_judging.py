"""Pseudo labels judged by hidden boxes: the matching against its rule written out, and the reading of hidden.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_plan

from cissod_bench.contract.parts import Detections
from cissod_bench.training.judging import HiddenBoxes, Looks, judge, overlaps, read_hidden
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics

CLASSES = ("ball", "box", "cone")
GROUPS = {"maj": ("ball", "cone"), "min": ("box",)}


def hidden_boxes(rng: np.random.Generator, images: int = 12, crowd: float = 0.0) -> HiddenBoxes:
    """Random boxes, close to each other, on images 10, 13, 16, ...; the last image has none."""
    counts = rng.integers(0, 8, images)
    counts[-1] = 0
    corners = rng.uniform(0, 30, (counts.sum(), 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 25, corners.shape)], axis=1)
    return HiddenBoxes(
        images=10 + 3 * np.arange(images),
        ends=np.cumsum(counts),
        boxes=boxes.astype(np.float32),
        labels=rng.integers(0, len(CLASSES), len(boxes)).astype(np.int16),
        crowd=rng.random(len(boxes)) < crowd,
    )


def detections_near(rng: np.random.Generator, hidden: HiddenBoxes, looks: int) -> list[Detections]:
    """Detections around the hidden boxes of random images, some twice, some of another class, some nowhere near."""
    found = []
    for _ in range(looks):
        place = int(rng.integers(0, len(hidden.images)))
        rows = np.arange(hidden.ends[place - 1] if place else 0, hidden.ends[place])
        rows = rng.choice(rows, rng.integers(0, 2 * len(rows) + 1)) if len(rows) else rows
        boxes = hidden.boxes[rows] + rng.normal(0, 2, (len(rows), 4))
        labels = np.where(rng.random(len(rows)) < 0.8, hidden.labels[rows], rng.integers(0, 3, len(rows)))
        far = rng.uniform(0, 5, (1, 4)) + np.array([60, 60, 70, 70])
        boxes, labels = np.concatenate([boxes, far]), np.append(labels, 1)
        found.append(
            Detections(
                int(hidden.images[place]),
                place,
                torch.tensor(boxes, dtype=torch.float32),
                torch.tensor(labels, dtype=torch.int64),
                torch.tensor(rng.uniform(0.5, 1, len(boxes)).round(1), dtype=torch.float32),  # with ties
            )
        )
    return found


def iou(one: Any, other: Any, crowd: bool) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    area = (one[2] - one[0]) * (one[3] - one[1])
    return float(common / (area if crowd else area + (other[2] - other[0]) * (other[3] - other[1]) - common))


def reference(found: list[Detections], theta: torch.Tensor, hidden: HiddenBoxes) -> np.ndarray[Any, Any]:
    """Boxes, pseudo labels and correct ones a class, one image, class and pseudo label after the other."""
    counts = np.zeros((3, len(CLASSES)), np.int64)
    for one in found:
        place = hidden.images.tolist().index(one.image_id)
        rows = range(hidden.ends[place - 1] if place else 0, hidden.ends[place])
        for channel in range(len(CLASSES)):
            truths = [row for row in rows if hidden.labels[row] == channel]
            counts[0, channel] += sum(not hidden.crowd[row] for row in truths)
            used = (one.labels == channel) & (one.scores > theta[channel])
            best_first = sorted(used.nonzero()[:, 0].tolist(), key=lambda row: -float(one.scores[row]))
            taken: set[int] = set()
            for row in best_first:
                box = one.boxes[row].double().tolist()
                fits = [
                    (not hidden.crowd[t], iou(box, hidden.boxes[t].astype(float), bool(hidden.crowd[t])), t)
                    for t in truths
                    if t not in taken and iou(box, hidden.boxes[t].astype(float), bool(hidden.crowd[t])) >= 0.5
                ]
                real, _, truth = max(fits, default=(None, 0, -1))
                counts[1, channel] += real is not False  # a crowd region makes it neither right nor wrong
                counts[2, channel] += real is True
                if real:
                    taken.add(truth)
    return counts


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
