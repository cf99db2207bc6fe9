"""The RPN's losses and proposals of a whole batch are those that mmdet computes image by image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from detectors import CLASSES, TINY
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.detector import cpu_operators, proposals, rpn_losses
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import IGNORE_IOF, faster_rcnn
from cissod_bench.detector.proposals import batched_proposals, best_first, proposals_of
from cissod_bench.detector.rpn_losses import batched_losses

SIZES = ((96, 128), (96, 128), (64, 96), (96, 64))  # of the images in a batch of 96 x 128
BOXES = (3, 0, 7, 1)
REGIONS = (0, 2, 1, 0)


@pytest.fixture(scope="module")
def head() -> Any:
    settings = replace(TINY, rpn_samples=24, proposals_train=(60, 40))
    torch.manual_seed(0)
    return build_model(faster_rcnn(settings, len(CLASSES), ignore_iof=IGNORE_IOF)).rpn_head


def outputs(head: Any, seed: int, images: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    """What the head says of random features, with its graph."""
    torch.manual_seed(seed)
    strides = [stride[0] for stride in head.prior_generator.strides]
    features = [torch.randn(images, head.in_channels, 96 // stride, 128 // stride) * 5 for stride in strides]
    logits, deltas = head(features)
    return [level.detach().requires_grad_() for level in logits], [level.detach().requires_grad_() for level in deltas]


def drawn_boxes(number: int, height: int, width: int) -> Tensor:
    corner = torch.rand(number, 2) * torch.tensor([width, height]) * 0.8
    far = corner + 4 + torch.rand(number, 2) * 50
    return torch.cat([corner, far.minimum(torch.tensor([width, height]))], dim=1)


def samples(numbers: tuple[int, ...], regions: tuple[int, ...], seed: int) -> list[Any]:
    torch.manual_seed(seed)
    result = []
    for (height, width), boxes, ignored in zip(SIZES, numbers, regions, strict=False):
        sizes = {"img_shape": (height - 5, width - 3), "pad_shape": (height, width), "batch_input_shape": (96, 128)}
        sample = DetDataSample(metainfo=sizes)
        labels = torch.randint(0, len(CLASSES), (boxes,))
        sample.gt_instances = InstanceData(bboxes=drawn_boxes(boxes, height, width), labels=labels)
        sample.ignored_instances = InstanceData(
            bboxes=drawn_boxes(ignored, height, width), labels=torch.zeros(ignored, dtype=torch.int64)
        )
        result.append(sample)
    return result


def losses(head: Any, seed: int, views: list[Any]) -> tuple[Tensor, ...]:
    """Both losses and their gradients in everything that the head says, and the state of the random numbers after."""
    logits, deltas = outputs(head, seed, len(views))
    torch.manual_seed(seed)
    both = rpn_losses.rpn_losses(head, logits, deltas, views)
    state = torch.get_rng_state()
    weighted = both[0] + 2 * both[1]
    return *both, *torch.autograd.grad(weighted, [*logits, *deltas]), state.float()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("numbers", "regions"),
    [(BOXES, REGIONS), (BOXES, (0,) * 4), ((0,) * 4, (0,) * 4), ((0,) * 4, REGIONS), ((5,), (0,)), ((0,), (1,))],
)
def test_losses_gradients_and_draws_of_a_batch_are_mmdets(
    head: Any, numbers: tuple[int, ...], regions: tuple[int, ...], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = samples(numbers, regions, seed)
    assert batched_losses(head)
    ours = losses(head, seed, views)
    monkeypatch.setattr(rpn_losses, "_PAIRS", 1)  # an image at a time, as where anchors are many
    for one, other in zip(losses(head, seed, views), ours, strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(rpn_losses, "batched_losses", lambda head: False)
    for one, mmdets in zip(ours, losses(head, seed, views), strict=True):
        torch.testing.assert_close(one, mmdets, rtol=1e-5, atol=1e-6)


def test_mmdets_own_assigner_is_known_where_it_looks_at_no_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build_model(faster_rcnn(replace(TINY, rpn_samples=24), len(CLASSES))).rpn_head
    assert type(plain.assigner) is MaxIoUAssigner
    assert batched_losses(plain)
    views = samples(BOXES, REGIONS, 0)
    ours = losses(plain, 0, views)
    monkeypatch.setattr(rpn_losses, "batched_losses", lambda head: False)
    for one, mmdets in zip(ours, losses(plain, 0, views), strict=True):
        torch.testing.assert_close(one, mmdets, rtol=1e-5, atol=1e-6)
    plain.assigner.ignore_iof_thr = IGNORE_IOF
    assert not batched_losses(plain)


def changed(head: Any, monkeypatch: pytest.MonkeyPatch, path: str, value: Any) -> None:
    *way, name = path.split(".")
    for part in way:
        head = getattr(head, part)
    monkeypatch.setattr(head, name, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [("assigner.neg_iou_thr", (0.1, 0.3)), ("sampler.neg_pos_ub", 3), ("loss_cls.class_weight", [2.0])],
)
def test_what_a_batch_at_once_does_not_know_is_left_to_mmdet(
    head: Any, path: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(head, monkeypatch, path, value)
    assert not batched_losses(head)


NMS = {"type": cpu_operators.nms, "iou_threshold": 0.7}
LIMITS = {"nms_pre": 60, "max_per_img": 40, "nms": NMS, "min_bbox_size": 0}


def without_equals(logits: list[Tensor]) -> list[Tensor]:
    """Random logits of this shape without equal ones in an image, whose order mmdet leaves open."""
    numbers = [level[0].numel() for level in logits]
    ranks = torch.stack([torch.randperm(sum(numbers)) for _ in logits[0]])
    levels = torch.split(6 * ranks / sum(numbers) - 3, numbers, dim=1)
    return [own.reshape(level.shape) for own, level in zip(levels, logits, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "changes",
    [{}, {"nms_pre": 4000, "max_per_img": 4000}, {"min_bbox_size": 12}, {"min_bbox_size": 500}, {"nms_pre": 7}],
)
def test_proposals_of_a_batch_are_mmdets(
    head: Any, changes: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ConfigDict({**LIMITS, **changes})
    logits, deltas = outputs(head, seed)
    logits = without_equals(logits)
    deltas = [level * 8 for level in deltas]  # boxes that leave the image and others that turn over it
    shapes = [(height - 5, width - 3) for height, width in SIZES]
    assert batched_proposals(head, limits)
    ours = proposals_of(head, logits, deltas, shapes, limits)
    if "min_bbox_size" not in changes:
        assert all(map(len, ours))
    monkeypatch.setattr(proposals, "_FEW", 0)  # an image at a time, as on a GPU
    for one, other in zip(proposals_of(head, logits, deltas, shapes, limits), ours, strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(proposals, "batched_proposals", lambda head, limits: False)
    for one, mmdets in zip(ours, proposals_of(head, logits, deltas, shapes, limits), strict=True):
        torch.testing.assert_close(one, mmdets, rtol=0, atol=0)


def test_of_equal_scores_the_first_is_the_best() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.5, 1.0], [0.0, -1.0, 0.0, -1.0]])
    assert best_first(scores, 3).tolist() == [[3, 0, 2], [0, 2, 1]]


def test_another_nms_is_left_to_mmdet(head: Any) -> None:
    assert not batched_proposals(head, {**LIMITS, "nms": {"type": "soft_nms", "iou_threshold": 0.7}})
    assert not batched_proposals(head, {**LIMITS, "nms": {**NMS, "max_num": 5}})
