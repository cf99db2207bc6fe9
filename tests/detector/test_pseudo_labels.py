"""The teacher's formulas against hand-computed numbers and mmdet's own post-processing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.models.layers import multiclass_nms
from mmdet.structures.bbox import bbox_project

from cissod_bench.detector import formulas as pseudo_labels
from cissod_bench.detector.formulas import (
    box_uncertainty,
    jitter,
    large_enough,
    nms_per_class,
    project,
    teacher_momentum,
    unsupervised_normaliser,
)


def boxes_of(number: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 80
    return torch.cat([corner, corner + 5 + torch.rand(number, 2, generator=generator) * 40], dim=1)


def test_uncertainty_is_the_mean_spread_over_the_sides_of_the_mean_box() -> None:
    refined = torch.tensor([[[10.0, 20, 110, 70]], [[11, 19, 112, 72]], [[9, 21, 108, 71]]], dtype=torch.float64)
    # std (1, 1, 2, 1), sides (100, 51): (1/100 + 1/51 + 2/100 + 1/51) / 4
    assert box_uncertainty(refined).item() == pytest.approx(0.017303922, abs=1e-9)


def test_sides_below_a_pixel_count_as_a_pixel() -> None:
    refined = torch.tensor([[[0.0, 0, 0.1, 0.1]], [[2, 2, 2.1, 2.1]]])
    assert box_uncertainty(refined).item() == pytest.approx(2**0.5, abs=1e-5)


def test_jitter_spreads_each_coordinate_by_its_own_side() -> None:
    torch.manual_seed(0)
    copies = jitter(torch.tensor([[0.0, 0, 100, 20], [5, 5, 5.1, 5.1]]), 20000, 0.06)
    spread = copies.std(dim=0)
    torch.testing.assert_close(spread[0], torch.tensor([6.0, 1.2, 6.0, 1.2]), rtol=0.05, atol=0)
    torch.testing.assert_close(spread[1], torch.full((4,), 0.06), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("iteration", "momentum"), [(0, 0), (1, 0.5), (9, 0.9), (99, 0.99), (998, 1 - 1 / 999), (999, 0.999)]
)
def test_teacher_momentum_rises_to_its_value(iteration: int, momentum: float) -> None:
    assert teacher_momentum(iteration, 0.999, ramp=True) == pytest.approx(momentum, abs=1e-12)
    assert teacher_momentum(iteration, 0.999, ramp=False) == 0.999


def test_unlabelled_losses_are_normalised_by_their_weights_but_never_by_less_than_one() -> None:
    assert unsupervised_normaliser(torch.tensor([1.0, 0.5, 2.0])).item() == 3.5
    assert unsupervised_normaliser(torch.tensor([0.1, 0.0])).item() == 1.0
    assert unsupervised_normaliser(torch.zeros(0)).item() == 1.0


def homography(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.5, 2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    return np.block([[rotation, rng.uniform(-10, 10, (2, 1))], [np.zeros((1, 2)), np.ones((1, 1))]])


@pytest.mark.parametrize("seed", range(5))
def test_projection_equals_mmdets(seed: int) -> None:
    boxes, matrix = boxes_of(20, seed).double(), torch.from_numpy(homography(seed))
    torch.testing.assert_close(project(boxes, matrix, 90, 70), bbox_project(boxes.clone(), matrix, (90, 70)))


def test_projection_there_and_back_is_the_identity_up_to_clipping() -> None:
    boxes = boxes_of(20).double() + 10
    flip = torch.tensor([[-1.5, 0, 200], [0, 1.5, 0], [0, 0, 1]], dtype=torch.float64)
    there = project(boxes, flip, 1000, 1000)
    torch.testing.assert_close(project(there, torch.linalg.inv(flip), 1000, 1000), boxes)


def test_no_boxes_project_to_no_boxes() -> None:
    assert project(torch.zeros(0, 4), torch.eye(3), 10, 10).shape == (0, 4)


def test_slivers_left_by_clipping_are_dropped() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5], [3, 3, 3.005, 9], [10, 10, 10, 10]])
    assert large_enough(boxes).tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(5))
def test_nms_equals_mmdets_on_all_classes_decoded(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (3 * torch.randn(60, 5, generator=generator)).softmax(dim=1)
    boxes = torch.stack([boxes_of(60, seed + c) for c in range(4)], dim=1)  # a box a class
    expected, labels = multiclass_nms(
        boxes.reshape(60, -1), scores, 0.05, {"type": "nms", "iou_threshold": 0.5}, max_num=30
    )
    found, own_labels, own_scores, rows = nms_per_class(
        scores, lambda r, c: boxes[r, c], score_floor=0.05, nms_iou=0.5, max_per_image=30
    )
    torch.testing.assert_close(torch.cat([found, own_scores[:, None]], dim=1), expected)
    assert own_labels.tolist() == labels.tolist()
    torch.testing.assert_close(scores[rows, own_labels], own_scores)


def test_only_candidates_above_the_floor_are_decoded() -> None:
    scores = torch.full((1000, 1204), 1e-4)
    scores[7, 42] = 0.9
    asked = []

    def decode(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append((rows.tolist(), labels.tolist()))
        return torch.tensor([[0.0, 0, 10, 10]])

    nms_per_class(scores, decode, score_floor=0.05, nms_iou=0.5, max_per_image=100)
    assert asked == [([7], [42])]


@pytest.mark.parametrize("most", [5, 60, 10_000])
def test_many_candidates_give_what_all_of_them_at_once_give(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in parts, the best first, NMS must keep the same boxes, also where it keeps fewer than it may."""
    generator = torch.Generator().manual_seed(3)
    scores, boxes = torch.rand(60, 31, generator=generator), boxes_of(60, 4)
    decoded: list[int] = []

    def decode(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        decoded.append(len(rows))
        return boxes[rows] + labels[:, None]

    def found() -> tuple[torch.Tensor, ...]:
        return nms_per_class(scores, decode, score_floor=0.1, nms_iou=0.3, max_per_image=most)

    whole = found()
    monkeypatch.setattr(pseudo_labels, "FEW", 64)
    parts = found()
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert decoded[:2] == [decoded[0], 64]
    assert (decoded[-1] == decoded[0]) == (most == 10_000)
