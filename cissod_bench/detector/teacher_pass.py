"""What passes from the teacher to the student: pseudo labels in the student's views, and features to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.contract.parts import Detections, Regions
from cissod_bench.detector.formulas import chosen_rows, large_enough, project


@dataclass
class Compared:
    """Regions of one unlabelled image whose features in two views a method compares.

    Attributes:
        boxes: xyxy in pixels of a view, shape (M, 4).
        labels: channels of their best classes, shape (M,).
        features: in the weak view, shape (M, D).
    """

    boxes: Tensor
    labels: Tensor
    features: Tensor

    def moved(self, weak: DetDataSample, strong: DetDataSample) -> Compared:
        """Return those that are large enough in the strong view, in its pixels."""
        boxes = project(self.boxes, homography(weak, strong, self.boxes.device), *strong.img_shape)
        inside = large_enough(boxes)
        return Compared(boxes[inside], self.labels[inside], self.features[inside].detach())


@dataclass
class ViewDetections:
    """One image's detections after NMS, in pixels of its view; `Detections` has those in the original image.

    Attributes:
        boxes: xyxy, shape (M, 4).
        labels: channels, shape (M,).
        scores: in falling order, shape (M,).
        features: output of the head's last shared layer for the RoIs they come from, shape (M, D); of the teacher, or
            of the student where the method asks for it.
        proposals: all RoIs of the image, before NMS, where the method compares them.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    features: Tensor
    proposals: Compared | None = None

    def kept(self, rows: Tensor) -> ViewDetections:
        """Return some, given their rows."""
        return ViewDetections(self.boxes[rows], self.labels[rows], self.scores[rows], self.features[rows])

    def in_original(self, view: DetDataSample) -> Detections:
        """Return them in pixels of the original image, given their view."""
        height, width = view.ori_shape
        boxes = project(self.boxes, homography(view, None, self.boxes.device), height, width)
        return Detections(view.img_id, view.img_index, boxes, self.labels, self.scores)


@dataclass
class PseudoLabels:
    """The teacher's confident detections on one unlabelled image, in the student's (strong) view.

    Attributes:
        boxes: xyxy in pixels of the strong view, shape (M, 4).
        labels: channels, shape (M,).
        scores: above the initial threshold, shape (M,).
        uncertainty: u of each box, shape (M,).
        features: of the RoI in the weak view, as in `ViewDetections`, shape (M, D).
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    uncertainty: Tensor
    features: Tensor

    @classmethod
    def of(
        cls, original: Detections, in_view: ViewDetections, uncertainty: Tensor, strong: DetDataSample
    ) -> PseudoLabels:
        """Return an image's detections as pseudo labels; some may have left the strong view.

        Args:
            original: in pixels of the original image.
            in_view: the same in the weak view.
            uncertainty: u of each, shape (M,).
            strong: the student's view.
        """
        boxes = project(original.boxes, homography(None, strong, uncertainty.device), *strong.img_shape)
        return cls(boxes, in_view.labels, in_view.scores, uncertainty, in_view.features.detach())

    def kept(self, rows: Tensor) -> PseudoLabels:
        """Return some, given their rows."""
        return PseudoLabels(*(getattr(self, column.name)[rows] for column in fields(self)))

    def instances(self, rows: Tensor) -> InstanceData:
        """Return some as mmdet ground truth, given their rows."""
        return InstanceData(bboxes=self.boxes[rows], labels=self.labels[rows])


def inside_views(pseudo: Sequence[PseudoLabels]) -> list[PseudoLabels]:
    """Return the pseudo labels that are large enough in the strong views, one entry per image."""
    rows = chosen_rows([large_enough(of_image.boxes) for of_image in pseudo])
    return [of_image.kept(own) for of_image, own in zip(pseudo, rows, strict=True)]


@dataclass
class TeacherPass:
    """What the student's losses on unlabelled images need of the teacher; lists have an entry per image.

    Attributes:
        features: of the FPN on the weak views, (B, C, H, W) per level.
        views: the weak views.
        pseudo: pseudo labels in the strong views.
        confident: the detections above the initial threshold in the original images, of which ``pseudo`` are those that
            the strong views show.
        compared: the regions in the strong views that `Parts.extra_losses` compares.
    """

    features: tuple[Tensor, ...]
    views: list[DetDataSample]
    pseudo: list[PseudoLabels]
    confident: list[Detections]
    compared: Sequence[Compared | PseudoLabels]

    def regions(self) -> Regions:
        """Return weak features and labels of all compared regions."""
        features, labels = (torch.cat([getattr(c, name) for c in self.compared]) for name in ("features", "labels"))
        return Regions(features, labels)


def homography(begin: DetDataSample | None, end: DetDataSample | None, device: torch.device) -> Tensor:
    """Return the homography from one view's pixels to another's, float64, shape (3, 3); None is the original image.

    Computed where the matrices lie, on the host: nine numbers are not worth a GPU's being waited for.
    """
    there, back = (
        np.eye(3) if view is None else np.asarray(view.homography_matrix, np.float64) for view in (end, begin)
    )
    return torch.from_numpy(there @ np.linalg.inv(back)).to(device, non_blocking=True)


def set_ground_truth(samples: Sequence[DetDataSample], instances: Sequence[InstanceData]) -> None:
    """Put an image's boxes and labels, true or pseudo, into its sample, where mmdet's assigners look for them."""
    for sample, truth in zip(samples, instances, strict=True):
        sample.gt_instances = truth


def pseudo_label_counts(
    pseudo: Sequence[PseudoLabels], theta: Tensor, group_of: Tensor, groups: Sequence[str], box_threshold: float
) -> dict[str, Tensor | float]:
    """Return pseudo labels per image, of the classifier per group and of the regressor, and the thresholds' range.

    Args:
        pseudo: of every unlabelled image of the iteration, one or more.
        theta: thresholds of the classes, shape (n,).
        group_of: number of every class's group, int64, shape (n,).
        groups: names of the groups.
        box_threshold: the regressor learns from boxes with u below it.
    """
    scores, labels = torch.cat([p.scores for p in pseudo]), torch.cat([p.labels for p in pseudo])
    uncertainty = torch.cat([p.uncertainty for p in pseudo])
    used = (scores > theta[labels]).to(theta.dtype)  # added up and not selected, which a GPU would be waited for
    counts = theta.new_zeros(len(groups)).index_add_(0, group_of[labels], used) / len(pseudo)
    numbers: dict[str, Tensor | float] = {f"pseudo_cls_{name}": n for name, n in zip(groups, counts, strict=True)}
    numbers["pseudo_reg"] = (uncertainty < box_threshold).sum() / len(pseudo)
    return {**numbers, "theta_min": theta.min(), "theta_max": theta.max()}
