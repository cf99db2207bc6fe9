"""The shared semi-supervised detector: Soft Teacher's iteration on mmdet's components, with a method's parts in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cissod_bench.contract.parts import Context, Detections, Parts, Regions
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.building import build_model
from cissod_bench.detector.formulas import (
    box_uncertainty,
    jitter,
    nms_per_class,
    project,
    teacher_momentum,
    unsupervised_normaliser,
    without_negative_sides,
)
from cissod_bench.detector.precision import float_outputs, pooled
from cissod_bench.detector.teacher_pass import (
    Compared,
    Found,
    PseudoLabels,
    TeacherPass,
    homography,
    pseudo_label_counts,
    supervise,
)

Losses = dict[str, Tensor]
Observer: TypeAlias = Callable[[Sequence[Detections], Tensor], None]
"""Takes the confident detections of an iteration and the thresholds theta, shape (n,), that they had to pass."""


@dataclass
class StudentPass:
    """What the student's losses on unlabelled images share.

    Attributes:
        features: of the strong views, (B, C, H, W) a level.
        samples: the strong views; `supervise` puts into them what a loss takes for truth.
        proposals: of every view, without a gradient.
    """

    features: tuple[Tensor, ...]
    samples: list[DetDataSample]
    proposals: list[InstanceData]


class SemiSupervisedDetector(nn.Module):
    """Student, teacher and a method's parts.

    Args:
        model: mmdet settings of the detector (Faster R-CNN).
        parts: the method's parts; with the defaults this is Soft Teacher.
        settings: thresholds, loss weights and momentum.
        groups: group -> names of its classes, to count pseudo labels by.
        classes: names of the foreground classes in channel order.
    """

    student: Any  # mmdet's detectors, whose parts have no types
    teacher: Any
    group_of: Tensor

    def __init__(
        self,
        model: dict[str, Any],
        parts: Parts,
        settings: Settings,
        groups: Mapping[str, Sequence[str]],
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        self.group_names = tuple(groups)
        number_of = {name: number for number, members in enumerate(groups.values()) for name in members}
        self.register_buffer("group_of", torch.tensor([number_of[name] for name in classes]), persistent=False)
        self.student = build_model(parts.model_config(copy.deepcopy(model)))
        self.student.rpn_head.register_forward_hook(float_outputs)
        parts.change_model(self.student)
        self.teacher = copy.deepcopy(self.student)
        self.teacher.requires_grad_(False)
        self.parts = parts
        self.settings = settings
        self.observer: Observer | None = None
        self.backbone_record: dict[str, Any] = {}  # what run.json says of a pretrained backbone
        self.train()

    def to_device(self, device: torch.device) -> SemiSupervisedDetector:
        """Move everything, mmdet's preprocessors included, which learn their device from their owner's ``to`` only."""
        self.student.to(device)
        self.teacher.to(device)
        return self.to(device)

    def train(self, mode: bool = True) -> SemiSupervisedDetector:
        """Set the student's mode; the teacher stays in evaluation mode always (B6)."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: dict[str, Any], context: Context) -> Losses:
        """Return the losses of one iteration, weighted, to be summed and differentiated."""
        context = replace(context, student=self.student)
        losses: Losses = {}
        if batch.get("sup"):
            losses.update(self.supervised_losses(batch["sup"], context))
            if self.parts.OBSERVES_LABELLED:
                self.observe_labelled(batch["sup"], context)
        if batch.get("weak") and context.iteration >= self.settings.unsup_start * context.iterations:
            teacher = self.teach(batch["weak"], batch["strong"], context)
            weight = self.settings.unsup_weight
            unsupervised = self.unsupervised_losses(batch["strong"], teacher, context)
            losses.update({f"unsup_{name}": weight * value for name, value in unsupervised.items()})
        return losses

    # Step 1: the student on labelled images.
    def supervised_losses(self, views: Sequence[dict[str, Any]], context: Context) -> Losses:
        """Return RPN and RoI losses of the student on labelled images."""
        inputs, samples = self._prepare(self.student, views)
        features = self.student.extract_feat(inputs)
        losses, proposals = self._rpn_losses(features, samples)
        sampled = self._sample(proposals, samples)
        rois, shared = self._shared(self.student, features, [s.priors for s in sampled])
        logits, deltas = self.student.roi_head.bbox_head.fc_cls(shared), self.student.roi_head.bbox_head.fc_reg(shared)
        labels, weights, box_targets, box_weights = self._targets(sampled)
        normaliser = weights.new_tensor(max(len(labels), 1))
        context = context.at("sup", collect=True)
        losses["loss_cls"] = self.parts.classification_loss(logits.float(), labels, weights, normaliser, context)
        losses["loss_bbox"] = self._box_loss(rois, deltas, labels, box_targets, box_weights)
        return losses

    @torch.no_grad()
    def observe_labelled(self, views: Sequence[dict[str, Any]], context: Context) -> None:
        """Show the method the teacher's features of the labelled boxes."""
        inputs, samples = self._prepare(self.teacher, views)
        truths = [sample.gt_instances for sample in samples]
        _, shared = self._shared(self.teacher, self.teacher.extract_feat(inputs), [t.bboxes for t in truths])
        regions = Regions(shared, torch.cat([t.labels for t in truths]))
        self.parts.observe_labelled(regions, context.at("teacher", collect=True))

    # Steps 2-5: the teacher on the weak views.
    @torch.no_grad()
    def teach(self, weak: Sequence[dict[str, Any]], strong: Sequence[dict[str, Any]], context: Context) -> TeacherPass:
        """Return the teacher's pseudo labels for unlabelled images, moved to the strong views."""
        context = context.at("teacher", collect=True)
        inputs, views = self._prepare(self.teacher, weak)
        features = self.teacher.extract_feat(inputs)
        weak_features = self.student.extract_feat(inputs) if self.parts.STUDENT_SEES_WEAK else None
        detected = self._detect(self.teacher, features, views, context, weak_features)
        originals = [in_view.in_original(view) for in_view, view in zip(detected, views, strict=True)]
        self.parts.observe_detections(originals, context)
        keep = [in_view.scores > self.settings.initial_threshold for in_view in detected]
        confident = [in_view.kept(mask) for in_view, mask in zip(detected, keep, strict=True)]
        sure = [original.kept(mask) for original, mask in zip(originals, keep, strict=True)]
        uncertainties = self._uncertainties(features, views, confident)
        samples = [view["data_samples"] for view in strong]
        columns = zip(sure, confident, uncertainties, samples, strict=True)
        pseudo = [PseudoLabels.of(*of_image) for of_image in columns]
        compared = self._proposals_in(samples, detected, views) if self.parts.COMPARES_PROPOSALS else pseudo
        return TeacherPass(features, views, pseudo, sure, compared)

    @staticmethod
    def _proposals_in(
        strong: Sequence[DetDataSample], detected: Sequence[Found], weak: Sequence[DetDataSample]
    ) -> list[Compared]:
        """Return all proposals of the teacher in the strong views."""
        views = zip(detected, weak, strong, strict=True)
        return [in_view.proposals.moved(old, new) for in_view, old, new in views if in_view.proposals is not None]

    # Steps 6-8: the student on the strong views.
    def unsupervised_losses(self, strong: Sequence[dict[str, Any]], teacher: TeacherPass, context: Context) -> Losses:
        """Return RPN, classification and box losses of the student on unlabelled images, before their weight."""
        inputs, samples = self._prepare(self.student, strong)
        features = self.student.extract_feat(inputs)
        supervise(samples, [p.instances(p.scores > self.settings.rpn_threshold) for p in teacher.pseudo])
        losses, proposals = self._rpn_losses(features, samples)
        student = StudentPass(features, samples, proposals)
        theta = self.parts.thresholds(context.at("teacher", collect=True))
        if self.observer is not None:
            self.observer(teacher.confident, theta)
        supervise(samples, [p.instances(p.scores > theta[p.labels]) for p in teacher.pseudo])
        context = context.at("unsup_cls", collect=True)
        losses["loss_cls"] = self._unsupervised_classification(student, teacher, context)
        if self.parts.COMPARES_VIEWS:
            _, shared = self._shared(self.student, features, [c.boxes for c in teacher.compared])
            losses.update(self.parts.extra_losses(teacher.regions(), shared, context))
        losses["loss_bbox"] = self.unsupervised_box_loss(student, teacher)
        limit = self.settings.box_threshold
        context.logs.update(pseudo_label_counts(teacher.pseudo, theta, self.group_of, self.group_names, limit))
        return losses

    def _unsupervised_classification(self, student: StudentPass, teacher: TeacherPass, context: Context) -> Tensor:
        """Step 7: background RoIs count as much as the teacher takes them for background."""
        sampled = self._sample(student.proposals, student.samples)
        priors = [s.priors for s in sampled]
        _, shared = self._shared(self.student, student.features, priors)
        logits = self.student.roi_head.bbox_head.fc_cls(shared)
        labels, weights, _, _ = self._targets(sampled)
        as_background = self._teacher_background(priors, student.samples, teacher).to(weights)
        weights = torch.where(labels == self.parts.num_classes, as_background, weights)
        normaliser = unsupervised_normaliser(weights)
        return self.parts.classification_loss(logits.float(), labels, weights, normaliser, context)

    def unsupervised_box_loss(self, student: StudentPass, teacher: TeacherPass) -> Tensor:
        """Step 8: the box loss on unlabelled images, in which no part of the method is asked anything.

        Args:
            student: its samples are supervised anew, by the boxes the teacher is sure of.
            teacher: with the uncertainty of its boxes.
        """
        limit = self.settings.box_threshold
        supervise(student.samples, [p.instances(p.uncertainty < limit) for p in teacher.pseudo])
        sampled = self._sample(student.proposals, student.samples)
        rois, shared = self._shared(self.student, student.features, [s.priors for s in sampled])
        deltas = self.student.roi_head.bbox_head.fc_reg(shared)
        labels, _, box_targets, box_weights = self._targets(sampled)
        return self._box_loss(rois, deltas, labels, box_targets, box_weights)

    @torch.no_grad()
    def _teacher_background(
        self, priors: Sequence[Tensor], samples: Sequence[DetDataSample], teacher: TeacherPass
    ) -> Tensor:
        """Return the teacher's P(background) of RoIs given in the strong views, shape (R,)."""
        moved = []
        for boxes, strong, weak in zip(priors, samples, teacher.views, strict=True):
            device = boxes.device
            way = homography(weak, device) @ torch.linalg.inv(homography(strong, device))
            moved.append(project(boxes, way, *weak.img_shape))
        _, shared = self._shared(self.teacher, teacher.features, moved)
        return self.parts.activation(self.teacher.roi_head.bbox_head.fc_cls(shared).float())[:, -1]

    @torch.no_grad()
    def _uncertainties(
        self, features: tuple[Tensor, ...], views: Sequence[DetDataSample], kept: Sequence[Found]
    ) -> list[Tensor]:
        """Step 4: u of every kept detection, a tensor (M,) an image."""
        times = self.settings.jitter_times
        scale = self.settings.jitter_scale
        jittered = [without_negative_sides(jitter(in_view.boxes, times, scale).flatten(0, 1)) for in_view in kept]
        rois, shared = self._shared(self.teacher, features, jittered)
        deltas = self.teacher.roi_head.bbox_head.fc_reg(shared)
        result = []
        for number, (view, in_view) in enumerate(zip(views, kept, strict=True)):
            rows = (rois[:, 0] == number).nonzero()[:, 0]
            refined = self._decode(self.teacher, rois, deltas, view.img_shape, rows, in_view.labels.repeat(times))
            result.append(box_uncertainty(refined.reshape(times, len(in_view.boxes), 4)))
        return result

    def _detect(
        self,
        model: Any,
        features: tuple[Tensor, ...],
        samples: Sequence[DetDataSample],
        context: Context,
        student: tuple[Tensor, ...] | None = None,
    ) -> list[Found]:
        """Return the detections on every image after NMS; ``student`` are the student's features of the same views."""
        proposals = self._proposals(model, features, samples, context)
        rois, shared = self._shared(model, features, proposals)
        deltas = model.roi_head.bbox_head.fc_reg(shared)
        scores = self.parts.activation(model.roi_head.bbox_head.fc_cls(shared).float())
        if student is not None:
            _, shared = self._shared(self.student, student, proposals)
        if context.branch == "teacher":
            scores = self.parts.score_transform(scores, shared, context)
        detected = []
        for number, sample in enumerate(samples):
            of_image = rois[:, 0] == number
            boxes, labels, values, rows = nms_per_class(
                scores[of_image],
                partial(self._decode, model, rois[of_image], deltas[of_image], sample.img_shape),
                score_floor=self.settings.score_floor,
                nms_iou=self.settings.nms_iou,
                max_per_image=self.settings.max_dets,
            )
            detected.append(Found(boxes, labels, values, shared[of_image.nonzero()[:, 0][rows]]))
            if self.parts.COMPARES_PROPOSALS:
                best = scores[of_image, :-1].argmax(dim=1)
                detected[-1].proposals = Compared(rois[of_image, 1:], best, shared[of_image])
        return detected

    def _proposals(
        self, model: Any, features: tuple[Tensor, ...], samples: Sequence[DetDataSample], context: Context
    ) -> list[Tensor]:
        """Return the proposals of every image, (P, 4) each: the teacher's by the limits of training if so set."""
        as_trained = context.branch == "teacher" and self.settings.teacher_proposals == "train"
        limits = model.train_cfg.rpn_proposal if as_trained else model.test_cfg.rpn
        shapes = [sample.metainfo for sample in samples]
        proposals = model.rpn_head.predict_by_feat(*model.rpn_head(features), batch_img_metas=shapes, cfg=limits)
        return [of_image.bboxes for of_image in proposals]

    @torch.no_grad()
    def predict(
        self, views: Sequence[dict[str, Any]], context: Context, *, teacher: bool
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return boxes (xyxy, original pixels), labels and scores of every image, by teacher or student."""
        model = self.teacher if teacher else self.student
        training = model.training
        model.eval()
        inputs, samples = self._prepare(model, views)
        detected = self._detect(model, model.extract_feat(inputs), samples, context.at("predict"))
        model.train(training)
        result = []
        for view, sample, in_view in zip(views, samples, detected, strict=True):
            boxes, labels = in_view.boxes, in_view.labels
            scores = self.parts.final_scores(view["inputs"], boxes, labels, in_view.scores)
            result.append((boxes / boxes.new_tensor(sample.scale_factor).repeat(2), labels, scores))
        return result

    @torch.no_grad()
    def copy_student(self) -> None:
        """Make the teacher the student's copy; its buffers, too."""
        self.teacher.load_state_dict(self.student.state_dict())

    @torch.no_grad()
    def update_teacher(self, iteration: int) -> None:
        """Step 10: move the teacher's parameters towards the student's; buffers stay (B13)."""
        momentum = teacher_momentum(iteration, self.settings.teacher_momentum, self.settings.teacher_ramp)
        teacher, student = list(self.teacher.parameters()), list(self.student.parameters())
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)

    def _prepare(self, model: Any, views: Sequence[dict[str, Any]]) -> tuple[Tensor, list[DetDataSample]]:
        data = {"inputs": [v["inputs"] for v in views], "data_samples": [copy.copy(v["data_samples"]) for v in views]}
        data = model.data_preprocessor(data, False)
        return data["inputs"], data["data_samples"]

    def _rpn_losses(
        self, features: tuple[Tensor, ...], samples: list[DetDataSample]
    ) -> tuple[Losses, list[InstanceData]]:
        """Return the class-agnostic RPN losses and the proposals, which carry no gradient."""
        agnostic = []
        for sample in samples:
            truth = sample.gt_instances
            without_classes = copy.copy(sample)
            without_classes.gt_instances = InstanceData(bboxes=truth.bboxes, labels=torch.zeros_like(truth.labels))
            agnostic.append(without_classes)
        proposal_cfg = self.student.train_cfg.rpn_proposal
        losses, proposals = self.student.rpn_head.loss_and_predict(features, agnostic, proposal_cfg=proposal_cfg)
        total = {f"rpn_{name}": torch.stack(list(levels)).sum() for name, levels in losses.items()}
        return total, [InstanceData(bboxes=p.bboxes.detach()) for p in proposals]

    def _sample(self, proposals: Sequence[InstanceData], samples: Sequence[DetDataSample]) -> list[Any]:
        """Assign proposals to the samples' boxes and sample RoIs, an mmdet SamplingResult an image."""
        head, sampled = self.student.roi_head, []
        for proposed, sample in zip(proposals, samples, strict=True):
            priors = InstanceData(priors=proposed.bboxes)
            ignored = sample.get("ignored_instances")
            assigned = head.bbox_assigner.assign(priors, sample.gt_instances, ignored)
            sampled.append(head.bbox_sampler.sample(assigned, priors, sample.gt_instances))
        return sampled

    def _targets(self, sampled: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return labels (R,), label weights (R,), box targets (R, 4) and box weights (R, 4)."""
        head = self.student.roi_head
        targets: tuple[Tensor, Tensor, Tensor, Tensor] = head.bbox_head.get_targets(sampled, head.train_cfg)
        return targets

    @staticmethod
    def _shared(model: Any, features: tuple[Tensor, ...], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return RoIs (R, 5) and the output of the head's last shared layer (R, D)."""
        head = model.roi_head
        rois = bbox2roi(list(boxes))
        shared = pooled(head.bbox_roi_extractor, features, rois).flatten(1)
        for layer in head.bbox_head.shared_fcs:
            shared = head.bbox_head.relu(layer(shared))
        return rois, shared

    def _box_loss(self, rois: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the box regression loss over the number of sampled RoIs; 0 with its graph without foreground."""
        foreground = labels < self.parts.num_classes
        of_class = deltas.float().reshape(len(rois), self.parts.num_classes, 4)[foreground, labels[foreground]]
        if not len(of_class):
            return deltas.float().sum() * 0.0  # half precision could overflow
        loss: Tensor = self.student.roi_head.bbox_head.loss_bbox(
            of_class, targets[foreground], weights[foreground], avg_factor=len(rois)
        )
        return loss

    def _decode(
        self, model: Any, rois: Tensor, deltas: Tensor, shape: tuple[int, int], rows: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the refined boxes of some RoIs for one class each, clipped to the view, shape (M, 4)."""
        of_class = deltas.reshape(len(rois), self.parts.num_classes, 4)[rows, labels].float()
        boxes: Tensor = model.roi_head.bbox_head.bbox_coder.decode(rois[rows, 1:], of_class, max_shape=shape)
        return boxes
