"""The shared semi-supervised detector: Soft Teacher's iteration on mmdet's components, with a method's parts in it.

The steps of the iteration stand here in their order; what both models compute in them is in ``two_models.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from cissod_bench.contract.parts import Context, Detections, Parts, Regions
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.building import build_model, teacher_of
from cissod_bench.detector.formulas import (
    box_uncertainty,
    chosen_rows,
    jitter,
    project,
    teacher_momentum,
    unsupervised_normaliser,
    without_negative_sides,
)
from cissod_bench.detector.memory_format import usual_on_gpus
from cissod_bench.detector.precision import float_outputs
from cissod_bench.detector.teacher_pass import (
    Compared,
    PseudoLabels,
    TeacherPass,
    ViewDetections,
    homography,
    inside_views,
    pseudo_label_counts,
    set_ground_truth,
)
from cissod_bench.detector.two_models import Losses, RoIs, StudentFeatures, TwoModels, priors_of

Observer: TypeAlias = Callable[[Sequence[Detections], Tensor], None]
"""Takes the confident detections of an iteration and the thresholds theta, shape (n,), that they had to pass."""


@dataclass
class StudentPass:
    """What the student's losses on unlabelled images need of it.

    Attributes:
        samples: the strong views.
        classified: RoIs of the classification loss.
        regressed: RoIs of the box loss.
        compared: features of the regions that `Parts.extra_losses` compares, shape (M, D), with their graph; None where
            the method compares none.
    """

    samples: list[DetDataSample]
    classified: RoIs
    regressed: RoIs
    compared: Tensor | None


class SemiSupervisedDetector(TwoModels):
    """Student, teacher and a method's parts.

    Args:
        model: mmdet settings of the detector (Faster R-CNN).
        parts: the method's parts; with the defaults this is Soft Teacher.
        settings: thresholds, loss weights and momentum.
        groups: group -> names of its classes, to count pseudo labels by.
        classes: names of the foreground classes in channel order.
    """

    group_of: Tensor

    def __init__(
        self,
        model: dict[str, Any],
        parts: Parts,
        settings: Settings,
        groups: Mapping[str, Sequence[str]],
        classes: Sequence[str],
    ) -> None:
        super().__init__(parts, settings)
        self.group_names = tuple(groups)
        number_of = {name: number for number, members in enumerate(groups.values()) for name in members}
        self.register_buffer("group_of", torch.tensor([number_of[name] for name in classes]), persistent=False)
        self.student = build_model(parts.model_config(copy.deepcopy(model)))
        self.student.rpn_head.register_forward_hook(float_outputs)
        parts.change_model(self.student)
        self.teacher = teacher_of(self.student)
        self.observer: Observer | None = None
        self.backbone_record: dict[str, Any] = {}  # what run.json says of a pretrained backbone
        self.train()

    def to_device(self, device: torch.device) -> SemiSupervisedDetector:
        """Move everything, mmdet's preprocessors included, which learn their device from their owner's ``to`` only."""
        usual_on_gpus(self.student, self.teacher, device)
        self.student.to(device)
        self.teacher.to(device)
        return self.to(device)

    def train(self, mode: bool = True) -> SemiSupervisedDetector:
        """Set the student's mode; the teacher stays in evaluation mode always (B6)."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: dict[str, Any], context: Context) -> Losses:
        """Return the losses of one iteration by name, scalars, weighted, to be summed and differentiated.

        Args:
            batch: "sup", "weak" and "strong" -> views as `loading.loaders.collate` has them; weak and strong view of an
                image stand at the same place. Without unlabelled images both are missing.
            context: of the iteration, in any branch.
        """
        context = replace(context, student=self.student)
        losses: Losses = {}
        # In training the sampler draws no unlabelled image before; other callers bring batches of their own.
        begun = context.iteration >= self.settings.unsup_start * context.iterations
        views = {"sup": batch.get("sup"), "strong": batch["strong"] if begun and batch.get("weak") else None}
        features = self._student_features({name: of_batch for name, of_batch in views.items() if of_batch})
        if "sup" in features:
            losses.update(self.supervised_losses(features["sup"], context))
            if self.parts.OBSERVES_LABELLED:
                self.observe_labelled(batch["sup"], context)
        if "strong" in features:
            teacher = self.teach(batch["weak"], batch["strong"], context)
            weight = self.settings.unsup_weight
            unsupervised = self.unsupervised_losses(features["strong"], teacher, context)
            losses.update({f"unsup_{name}": weight * value for name, value in unsupervised.items()})
        return losses

    # Step 1: the student on labelled images.
    def supervised_losses(self, labelled: StudentFeatures, context: Context) -> Losses:
        """Return RPN and RoI losses of the student on labelled images."""
        features, samples = labelled.features, labelled.samples
        losses, proposals = self._rpn_losses(features, samples)
        sampled = self._sample(proposals, samples)
        supervised = RoIs(sampled, *self._shared(self.student, features, priors_of(sampled)))
        logits = self.student.roi_head.bbox_head.fc_cls(supervised.shared)
        deltas = self.student.roi_head.bbox_head.fc_reg(supervised.shared)
        labels, weights, *_ = targets = self._targets(sampled)
        normaliser = weights.new_tensor(max(len(labels), 1))
        context = context.at("sup", collect=True)
        losses["loss_cls"] = self.parts.classification_loss(logits.float(), labels, weights, normaliser, context)
        losses["loss_bbox"] = self._box_loss(supervised, deltas, targets)
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
        """Return what the teacher finds on unlabelled images, its pseudo labels moved to the strong views.

        Args:
            weak: views of the images.
            strong: views of the same images.
            context: of the iteration.
        """
        context = context.at("teacher", collect=True)
        inputs, views = self._prepare(self.teacher, weak)
        features = self.teacher.extract_feat(inputs)
        weak_features = self.student.extract_feat(inputs) if self.parts.STUDENT_SEES_WEAK else None
        detected = self._detect(self.teacher, features, views, context, weak_features)
        in_original = [in_view.in_original(view) for in_view, view in zip(detected, views, strict=True)]
        self.parts.observe_detections(in_original, context)
        keep = chosen_rows([in_view.scores > self.settings.initial_threshold for in_view in detected])
        confident_in_view = [in_view.kept(rows) for in_view, rows in zip(detected, keep, strict=True)]
        confident = [original.kept(rows) for original, rows in zip(in_original, keep, strict=True)]
        uncertainties = self._uncertainties(features, views, confident_in_view)
        samples = [view["data_samples"] for view in strong]
        columns = zip(confident, confident_in_view, uncertainties, samples, strict=True)
        pseudo = inside_views([PseudoLabels.of(*of_image) for of_image in columns])
        compared = self._proposals_in(samples, detected, views) if self.parts.COMPARES_PROPOSALS else pseudo
        return TeacherPass(features, views, pseudo, confident, compared)

    @staticmethod
    def _proposals_in(
        strong: Sequence[DetDataSample], detected: Sequence[ViewDetections], weak: Sequence[DetDataSample]
    ) -> list[Compared]:
        """Return all proposals of the teacher in the strong views."""
        views = zip(detected, weak, strong, strict=True)
        return [in_view.proposals.moved(old, new) for in_view, old, new in views if in_view.proposals is not None]

    # Steps 6-8: the student on the strong views.
    def unsupervised_losses(self, strong: StudentFeatures, teacher: TeacherPass, context: Context) -> Losses:
        """Return RPN, classification and box losses of the student on unlabelled images, before their weight."""
        theta = self.parts.thresholds(context.at("teacher", collect=True))
        if self.observer is not None:
            self.observer(teacher.confident, theta)
        losses, student = self._student_pass(strong, teacher, theta)
        context = context.at("unsup_cls", collect=True)
        losses["loss_cls"] = self._unsupervised_classification(student, teacher, context)
        if student.compared is not None:
            losses.update(self.parts.extra_losses(teacher.regions(), student.compared, context))
        losses["loss_bbox"] = self.unsupervised_box_loss(student.regressed)
        limit = self.settings.box_threshold
        context.logs.update(pseudo_label_counts(teacher.pseudo, theta, self.group_of, self.group_names, limit))
        return losses

    def _student_pass(self, strong: StudentFeatures, teacher: TeacherPass, theta: Tensor) -> tuple[Losses, StudentPass]:
        """Step 6: the RPN's losses, and what steps 7 and 8 need of the student, all RoIs in one pass of its head.

        Args:
            strong: the views as the student sees them.
            teacher: its pseudo labels; each loss learns from those it trusts.
            theta: thresholds of the classification loss, shape (n,).
        """
        features, samples = strong.features, strong.samples
        of_rpn, of_classes, of_boxes = self._trusted(teacher.pseudo, theta)
        set_ground_truth(samples, of_rpn)
        losses, proposals = self._rpn_losses(features, samples)
        set_ground_truth(samples, of_classes)
        classified = self._sample(proposals, samples)
        set_ground_truth(samples, of_boxes)
        regressed = self._sample(proposals, samples)
        sets = [priors_of(classified), priors_of(regressed)]
        if self.parts.COMPARES_VIEWS:
            sets.append([compared.boxes for compared in teacher.compared])
        passes = self._shared_each(self.student, features, sets)
        compared = passes[2][1] if self.parts.COMPARES_VIEWS else None
        return losses, StudentPass(samples, RoIs(classified, *passes[0]), RoIs(regressed, *passes[1]), compared)

    def _trusted(self, pseudo: Sequence[PseudoLabels], theta: Tensor) -> tuple[list[InstanceData], ...]:
        """Return what the RPN, the classifier and the regressor each take for truth, one entry per image."""
        limits = self.settings
        objects = self.parts.rpn_threshold(limits.rpn_threshold)
        masks = [p.scores > objects for p in pseudo]
        masks += [p.scores > theta[p.labels] for p in pseudo]
        masks += [p.uncertainty < limits.box_threshold for p in pseudo]
        chosen = [p.instances(rows) for p, rows in zip([*pseudo] * 3, chosen_rows(masks), strict=True)]
        images = len(pseudo)
        return chosen[:images], chosen[images : 2 * images], chosen[2 * images :]

    def _unsupervised_classification(self, student: StudentPass, teacher: TeacherPass, context: Context) -> Tensor:
        """Step 7: background RoIs count as much as the teacher takes them for background."""
        classified = student.classified
        logits = self.student.roi_head.bbox_head.fc_cls(classified.shared)
        labels, weights, _, _ = self._targets(classified.sampled)
        as_background = self._teacher_background(priors_of(classified.sampled), student.samples, teacher).to(weights)
        weights = torch.where(labels == self.parts.num_classes, as_background, weights)
        normaliser = unsupervised_normaliser(weights)
        return self.parts.classification_loss(logits.float(), labels, weights, normaliser, context)

    def unsupervised_box_loss(self, regressed: RoIs) -> Tensor:
        """Step 8: the box loss on unlabelled images, in which no part of the method is asked anything.

        Args:
            regressed: RoIs sampled for the boxes whose uncertainty is below the limit.
        """
        deltas = self.student.roi_head.bbox_head.fc_reg(regressed.shared)
        return self._box_loss(regressed, deltas, self._targets(regressed.sampled))

    @torch.no_grad()
    def _teacher_background(
        self, priors: Sequence[Tensor], samples: Sequence[DetDataSample], teacher: TeacherPass
    ) -> Tensor:
        """Return the teacher's P(background) of RoIs given in the strong views, shape (R,)."""
        moved = []
        for boxes, strong, weak in zip(priors, samples, teacher.views, strict=True):
            moved.append(project(boxes, homography(strong, weak, boxes.device), *weak.img_shape))
        _, shared = self._shared(self.teacher, teacher.features, moved)
        return self.parts.activation(self.teacher.roi_head.bbox_head.fc_cls(shared).float())[:, -1]

    @torch.no_grad()
    def _uncertainties(
        self, features: tuple[Tensor, ...], views: Sequence[DetDataSample], kept: Sequence[ViewDetections]
    ) -> list[Tensor]:
        """Step 4: u of every kept detection, a tensor (M,) per image."""
        times = self.settings.jitter_times
        scale = self.settings.jitter_scale
        jittered = [without_negative_sides(jitter(in_view.boxes, times, scale).flatten(0, 1)) for in_view in kept]
        rois, shared = self._shared(self.teacher, features, jittered)
        deltas = self.teacher.roi_head.bbox_head.fc_reg(shared)
        result = []
        numbers = [len(boxes) for boxes in jittered]
        columns = zip(torch.split(rois, numbers), torch.split(deltas, numbers), views, kept, strict=True)
        for own_rois, own_deltas, view, in_view in columns:
            rows = torch.arange(len(own_rois), device=rois.device)
            labels = in_view.labels.repeat(times)
            refined = self._decode(self.teacher, own_rois, own_deltas, view.img_shape, rows, labels)
            result.append(box_uncertainty(refined.reshape(times, len(in_view.boxes), 4)))
        return result

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
        """Step 10: move the teacher's parameters towards the student's; buffers stay (B13).

        Args:
            iteration: counted from 0 where the running stage began, at which the teacher was the student's copy.
        """
        momentum = teacher_momentum(iteration, self.settings.teacher_momentum, self.settings.teacher_ramp)
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        apart = [(own, its) for own, its in pairs if own is not its]  # they share what is frozen
        torch._foreach_lerp_([own for own, _ in apart], [its for _, its in apart], 1 - momentum)
