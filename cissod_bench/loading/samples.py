"""What the steps of a view do to the boxes of a sample: mmdet's box class by NumPy, which shares its memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from mmdet.structures.bbox import HorizontalBoxes

Sample: TypeAlias = dict[str, Any]
"""mmdet's: "img", "gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", sizes and what was done to it."""
Matrix: TypeAlias = npt.NDArray[np.float32]


def numbers_of(boxes: HorizontalBoxes) -> npt.NDArray[np.float32]:
    """Return the memory of some boxes as an array, shape (B, 4): writing to it writes to them."""
    return boxes.tensor.numpy()  # type: ignore[no-any-return]


def record(sample: Sample, matrix: Matrix) -> None:
    """Multiply a step's homography, shape (3, 3), onto those of the steps before it."""
    before = sample.get("homography_matrix")
    sample["homography_matrix"] = matrix if before is None else matrix @ before


def keep_boxes(sample: Sample, kept: npt.NDArray[np.bool_]) -> None:
    """Leave a sample only some of its boxes, with their labels and flags; ``kept`` has shape (B,)."""
    if not kept.all():
        sample["gt_bboxes"] = HorizontalBoxes(numbers_of(sample["gt_bboxes"])[kept], clone=False)
        for key in ("gt_bboxes_labels", "gt_ignore_flags"):
            sample[key] = sample[key][kept]


def warp_boxes(sample: Sample, matrix: Matrix) -> None:
    """Move a sample's boxes with its image and record the homography.

    A box becomes the one around its moved corners, cut off at the border.

    Args:
        sample: "img_shape" is its height and width.
        matrix: affine, shape (3, 3).
    """
    record(sample, matrix)
    if "gt_bboxes" not in sample:
        return
    boxes = numbers_of(sample["gt_bboxes"])
    corners = np.ones((len(boxes), 3, 4), np.float32)
    corners[:, 0], corners[:, 1] = boxes[:, [0, 2, 0, 2]], boxes[:, [1, 1, 3, 3]]
    # torch's product, as in mmdet: NumPy's may round otherwise.
    moved = torch.matmul(torch.from_numpy(matrix), torch.from_numpy(corners))[:, :2].numpy()
    boxes[:, :2], boxes[:, 2:] = moved.min(axis=2), moved.max(axis=2)
    height, width = sample["img_shape"]
    np.clip(boxes, 0, np.array((width, height) * 2, np.float32), out=boxes)
