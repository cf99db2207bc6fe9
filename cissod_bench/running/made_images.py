"""Images made of random patches, in the size that a preset's training sees, to measure an iteration on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes  # noqa: F401  registers box types
from mmengine.structures import InstanceData
from torch import nn

from cissod_bench.contract.settings import Settings

ASPECT = (4, 3)
"""Width to height of the made images, that of most photographs."""
_BOXES = 5  # of a labelled image
_DRAWN = 200  # short sides of which the mean is taken


def usual_size(settings: Settings) -> tuple[int, int]:
    """Return (height, width) of an image of the mean area that training draws, pixels.

    Short sides are drawn evenly from ``short_side``; a long side beyond ``long_side`` makes the image smaller.
    """
    low, high = settings.short_side
    most = settings.long_side * ASPECT[1] / ASPECT[0]
    sides = np.minimum(np.linspace(low, high, _DRAWN), most)
    height = math.sqrt(float(np.mean(sides**2)))
    return round(height), round(height * ASPECT[0] / ASPECT[1])


def made_batch(images: tuple[int, int], size: tuple[int, int], classes: int) -> dict[str, list[Any]]:
    """Return labelled images, and weak and strong views of unlabelled ones, as the loader packs them.

    Args:
        images: labelled and unlabelled ones.
        size: height and width, pixels.
        classes: foreground classes.
    """
    rng = np.random.default_rng(0)
    labelled, unlabelled = images
    return {
        "sup": [made_view(rng, size, classes, number, _BOXES) for number in range(labelled)],
        "weak": [made_view(rng, size, classes, number) for number in range(unlabelled)],
        "strong": [made_view(rng, size, classes, number) for number in range(unlabelled)],
    }


def made_view(
    rng: np.random.Generator, size: tuple[int, int], classes: int, number: int, boxes: int = 0
) -> dict[str, Any]:
    """Return a random image as the transforms pack it.

    Args:
        rng: draws boxes and pixels.
        size: height and width, pixels.
        classes: foreground classes.
        number: the image's id.
        boxes: labelled boxes.
    """
    height, width = size
    sample = DetDataSample(
        metainfo={
            "img_id": number,
            "img_index": number,
            "img_shape": size,
            "ori_shape": size,
            "scale_factor": (1.0, 1.0),
            "homography_matrix": np.eye(3, dtype=np.float32),
        }
    )
    corners = rng.uniform(0, 0.6, (boxes, 2)) * (width, height)
    truth = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, (boxes, 2)) * (width, height)], axis=1)
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(truth.astype(np.float32)), labels=torch.from_numpy(rng.integers(0, classes, boxes))
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    # Patches of colour and not single pixels of it, which would look the same in every proposal.
    patches = torch.from_numpy(rng.integers(0, 255, (1, 3, 8, 12), dtype=np.uint8))
    return {"inputs": nn.functional.interpolate(patches, size=size, mode="nearest")[0], "data_samples": sample}
