"""What the RPN learns of a whole batch at once, in place of mmdet's image by image.

Anchors are assigned as `MatchedFirstAssigner` does it, the sample is mmdet's with its draws, and only what is sampled
is looked at; losses are mmdet's up to rounding (``tests/detector/test_rpn.py``). A GPU is waited for twice per batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from cissod_bench.detector.anchors import anchors_at, by_anchor, in_image, sizes_of
from cissod_bench.detector.assigners import MatchedFirstAssigner

_PAIRS = 1 << 22  # of boxes and anchors that are compared at once: bounds the memory where anchors are many
_LEAST = 1e-6  # area that a union is taken for at least, as in mmdet


def rpn_losses(
    head: Any, logits: Sequence[Tensor], deltas: Sequence[Tensor], samples: Sequence[DetDataSample]
) -> tuple[Tensor, Tensor]:
    """Return the objectness and the box loss of a batch; the RPN tells no classes apart.

    A method's own RPN head, assigner, sampler or loss works as mmdet calls it.

    Args:
        head: mmdet's RPN head.
        logits: of objectness, (B, A, H, W) per level.
        deltas: (B, 4 A, H, W) per level.
        samples: with ``gt_instances`` and, where there are ignore regions, ``ignored_instances``.
    """
    if batched_losses(head):
        return _of_batch(head, logits, deltas, samples)
    truths = [sample.gt_instances for sample in samples]
    agnostic = [InstanceData(bboxes=truth.bboxes, labels=torch.zeros_like(truth.labels)) for truth in truths]
    ignored = [sample.get("ignored_instances") for sample in samples]
    losses = head.loss_by_feat(logits, deltas, agnostic, [sample.metainfo for sample in samples], ignored)
    objectness, boxes = (torch.stack(list(losses[name])).sum() for name in ("loss_rpn_cls", "loss_rpn_bbox"))
    return objectness, boxes


def batched_losses(head: Any) -> bool:
    """Tell whether the losses of a whole batch at once are those of mmdet's RPN head."""
    if type(head) is not RPNHead:
        return False
    loss = head.loss_cls
    plain = type(loss) is CrossEntropyLoss and loss.use_sigmoid and loss.class_weight is None
    whole = head.train_cfg["allowed_border"] < 0 and head.train_cfg["pos_weight"] <= 0 and not head.reg_decoded_bbox
    known = known_assigner(head.assigner) and known_sampler(head.sampler) and not head.sampler.add_gt_as_proposals
    return bool(known and plain and loss.reduction == "mean" and whole)


def known_assigner(assigner: Any) -> bool:
    """Tell whether `assigned_boxes` does what an assigner does: ours, and mmdet's own if it looks at no regions."""
    same = type(assigner) is MatchedFirstAssigner or (type(assigner) is MaxIoUAssigner and assigner.ignore_iof_thr <= 0)
    if not same or not isinstance(assigner.neg_iou_thr, float):
        return False
    limits = assigner.pos_iou_thr > 0 and (assigner.min_pos_iou > 0 or not assigner.match_low_quality)
    return bool(limits and assigner.gt_max_assign_all and assigner.ignore_wrt_candidates)


def known_sampler(sampler: Any) -> bool:
    """Tell whether `drawn` does what a sampler does."""
    return type(sampler) is RandomSampler and sampler.neg_pos_ub < 0


def _of_batch(
    head: Any, logits: Sequence[Tensor], deltas: Sequence[Tensor], samples: Sequence[DetDataSample]
) -> tuple[Tensor, Tensor]:
    """Return `rpn_losses` over the number of sampled anchors."""
    anchors = torch.cat(anchors_at(head.prior_generator, sizes_of(logits), logits[0].device))
    with torch.no_grad():
        boxes = padded([sample.gt_instances.bboxes for sample in samples])
        valid = _valid(head.prior_generator, logits, samples)
        assigned = assigned_boxes(head.assigner, anchors, boxes, ignored_regions(samples), valid)
        foreground, background, counts = drawn(head.sampler, assigned)
        number = sum(max(count, 1) for of_image in counts for count in of_image)  # as mmdet counts
        targets = _targets(head.bbox_coder, anchors, boxes, assigned, foreground)
    sampled_logits = torch.cat(by_anchor(logits, 1), dim=1).flatten()[torch.cat([foreground, background])]
    is_object = torch.zeros_like(sampled_logits)
    is_object[: len(foreground)] = 1
    objectness = functional.binary_cross_entropy_with_logits(sampled_logits, is_object, reduction="sum")
    objectness = head.loss_cls.loss_weight * objectness / (number + torch.finfo(torch.float32).eps)
    sampled_deltas = torch.cat(by_anchor(deltas, 4), dim=1).flatten(0, 1)[foreground]
    return objectness, head.loss_bbox(sampled_deltas, targets, avg_factor=number)


def _valid(generator: Any, logits: Sequence[Tensor], samples: Sequence[DetDataSample]) -> Tensor | None:
    """Return which anchors begin in their image, bool, shape (B, N); None where all do."""
    shapes = [tuple(sample.pad_shape) for sample in samples]
    if all(shape == tuple(samples[0].batch_input_shape) for shape in shapes):
        return None
    return torch.stack([in_image(generator, sizes_of(logits), shape, logits[0].device) for shape in shapes])


