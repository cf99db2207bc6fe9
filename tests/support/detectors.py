"""Small detectors and views for the training tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from cissod_bench.contract.parts import Parts
from cissod_bench.contract.presets import SMOKE
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector

CLASSES = ("ball", "box", "cone", "disc", "egg")
GROUPS = {"maj": CLASSES[:3], "min": CLASSES[3:]}
# A detector of a few thousand weights whose random teacher already gives pseudo labels.
TINY = replace(
    SMOKE, base_channels=8, fpn_channels=16, fc_channels=32, roi_samples=16, rpn_samples=16, proposals_train=(50, 20),
    proposals_test=(50, 20), initial_threshold=0.1, rpn_threshold=0.15, theta=0.18, box_threshold=5.0, score_floor=0.05,
)  # fmt: skip


def tiny_detector(parts: Parts | None = None, settings: Settings = TINY, seed: int = 0) -> SemiSupervisedDetector:
    torch.manual_seed(seed)
    parts = parts or Parts(len(CLASSES), settings.theta)
    detector = SemiSupervisedDetector(faster_rcnn(settings, len(CLASSES)), parts, settings, GROUPS, CLASSES)
    with torch.no_grad():  # random heads that prefer some classes, so that thresholds divide their scores
        for model in (detector.student, detector.teacher):
            torch.manual_seed(seed + 1)
            model.roi_head.bbox_head.fc_cls.weight.normal_(0, 2.0)
            model.roi_head.bbox_head.fc_reg.weight.normal_(0, 0.1)
    return detector


def view(seed: int, boxes: int = 0, *, flip: bool = False, height: int = 64, width: int = 96) -> dict[str, Any]:
    """A random image with random boxes, as the transforms pack it."""
    rng = np.random.default_rng(seed)
    matrix = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]] if flip else np.eye(3), np.float32)
    sample = DetDataSample(
        metainfo={
            "img_id": seed, "img_index": seed, "img_shape": (height, width), "ori_shape": (height, width),
            "scale_factor": (1.0, 1.0), "homography_matrix": matrix,
        }
    )  # fmt: skip
    corner = rng.uniform(0, 40, (boxes, 2))
    truth = np.concatenate([corner, corner + rng.uniform(10, 24, (boxes, 2))], axis=1).astype(np.float32)
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(truth.reshape(-1, 4)), labels=torch.from_numpy(rng.integers(0, len(CLASSES), boxes))
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    image = torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8))
    return {"inputs": image, "data_samples": sample}


def batch(seed: int = 0, labelled: int = 2, unlabelled: int = 2) -> dict[str, list[Any]]:
    """Labelled images with three boxes each, and weak and (flipped) strong views of unlabelled ones."""
    strong = [view(seed + 100 + i, flip=True) for i in range(unlabelled)]
    for one in strong:
        one["inputs"] = one["inputs"].flip(2)
    return {
        "sup": [view(seed + i, 3) for i in range(labelled)],
        "weak": [view(seed + 100 + i) for i in range(unlabelled)],
        "strong": strong,
    }
