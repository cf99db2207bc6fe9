"""Hidden boxes, detections near them, and pseudo labels judged by plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cissod_bench.contract.parts import Detections
from cissod_bench.training.judging import HiddenBoxes

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
