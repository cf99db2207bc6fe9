"""Which proposals of a whole batch the RoI head learns from, and what, in place of mmdet's image by image.

Boxes, their order and the random draws are mmdet's, and so are the targets, up to rounding
(``tests/detector/test_roi_sampling.py``). A GPU is waited for twice per batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.detector.rpn_losses import (
    assigned_boxes,
    drawn,
    ignored_regions,
    known_assigner,
    known_sampler,
    padded,
)

Targets: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass
class Sampled:
    """Sampled RoIs of an image, with the names that mmdet's heads know them by.

    Attributes:
        pos_priors: foreground, xyxy, shape (F, 4).
        neg_priors: background, shape (N, 4).
        pos_gt_bboxes: the boxes that the foreground lies on, shape (F, 4).
        pos_gt_labels: their channels, shape (F,).
    """

    pos_priors: Tensor
    neg_priors: Tensor
    pos_gt_bboxes: Tensor
    pos_gt_labels: Tensor

    @property
    def priors(self) -> Tensor:
        """All of them, the foreground first, shape (F + N, 4)."""
        return torch.cat([self.pos_priors, self.neg_priors])


def sampled_rois(head: Any, proposals: Sequence[Tensor], samples: Sequence[DetDataSample]) -> list[Any]:
    """Assign proposals to the samples' boxes and draw RoIs; return them, `Sampled` or mmdet's SamplingResult, by image.

    A method's own assigner or sampler works as mmdet calls it.

    Args:
        head: mmdet's RoI head.
        proposals: xyxy, shape (P, 4), of every image.
        samples: with ``gt_instances`` and, where there are ignore regions, ``ignored_instances``.
    """
    if batched_sampling(head):
        return list(_of_batch(head, proposals, samples))
    sampled = []
    for boxes, sample in zip(proposals, samples, strict=True):
        priors = InstanceData(priors=boxes)
        assigned = head.bbox_assigner.assign(priors, sample.gt_instances, sample.get("ignored_instances"))
        sampled.append(head.bbox_sampler.sample(assigned, priors, sample.gt_instances))
    return sampled


def batched_sampling(head: Any) -> bool:
    """Tell whether what is drawn from a whole batch at once is what mmdet's RoI head draws."""
    return known_assigner(head.bbox_assigner) and known_sampler(head.bbox_sampler)


@torch.no_grad()
def _of_batch(head: Any, proposals: Sequence[Tensor], samples: Sequence[DetDataSample]) -> list[Sampled]:
    truths = [sample.gt_instances for sample in samples]
    boxes, priors = padded([truth.bboxes for truth in truths]), padded(proposals)
    given = _given(proposals, priors)
    assigned = assigned_boxes(head.bbox_assigner, priors, boxes, ignored_regions(samples), given)
    if head.bbox_sampler.add_gt_as_proposals and boxes.shape[1]:
        own = torch.arange(1, boxes.shape[1] + 1, device=boxes.device)
        own = torch.where(_given([truth.bboxes for truth in truths], boxes), own, -1)
        assigned, priors = torch.cat([own, assigned], dim=1), torch.cat([boxes, priors], dim=1)
    foreground, background, counts = drawn(head.bbox_sampler, assigned)
    pos_boxes, pos_labels = boxes.new_zeros(0, 4), truths[0].labels[:0]
    if len(foreground):
        box = foreground // assigned.shape[1], assigned.flatten()[foreground] - 1
        pos_boxes, pos_labels = boxes[box], padded([truth.labels for truth in truths])[box]
    flat = priors.flatten(0, 1)
    columns = flat[foreground], flat[background], pos_boxes, pos_labels
    numbers = [[count[kind] for count in counts] for kind in (0, 1, 0, 0)]
    split = zip(*(torch.split(column, own) for column, own in zip(columns, numbers, strict=True)), strict=True)
    return [Sampled(*of_image) for of_image in split]


def foreground_rows(sampled: Sequence[Any], device: torch.device) -> Tensor:
    """Return where the foreground stands among all RoIs, int64: first in every image, so no RoI is looked at.

    Args:
        sampled: of every image, see `sampled_rois`.
        device: where the answer is to be.
    """
    rows, begin = [torch.arange(0)], 0
    for of_image in sampled:
        rows.append(torch.arange(begin, begin + len(of_image.pos_priors)))
        begin += len(of_image.pos_priors) + len(of_image.neg_priors)
    return torch.cat(rows).to(device, non_blocking=True)


def targets_of(head: Any, sampled: Sequence[Any]) -> Targets:
    """Return what sampled RoIs should be, each image's foreground first.

    A method's own box head works as mmdet calls it.

    Args:
        head: mmdet's RoI head.
        sampled: of every image, see `sampled_rois`.

    Returns:
        Labels int64 (R,), n for the background, their weights (R,), box targets (R, 4) and box weights (R, 4).
    """
    if not batched_targets(head.bbox_head):
        targets: Targets = head.bbox_head.get_targets(list(sampled), head.train_cfg)
        return targets
    priors, truths, channels = (
        torch.cat([getattr(of_image, name) for of_image in sampled])
        for name in ("pos_priors", "pos_gt_bboxes", "pos_gt_labels")
    )
    number = sum(len(of_image.pos_priors) + len(of_image.neg_priors) for of_image in sampled)
    rows, weight = foreground_rows(sampled, priors.device), head.train_cfg.pos_weight
    labels = channels.new_full((number,), head.bbox_head.num_classes).index_copy_(0, rows, channels)
    label_weights = priors.new_ones(number)
    box_targets, box_weights = priors.new_zeros(number, 4), priors.new_zeros(number, 4)
    if weight > 0:
        label_weights[rows] = weight
    if len(rows):
        box_targets.index_copy_(0, rows, head.bbox_head.bbox_coder.encode(priors, truths))
        box_weights.index_fill_(0, rows, 1.0)
    return labels, label_weights, box_targets, box_weights


def batched_targets(head: Any) -> bool:
    """Tell whether the targets of a whole batch at once are those of mmdet's box head."""
    kind = type(head)
    theirs = kind.get_targets is BBoxHead.get_targets and kind._get_targets_single is BBoxHead._get_targets_single
    return bool(theirs and type(head.bbox_coder) is DeltaXYWHBBoxCoder and not head.reg_decoded_bbox)


def _given(boxes: Sequence[Tensor], filled: Tensor) -> Tensor:
    """Return which rows of boxes that were filled up are not filling, bool, shape (B, N)."""
    numbers = torch.tensor([[len(of_image)] for of_image in boxes]).to(filled.device, non_blocking=True)
    return torch.arange(filled.shape[1], device=filled.device) < numbers
