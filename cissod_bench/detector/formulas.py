"""The teacher's side of Soft Teacher: detections, their localisation uncertainty, boxes moved between views.

Formulas as pure functions, after Soft Teacher (Xu et al., ICCV 2021, Sec. 3), on which Sec. 4.2 builds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmcv.ops import batched_nms
from torch import Tensor

FEW = 2048  # candidates of an image that go through NMS at once: its time grows with their square


def nms_per_class(
    scores: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    *,
    score_floor: float,
    nms_iou: float,
    max_per_image: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return one image's detections after NMS within every class: boxes, labels, scores, rows.

    Only candidates above the floor are decoded: for 1203 classes all boxes of all RoIs would not fit (B16). Where they
    are many, the best ones go first: what NMS keeps of these it keeps of all, and more are looked at only if that is
    not enough. A sigmoid classifier at its start has every class of every RoI above the floor.

    Args:
        scores: class probabilities, background last, shape (R, K).
        decode: (rows (M,), channels (M,)) -> boxes xyxy (M, 4) of those RoIs and classes.
        score_floor: candidates need score > floor.
        nms_iou: boxes of one class overlapping a better one by more are dropped.
        max_per_image: the best of all classes that are kept.

    Returns:
        boxes (M, 4), labels (M,), scores (M,) in falling order, rows (M,) of the RoIs they come from.
    """
    rows, labels = (scores[:, :-1] > score_floor).nonzero(as_tuple=True)
    if len(rows) > FEW:
        best_first = scores[rows, labels].argsort(descending=True, stable=True)
        rows, labels = rows[best_first], labels[best_first]
    number = FEW
    while True:
        own_rows, own_labels = rows[:number], labels[:number]
        boxes, kept_scores = decode(own_rows, own_labels), scores[own_rows, own_labels]
        if len(rows) == 0:
            return boxes, own_labels, kept_scores, own_rows
        _, keep = batched_nms(boxes.float(), kept_scores.float(), own_labels, {"type": "nms", "iou_threshold": nms_iou})
        if len(keep) >= max_per_image or len(own_rows) == len(rows):
            keep = keep[:max_per_image]
            return boxes[keep], own_labels[keep], kept_scores[keep], own_rows[keep]
        number *= 4


def chosen_rows(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return where each mask is set, int64; a GPU is waited for twice, however many masks there are.

    Args:
        masks: bool, shape (M_i,) each; one or more.
    """
    rows = torch.cat(list(masks)).nonzero()[:, 0]
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    begins = np.cumsum([0, *(len(mask) for mask in masks[:-1])]).tolist()
    return [own - begin for own, begin in zip(torch.split(rows, counts), begins, strict=True)]


def jitter(boxes: Tensor, times: int, scale: float) -> Tensor:
    """Return jittered copies of boxes, shape (times, M, 4).

    Every coordinate gets normal noise of standard deviation ``scale`` x the box's side in its direction, sides of less
    than a pixel counting as one (Soft Teacher, Sec. 3.3; in its released code 10 copies and 0.06).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).repeat(1, 2)
    noise = torch.randn(times, *boxes.shape, device=boxes.device, dtype=boxes.dtype)
    return boxes + scale * sides * noise


def without_negative_sides(boxes: Tensor) -> Tensor:
    """Return boxes whose turned-over sides (jitter does it to slivers) are 0, as RoIAlign demands, shape (M, 4)."""
    return torch.cat([boxes[:, :2], torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)


def box_uncertainty(refined: Tensor) -> Tensor:
    """Return u, shape (M,): how much the refined boxes of a detection's jittered copies spread.

    u is the mean over the four coordinates of std / side, with the unbiased standard deviation over the copies and the
    side of the mean box in the coordinate's direction, at least a pixel.

    Args:
        refined: the regressor's boxes of each copy, xyxy, shape (times, M, 4).
    """
    if refined.shape[1] == 0:
        return refined.new_zeros(0)
    mean = refined.mean(dim=0)
    sides = (mean[:, 2:] - mean[:, :2]).clamp(min=1).repeat(1, 2)
    return (refined.std(dim=0, unbiased=True) / sides).mean(dim=1)


def project(boxes: Tensor, homography: Tensor, height: float, width: float) -> Tensor:
    """Return the axis-parallel hulls of boxes moved by a homography, clipped to an image.

    Args:
        boxes: xyxy, shape (M, 4).
        homography: from the boxes' image to the new one, shape (3, 3).
        height: of the new image, pixels.
        width: of the new image, pixels.
    """
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    corners = torch.stack([x1, y1, x2, y1, x1, y2, x2, y2], dim=1).reshape(-1, 4, 2)
    # No matrix product: mixed precision would do it in half precision, a pixel off in a large image.
    moved = (corners[:, :, None] * homography[:, :2].to(boxes)).sum(dim=-1) + homography[:, 2].to(boxes)
    moved = moved[..., :2] / moved[..., 2:]
    low, high = moved.amin(dim=1), moved.amax(dim=1)
    limit = boxes.new_tensor([width, height])
    return torch.cat([low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)], dim=1)


def large_enough(boxes: Tensor, minimum: float = 1e-2) -> Tensor:
    """Return which boxes keep more than ``minimum`` pixels of width and of height, bool, shape (M,)."""
    return ((boxes[:, 2:] - boxes[:, :2]) > minimum).all(dim=1)


def teacher_momentum(iteration: int, momentum: float, ramp: bool) -> float:
    """Return the teacher's share in its update after an iteration: teacher <- m teacher + (1 - m) student.

    With the ramp it is min(momentum, 1 - 1 / (iteration + 1)), so that the teacher of the first iterations is the
    student's mean and not a random network's.
    """
    return min(momentum, 1 - 1 / (iteration + 1)) if ramp else momentum


def unsupervised_normaliser(label_weights: Tensor) -> Tensor:
    """Return Z of an unlabelled batch: max(sum of the label weights, 1)."""
    return label_weights.sum().clamp(min=1.0)
