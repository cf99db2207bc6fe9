"""The RPN's proposals for a whole batch at once, in place of mmdet's image by image and level by level.

The boxes are mmdet's, in its order (``tests/detector/test_rpn.py``); mmdet leaves open which of equal scores comes
first. A GPU is waited for once per batch, to learn how many boxes there are, and in mmcv's NMS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import RPNHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor
from torch.nn import functional

from cissod_bench.detector import cpu_operators
from cissod_bench.detector.anchors import anchors_at, by_anchor, sizes_of

_FEW = 256  # candidates of a level up to which all pairs of all images are compared at once


def best_first(scores: Tensor, number: int) -> Tensor:
    """Return the places of the best scores of every row, best first; of equal ones that which comes first.

    Args:
        scores: float32, shape (B, N).
        number: of places, at most N.

    Returns:
        int64, shape (B, number).
    """
    count = scores.shape[1]
    backwards = torch.arange(count - 1, -1, -1, device=scores.device)
    # The bits of floats that are not negative are in the order of the floats; no two keys are equal.
    keys = scores.contiguous().view(torch.int32).long() * count + backwards
    return count - 1 - keys.topk(number, dim=1).values % count


def batched_proposals(head: Any, limits: Mapping[str, Any]) -> bool:
    """Tell whether the proposals of a whole batch at once are those of mmdet's RPN head."""
    if type(head) is not RPNHead:
        return False
    kind = limits["nms"].get("type")
    plain = set(limits["nms"]) <= {"type", "iou_threshold"} and kind in ("nms", cpu_operators.nms)
    coder = type(head.bbox_coder) is DeltaXYWHBBoxCoder and head.bbox_coder.clip_border
    return bool(plain and coder and head.use_sigmoid_cls and not head.bbox_coder.add_ctr_clamp)


@torch.no_grad()
def proposals_of(
    head: Any,
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    shapes: Sequence[tuple[int, int]],
    limits: Mapping[str, Any],
) -> list[Tensor]:
    """Return every image's proposals after NMS within each level, xyxy, best first, shape (P, 4) each.

    Args:
        head: mmdet's RPN head.
        logits: of objectness, (B, A, H, W) per level.
        deltas: (B, 4 A, H, W) per level.
        shapes: height and width of every image.
        limits: mmdet's: ``nms_pre`` per level go into NMS, ``max_per_img`` stay, with sides above ``min_bbox_size``.
    """
    if not batched_proposals(head, limits):  # a method's own
        metas = [{"img_shape": shape} for shape in shapes]
        found = head.predict_by_feat(logits, deltas, batch_img_metas=metas, cfg=limits)
        return [of_image.bboxes for of_image in found]
    boxes, scores, numbers = _candidates(head, logits, deltas, limits["nms_pre"])
    boxes = _inside(boxes, shapes)
    large = ((boxes[..., 2:] - boxes[..., :2]) > limits["min_bbox_size"]).all(dim=2)
    boxes = torch.where(large[..., None], boxes, 0.0)  # mmdet leaves the others out before it looks for the farthest
    kept = large & _kept(boxes, scores, numbers, limits["nms"])
    best = best_first(torch.where(kept, scores, -1.0), min(limits["max_per_img"], kept.shape[1]))
    boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    counts = kept.sum(dim=1).clamp(max=best.shape[1]).tolist()
    return [of_image[:count] for of_image, count in zip(boxes, counts, strict=True)]


def _candidates(
    head: Any, logits: Sequence[Tensor], deltas: Sequence[Tensor], most: int
) -> tuple[Tensor, Tensor, list[int]]:
    """Return the best boxes of every level, (B, K, 4), levels in a row, their scores (B, K), how many per level."""
    anchors = anchors_at(head.prior_generator, sizes_of(logits), logits[0].device)
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for of_level, own_logits, own_deltas in zip(anchors, by_anchor(logits, 1), by_anchor(deltas, 4), strict=True):
        scores = own_logits[..., 0].sigmoid()
        places = best_first(scores, min(most, len(of_level)))
        chosen = own_deltas.gather(1, places[..., None].expand(-1, -1, 4))
        columns.append((scores.gather(1, places), of_level[places], chosen))
    numbers = [of_level.shape[1] for of_level, *_ in columns]
    scores, priors, changes = (torch.cat(column, dim=1) for column in zip(*columns, strict=True))
    boxes: Tensor = head.bbox_coder.decode(priors.flatten(0, 1), changes.flatten(0, 1))
    return boxes.view_as(priors), scores, numbers


def _inside(boxes: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
    """Return boxes (B, K, 4) clipped to their images."""
    limits = torch.tensor([[width, height] * 2 for height, width in shapes], dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limits.to(boxes.device, non_blocking=True)[:, None])


def _kept(boxes: Tensor, scores: Tensor, numbers: Sequence[int], nms: Mapping[str, Any]) -> Tensor:
    """Return which boxes NMS within their image and level keeps, bool, shape (B, K).

    Args:
        boxes: not negative, shape (B, K, 4).
        scores: falling within a level, shape (B, K).
        numbers: of boxes of every level.
        nms: mmdet's settings of it.
    """
    levels = torch.cat([torch.full((number,), level) for level, number in enumerate(numbers)])
    levels = levels.to(boxes.device, non_blocking=True)
    if nms["type"] is cpu_operators.nms and boxes.device.type == "cpu" and max(numbers) <= _FEW:
        # As mmcv moves levels apart, so that overlaps are rounded as there.
        apart = boxes + levels[:, None] * (boxes.amax(dim=(1, 2)) + 1)[:, None, None]
        most = max(numbers)  # boxes without area that fill up a level cover nothing
        of_levels = torch.split(apart, list(numbers), dim=1)
        filled = torch.stack([functional.pad(own, (0, 0, 0, most - own.shape[1])) for own in of_levels], 1)
        kept = cpu_operators.kept_in_groups(filled.flatten(0, 1), nms["iou_threshold"])
        by_level = zip(kept.view(len(boxes), -1, most).unbind(1), numbers, strict=True)
        return torch.cat([own[:, :number] for own, number in by_level], dim=1)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for own, own_boxes, own_scores in zip(kept, boxes, scores, strict=True):
        own[batched_nms(own_boxes, own_scores, levels, dict(nms))[1]] = True
    return kept