def _targets(coder: Any, anchors: Tensor, boxes: Tensor, assigned: Tensor, foreground: Tensor) -> Tensor:
    """Return what the box branch should say of the foreground, shape (F, 4)."""
    if not len(foreground):
        return boxes.new_zeros(0, 4)
    of_image = boxes[foreground // len(anchors), assigned.flatten()[foreground] - 1]
    targets: Tensor = coder.encode(anchors[foreground % len(anchors)], of_image)
    return targets


def padded(boxes: Sequence[Tensor]) -> Tensor:
    """Return the boxes of a batch, filled up with empty ones, shape (B, G, 4)."""
    return pad_sequence(list(boxes), batch_first=True)


def ignored_regions(samples: Sequence[DetDataSample]) -> Tensor | None:
    """Return the ignore regions of a batch, filled up with empty ones, shape (B, I, 4); None where there is none."""
    regions = [sample.get("ignored_instances") for sample in samples]
    if not any(of_image is not None and len(of_image.bboxes) for of_image in regions):
        return None
    none = samples[0].gt_instances.bboxes[:0]
    return padded([none if of_image is None else of_image.bboxes for of_image in regions])


def assigned_boxes(
    assigner: MaxIoUAssigner,
    anchors: Tensor,
    boxes: Tensor,
    ignored: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Return of every anchor 0 (background), -1 (neither) or 1 + the number of its box, int64, shape (B, N).

    See `MatchedFirstAssigner`; a box that fills up is empty, overlaps nothing and so is nobody's.

    Args:
        assigner: has the limits.
        anchors: xyxy, shape (N, 4), or those of every image, shape (B, N, 4).
        boxes: filled up, shape (B, G, 4).
        ignored: regions, filled up, shape (B, I, 4).
        valid: which anchors take part, bool, shape (B, N); None takes all.
    """
    most = max(boxes.shape[1], 1 if ignored is None else ignored.shape[1])
    images = max(_PAIRS // max(most * anchors.shape[-2], 1), 1)
    parts = []
    for begin in range(0, len(boxes), images):
        rows = slice(begin, begin + images)
        own = anchors[rows] if anchors.dim() == 3 else anchors
        assigned = _matched(assigner, own, boxes[rows], None if valid is None else valid[rows, None])
        if ignored is not None and assigner.ignore_iof_thr > 0:
            inside = overlaps(ignored[rows], own, of_anchor=True).amax(dim=1) > assigner.ignore_iof_thr
            assigned = torch.where((assigned == 0) & inside, -1, assigned)
        parts.append(assigned if valid is None else torch.where(valid[rows], assigned, -1))
    return torch.cat(parts)


def _matched(assigner: MaxIoUAssigner, anchors: Tensor, boxes: Tensor, valid: Tensor | None) -> Tensor:
    """Return `assigned_boxes` of some images without their regions; ``valid`` has shape (B, 1, N)."""
    if not boxes.shape[1]:
        return torch.zeros(len(boxes), anchors.shape[-2], dtype=torch.int64, device=anchors.device)
    shares = overlaps(boxes, anchors)
    if valid is not None:
        shares = torch.where(valid, shares, -1.0)
    best, box = shares.max(dim=1)
    assigned = torch.where(best < assigner.neg_iou_thr, 0, -1)
    assigned = torch.where(best >= assigner.pos_iou_thr, box + 1, assigned)
    if assigner.match_low_quality:
        nearest = shares.amax(dim=2, keepdim=True)
        matched = (shares == nearest) & (nearest >= assigner.min_pos_iou)
        numbers = torch.arange(1, boxes.shape[1] + 1, device=boxes.device)[:, None]
        last = (matched * numbers).amax(dim=1)
        assigned = torch.where(last > 0, last, assigned)
    return assigned


def overlaps(boxes: Tensor, anchors: Tensor, *, of_anchor: bool = False) -> Tensor:
    """Return IoU of boxes and anchors, or the share of the anchor's area, shape (B, G, N).

    Args:
        boxes: shape (B, G, 4).
        anchors: shape (N, 4) or (B, N, 4).
        of_anchor: the share.
    """
    left, top, right, bottom = boxes[..., None].unbind(dim=2)
    sides = anchors.movedim(-1, 0).unsqueeze(-2).contiguous()
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    width = torch.minimum(right, sides[2]).sub_(torch.maximum(left, sides[0])).clamp_(min=0)
    common = width.mul_(torch.minimum(bottom, sides[3]).sub_(torch.maximum(top, sides[1])).clamp_(min=0))
    whole = area if of_anchor else ((right - left) * (bottom - top) + area).sub_(common)
    return common / whole.clamp(min=_LEAST)


def drawn(sampler: RandomSampler, assigned: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Draw what counts of anchors or proposals, an image after the other with mmdet's draws.

    Args:
        sampler: mmdet's; has the number per image and the largest share of the foreground.
        assigned: as `assigned_boxes` has it, shape (B, N).

    Returns:
        Places of foreground and background in the flattened ``assigned``, int64, and how many of each an image has.
    """
    masks = torch.stack([assigned > 0, assigned == 0])
    places = masks.flatten().nonzero()[:, 0]
    available = masks.sum(dim=2).tolist()
    chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
    begins, counts = [0, sum(available[0])], []
    for of_image in zip(*available, strict=True):
        room = int(sampler.num * sampler.pos_fraction)
        for kind, number in enumerate(of_image):
            rows = torch.randperm(number)[:room].sort().values if number > room else torch.arange(number)
            chosen[kind].append(rows + begins[kind])
            begins[kind] += number
            room = sampler.num - len(rows)
        counts.append((len(chosen[0][-1]), len(chosen[1][-1])))
    foreground, background = (places[torch.cat(rows).to(places.device, non_blocking=True)] for rows in chosen)
    return foreground, background - assigned.numel(), counts
