"""What student and teacher each compute of a batch: proposals, features of regions, targets, detections.

The steps of the iteration that call it are in ``semi_supervised.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.contract.parts import Context, Parts
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.formulas import nms_per_class
from cissod_bench.detector.precision import pooled
from cissod_bench.detector.preparing import prepared
from cissod_bench.detector.proposals import proposals_of
from cissod_bench.detector.roi_sampling import Targets, foreground_rows, sampled_rois, targets_of
from cissod_bench.detector.rpn_losses import rpn_losses
from cissod_bench.detector.teacher_pass import Compared, ViewDetections

Losses = dict[str, Tensor]


@dataclass
class RoIs:
    """Sampled RoIs of a batch as the student's head sees them.

    Attributes:
        sampled: of every image, see `sampled_rois`.
        rois: number of the image and xyxy, shape (R, 5).
        shared: output of the head's last shared layer, with its graph, shape (R, D).
    """

    sampled: list[Any]
    rois: Tensor
    shared: Tensor

    def foreground(self) -> Tensor:
        """Return the rows of the foreground, int64; see `foreground_rows`."""
        return foreground_rows(self.sampled, self.rois.device)


@dataclass
class StudentFeatures:
    """What the student's backbone and FPN make of a batch of views.

    Attributes:
        features: of the FPN, (B, C, H, W) per level, with their graph.
        samples: mmdet's samples of the views, an entry per image.
    """

    features: tuple[Tensor, ...]
    samples: list[DetDataSample]


def priors_of(sampled: Sequence[Any]) -> list[Tensor]:
    """Return the boxes of sampled RoIs, (R_i, 4) of every image."""
    return [of_image.priors for of_image in sampled]


class TwoModels(nn.Module):
    """Student and teacher, and what their heads do with a batch.

    Args:
        parts: the method's parts.
        settings: thresholds and limits.
    """

    student: Any  # mmdet's detectors, whose parts have no types
    teacher: Any

    def __init__(self, parts: Parts, settings: Settings) -> None:
        super().__init__()
        self.parts = parts
        self.settings = settings

    def _prepare(self, model: Any, views: Sequence[dict[str, Any]]) -> tuple[Tensor, list[DetDataSample]]:
        return prepared(model.data_preprocessor, views)

    def _student_features(self, batches: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, StudentFeatures]:
        """Return the student's features of batches of views by name, in one pass if all are padded to the same size."""
        inputs, samples = [], {}
        for name, views in batches.items():
            images, samples[name] = self._prepare(self.student, views)
            inputs.append(images)
        numbers = [len(images) for images in inputs]
        if len({images.shape[1:] for images in inputs}) == 1:
            together = torch.cat(inputs)
            del images, inputs  # what is held beside the backbone's largest maps is the peak of a step's memory
            levels = self.student.extract_feat(together)
            features = list(zip(*(torch.split(level, numbers) for level in levels), strict=True))
        else:
            features = [self.student.extract_feat(images) for images in inputs]
        of_batches = zip(features, samples.values(), strict=True)
        return dict(zip(samples, (StudentFeatures(tuple(maps), its) for maps, its in of_batches), strict=True))

    def _rpn_losses(
        self, features: tuple[Tensor, ...], samples: list[DetDataSample]
    ) -> tuple[Losses, list[InstanceData]]:
        """Return the class-agnostic RPN losses and the proposals, which carry no gradient."""
        head, limits = self.student.rpn_head, self.student.train_cfg.rpn_proposal
        logits, deltas = head(features)
        objectness, boxes = rpn_losses(head, logits, deltas, samples)
        proposals = proposals_of(head, logits, deltas, [sample.img_shape for sample in samples], limits)
        losses = {"rpn_loss_rpn_cls": objectness, "rpn_loss_rpn_bbox": boxes}
        return losses, [InstanceData(bboxes=of_image) for of_image in proposals]

    def _proposals(
        self, model: Any, features: tuple[Tensor, ...], samples: Sequence[DetDataSample], context: Context
    ) -> list[Tensor]:
        """Return the proposals of every image, (P, 4) each: the teacher's by the limits of training if so set."""
        as_trained = context.branch == "teacher" and self.settings.teacher_proposals == "train"
        limits = model.train_cfg.rpn_proposal if as_trained else model.test_cfg.rpn
        shapes = [sample.img_shape for sample in samples]
        logits, deltas = model.rpn_head(features)
        return proposals_of(model.rpn_head, logits, deltas, shapes, limits)

    def _sample(self, proposals: Sequence[InstanceData], samples: Sequence[DetDataSample]) -> list[Any]:
        """Assign proposals to the samples' boxes and sample RoIs, which are returned by image."""
        return sampled_rois(self.student.roi_head, [of_image.bboxes for of_image in proposals], samples)

    def _targets(self, sampled: Sequence[Any]) -> Targets:
        """Return labels (R,), label weights (R,), box targets (R, 4) and box weights (R, 4)."""
        return targets_of(self.student.roi_head, sampled)

    def _shared(self, model: Any, features: tuple[Tensor, ...], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return RoIs (R, 5) and the output of the head's last shared layer (R, D); ``boxes`` are of every image."""
        (found,) = self._shared_each(model, features, [boxes])
        return found

    def _shared_each(
        self, model: Any, features: tuple[Tensor, ...], sets: Sequence[Sequence[Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return what `_shared` does of several sets of boxes, in one pass: one RoIAlign, one product per layer."""
        head = model.roi_head
        rois = [bbox2roi(list(boxes)) for boxes in sets]
        shared = pooled(head.bbox_roi_extractor, features, torch.cat(rois)).flatten(1)
        for layer in head.bbox_head.shared_fcs:
            shared = head.bbox_head.relu(layer(shared))
        return list(zip(rois, torch.split(shared, [len(of_set) for of_set in rois]), strict=True))

    def _box_loss(self, rois: RoIs, deltas: Tensor, targets: Targets) -> Tensor:
        """Return the box regression loss over the number of sampled RoIs; 0 with its graph without foreground."""
        rows = rois.foreground()
        if not len(rows):
            return deltas.float().sum() * 0.0  # half precision could overflow
        labels, _, box_targets, box_weights = (column[rows] for column in targets)
        of_class = self._of_class(deltas, rows, labels)
        loss: Tensor = self.student.roi_head.bbox_head.loss_bbox(
            of_class, box_targets, box_weights, avg_factor=len(deltas)
        )
        return loss

    def _of_class(self, deltas: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Return the regressor's output for some RoIs and one class each, float32, shape (M, 4)."""
        if self.settings.shared_boxes:
            return deltas[rows].float()
        return deltas.reshape(len(deltas), self.parts.num_classes, 4)[rows, labels].float()

    def _decode(
        self, model: Any, rois: Tensor, deltas: Tensor, shape: tuple[int, int], rows: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the refined boxes of some RoIs for one class each, clipped to the view, shape (M, 4)."""
        of_class = self._of_class(deltas, rows, labels)
        boxes: Tensor = model.roi_head.bbox_head.bbox_coder.decode(rois[rows, 1:], of_class, max_shape=shape)
        return boxes

    def _detect(
        self,
        model: Any,
        features: tuple[Tensor, ...],
        samples: Sequence[DetDataSample],
        context: Context,
        student_features: tuple[Tensor, ...] | None = None,
    ) -> list[ViewDetections]:
        """Return the detections on every image after NMS.

        Args:
            model: student or teacher.
            features: its FPN's of the views.
            samples: of the views.
            context: scores are the method's `score_transform`'s in branch "teacher" only.
            student_features: the student's of the same views, where the method wants those (``STUDENT_SEES_WEAK``).
        """
        proposals = self._proposals(model, features, samples, context)
        rois, shared = self._shared(model, features, proposals)
        deltas = model.roi_head.bbox_head.fc_reg(shared)
        scores = self.parts.activation(model.roi_head.bbox_head.fc_cls(shared).float())
        if student_features is not None:
            _, shared = self._shared(self.student, student_features, proposals)
        if context.branch == "teacher":
            scores = self.parts.score_transform(scores, shared, context)
        # By their numbers, which are known here: a mask of an image's rows would have to be waited for on a GPU.
        numbers = [len(boxes) for boxes in proposals]
        columns = zip(*(torch.split(column, numbers) for column in (rois, deltas, scores, shared)), strict=True)
        return [self._found(model, sample, *of_image) for sample, of_image in zip(samples, columns, strict=True)]

    def _found(
        self, model: Any, sample: DetDataSample, rois: Tensor, deltas: Tensor, scores: Tensor, shared: Tensor
    ) -> ViewDetections:
        """Return one image's detections after NMS, given its RoIs (R, 5) and what the head says of them."""
        boxes, labels, values, rows = nms_per_class(
            scores,
            partial(self._decode, model, rois, deltas, sample.img_shape),
            score_floor=self.settings.score_floor,
            nms_iou=self.settings.nms_iou,
            max_per_image=self.settings.max_dets,
        )
        found = ViewDetections(boxes, labels, values, shared[rows])
        if self.parts.COMPARES_PROPOSALS:
            found.proposals = Compared(rois[:, 1:], scores[:, :-1].argmax(dim=1), shared)
        return found
