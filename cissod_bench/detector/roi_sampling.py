"""Which proposals of a whole batch the RoI head learns from, in place of mmdet's image by image.

Boxes, their order and the random draws are mmdet's (``tests/detector/test_roi_sampling.py``). A GPU is waited for twice
a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
    of_boxes, of_labels = boxes.new_zeros(0, 4), truths[0].labels[:0]
    if len(foreground):
        box = foreground // assigned.shape[1], assigned.flatten()[foreground] - 1
        of_boxes, of_labels = boxes[box], padded([truth.labels for truth in truths])[box]
    flat = priors.flatten(0, 1)
    columns = flat[foreground], flat[background], of_boxes, of_labels
    numbers = [[count[kind] for count in counts] for kind in (0, 1, 0, 0)]
    split = zip(*(torch.split(column, own) for column, own in zip(columns, numbers, strict=True)), strict=True)
    return [Sampled(*of_image) for of_image in split]


def _given(boxes: Sequence[Tensor], filled: Tensor) -> Tensor:
    """Return which rows of boxes that were filled up are not filling, bool, shape (B, N)."""
    numbers = torch.tensor([[len(of_image)] for of_image in boxes]).to(filled.device, non_blocking=True)
    return torch.arange(filled.shape[1], device=filled.device) < numbers
