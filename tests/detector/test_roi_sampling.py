"""RoIs that are sampled for a whole batch are those that mmdet samples image by image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from detectors import CLASSES, TINY
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.detector import roi_sampling
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import IGNORE_IOF, faster_rcnn
from cissod_bench.detector.roi_sampling import (
    Sampled,
    batched_sampling,
    batched_targets,
    sampled_rois,
    targets_of,
)


@pytest.fixture(scope="module")
def head() -> Any:
    settings = replace(TINY, roi_samples=16)
    torch.manual_seed(0)
    return build_model(faster_rcnn(settings, len(CLASSES), ignore_iof=IGNORE_IOF)).roi_head


def boxes(number: int) -> Tensor:
    corner = torch.rand(number, 2) * 40
    return torch.cat([corner, corner + 10 + torch.rand(number, 2) * 30], dim=1)


def images(numbers: tuple[int, ...], regions: tuple[int, ...]) -> list[DetDataSample]:
    result = []
    for objects, ignored in zip(numbers, regions, strict=True):
        sample = DetDataSample()
        labels = torch.randint(0, len(CLASSES), (objects,))
        sample.gt_instances = InstanceData(bboxes=boxes(objects), labels=labels)
        sample.ignored_instances = InstanceData(bboxes=boxes(ignored), labels=torch.zeros(ignored, dtype=torch.int64))
        result.append(sample)
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("numbers", "regions", "proposals"),
    [
        ((3, 0, 7, 1), (0, 2, 1, 0), (40, 30, 0, 60)),
        ((3, 0, 7, 9), (0,) * 4, (40, 0, 5, 60)),
        ((0, 0), (0, 0), (20, 30)),
        ((0, 0), (3, 0), (20, 0)),
        ((2, 3), (0, 0), (0, 0)),
        ((5,), (1,), (200,)),
    ],
)
def test_rois_targets_and_draws_of_a_batch_are_mmdets(
    head: Any, numbers: Any, regions: Any, proposals: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(seed)
    samples = images(numbers, regions)
    priors = [boxes(number) for number in proposals]
    assert batched_sampling(head)

    def numbers_of() -> list[Tensor]:
        torch.manual_seed(seed)
        sampled = sampled_rois(head, priors, samples)
        columns = ("priors", "pos_priors", "neg_priors", "pos_gt_bboxes", "pos_gt_labels")
        found = [getattr(of_image, name) for of_image in sampled for name in columns]
        return [*found, *head.bbox_head.get_targets(sampled, head.train_cfg), torch.get_rng_state()]

    ours = numbers_of()
    monkeypatch.setattr(roi_sampling, "batched_sampling", lambda head: False)
    mmdets = numbers_of()
    for one, other in zip(ours, mmdets, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("pos_weight", [-1, 2.0])
@pytest.mark.parametrize("numbers", [(3, 0, 7, 1), (0, 0), (5,)])
def test_targets_of_a_batch_are_mmdets_and_encoded_at_once(
    head: Any, numbers: tuple[int, ...], pos_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    monkeypatch.setitem(head.train_cfg, "pos_weight", pos_weight)
    sampled = sampled_rois(head, [boxes(30) for _ in numbers], images(numbers, (0,) * len(numbers)))
    calls, encode = list[int](), head.bbox_head.bbox_coder.encode

    def counted(priors: Tensor, truths: Tensor) -> Any:
        calls.append(len(priors))
        return encode(priors, truths)

    monkeypatch.setattr(head.bbox_head.bbox_coder, "encode", counted)
    assert batched_targets(head.bbox_head)
    ours = targets_of(head, sampled)
    assert len(calls) == any(numbers)
    monkeypatch.setattr(roi_sampling, "batched_targets", lambda head: False)
    for one, other in zip(ours, targets_of(head, sampled), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_box_head_that_learns_from_decoded_boxes_is_left_to_mmdet(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head.bbox_head, "reg_decoded_bbox", True)
    assert not batched_targets(head.bbox_head)
    sampled = sampled_rois(head, [boxes(9)], images((2,), (0,)))
    foreground = sampled[0].pos_gt_bboxes
    assert torch.equal(targets_of(head, sampled)[2][: len(foreground)], foreground)


def test_another_sampler_is_left_to_mmdet(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head.bbox_sampler, "neg_pos_ub", 3)
    assert not batched_sampling(head)
    (sampled,) = sampled_rois(head, [boxes(9)], images((2,), (0,)))
    assert not isinstance(sampled, Sampled)
