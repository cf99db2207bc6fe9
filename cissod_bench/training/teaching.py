"""What passes from the teacher to the student: pseudo labels in the student's views, and features to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.training.parts import Detections, Regions


@dataclass
class Found:
    """One image's detections after NMS, in its view's pixels.

    Attributes:
        boxes: xyxy, shape (M, 4).
        labels: channels, shape (M,).
        scores: in falling order, shape (M,).
        features: output of the head's last shared layer for the RoIs they come from, shape (M, D).
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    features: Tensor

    def kept(self, keep: Tensor) -> Found:
        """Return the chosen ones, bool (M,)."""
        return Found(self.boxes[keep], self.labels[keep], self.scores[keep], self.features[keep])


@dataclass
class PseudoLabels:
    """The teacher's confident detections on one unlabelled image, in the student's (strong) view.

    Attributes:
        boxes: xyxy in pixels of the strong view, shape (M, 4).
        labels: channels, shape (M,).
        scores: above the initial threshold, shape (M,).
        uncertainty: u of each box, shape (M,).
        features: the teacher's, of the RoI in the weak view, shape (M, D).
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    uncertainty: Tensor
    features: Tensor

    def instances(self, keep: Tensor) -> InstanceData:
        """Return the kept ones as mmdet ground truth."""
        return InstanceData(bboxes=self.boxes[keep], labels=self.labels[keep])


@dataclass
class TeacherPass:
    """What the student's losses need of the teacher: its features and views, and its pseudo labels.

    ``confident`` are the detections above the initial threshold in the original images, for who judges them.
    """

    features: tuple[Tensor, ...]
    views: list[DetDataSample]
    pseudo: list[PseudoLabels]
    confident: list[Detections]

    def regions(self) -> Regions:
        """Return the teacher's features and labels of all pseudo labels."""
        features, labels = (torch.cat([getattr(p, name) for p in self.pseudo]) for name in ("features", "labels"))
        return Regions(features, labels)


def homography(sample: DetDataSample, device: torch.device) -> Tensor:
    """Return the way from the original image to a view, float64, shape (3, 3)."""
    return torch.as_tensor(sample.homography_matrix, dtype=torch.float64, device=device)


def supervise(samples: Sequence[DetDataSample], instances: Sequence[InstanceData]) -> None:
    """Put ground truth into samples."""
    for sample, own in zip(samples, instances, strict=True):
        sample.gt_instances = own
