"""What a method may replace in the shared training: named extension points with defaults that change nothing.

With the defaults the detector is Soft Teacher. A method subclasses `Parts`, overrides what it changes and keeps its
whole state in buffers of that one module: so the state is in every checkpoint, exists once (not in student *and*
teacher) and is never averaged by the teacher's update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cissod_bench import distributed
from cissod_bench.contract.stages import ONE_STAGE, Stage
from cissod_bench.contract.stock import Stock
from cissod_bench.errors import UsageFault
from cissod_bench.messages import sendable

Branch: TypeAlias = Literal["sup", "unsup_cls", "teacher", "predict"]
Copies: TypeAlias = Mapping[int, npt.NDArray[np.int32]]
"""Source (0 labelled, 1 unlabelled) -> how often each of its images is drawn in a pass, shape (its images,)."""


@dataclass(frozen=True)
class Context:
    """Where in the training a part is called. It never changes: `at` makes the one of another branch.

    Attributes:
        iteration: optimiser steps done before this one, 0 <= iteration < iterations.
        iterations: T, the optimiser steps of the whole run.
        generation: t, 0 <= t < generations.
        generations: N_t.
        stage: number of the running stage, 0 where a method has one only.
        branch: "sup" (student on labelled images), "unsup_cls" (student on unlabelled images, without the box loss,
            which asks no part), "teacher" (teacher on the weak views) or "predict" (scoring). It says nothing in parts
            that belong to no branch: `Parts.copies`, `Parts.promoted`, `Parts.after_iteration` and those of stages.
        collect: whether the part may add to its state now: in the branches of a training iteration, not in "predict"
            nor where a loss is computed to be looked at only (``check-method`` does so).
        student: the student detector, e.g. for the weights of its classifier.
        logs: numbers a part wants in ``log.jsonl``, one dictionary for all branches of an iteration.
        detect_unlabelled: only in `Parts.promoted` and `Parts.copies`: runs the teacher over this rank's share of D_u,
            for methods that want pseudo labels of all images at once.
    """

    iteration: int
    iterations: int
    generation: int = 0
    generations: int = 1
    stage: int = 0
    branch: Branch = "sup"
    collect: bool = False
    student: nn.Module | None = None
    logs: dict[str, Tensor | float] = field(default_factory=dict)
    detect_unlabelled: Callable[[], Iterable[Detections]] | None = None

    def at(self, branch: Branch, *, collect: bool = False) -> Context:
        """Return the context of another branch of the same iteration; its ``logs`` are these."""
        return replace(self, branch=branch, collect=collect)

    @staticmethod
    def sum_over_ranks(values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes (the tensor itself in a single process)."""
        return distributed.all_reduce_sum(values)


@dataclass(frozen=True)
class Detections:
    """The teacher's detections on one unlabelled image after NMS.

    Attributes:
        image_id: id of the image in the split's annotation file.
        image_index: row of the image in its source.
        boxes: xyxy in pixels of the original image, shape (M, 4).
        labels: channels in [0, n), int64, shape (M,).
        scores: in (score floor, 1], shape (M,).
    """

    image_id: int
    image_index: int
    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def kept(self, keep: Tensor) -> Detections:
        """Return the chosen ones, bool (M,) or their rows."""
        return replace(self, boxes=self.boxes[keep], labels=self.labels[keep], scores=self.scores[keep])


@dataclass(frozen=True)
class Regions:
    """Features of regions with their classes.

    Attributes:
        features: output of the last shared layer of the RoI head, shape (M, D).
        labels: channels in [0, n), int64, shape (M,).
    """

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class LabelledImage:
    """An image of D_l in the view that images are scored in.

    Attributes:
        image: blue, green, red, uint8, shape (3, H, W).
        boxes: xyxy in its pixels, without ignore regions, shape (M, 4).
        labels: channels in [0, n), int64, shape (M,).
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


LabelledImages: TypeAlias = Callable[[Sequence[int]], Iterable[LabelledImage]]
"""Reads images of D_l, given by their rows."""


@sendable
@dataclass(frozen=True)
class Promoted:
    """Pseudo labels that make unlabelled images labelled ones for a generation, as columns.

    Attributes:
        images: row in D_u of every box's image, int64, shape (B,).
        boxes: xyxy in pixels of the original image, float32, shape (B, 4).
        labels: channels in [0, n), int64, shape (B,).
        ignored: ignore regions: what lies in them by more than half is no background, bool, shape (B,).
    """

    images: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]


class Parts(nn.Module):
    """A method's parts for one run; the defaults are Soft Teacher's.

    Args:
        num_classes: n, the foreground classes.
        theta: the fixed threshold on classification pseudo labels (Sec. 4.2: 0.9).

    Attributes:
        OBSERVES_LABELLED: whether `observe_labelled` is called, which costs a pass of the teacher.
        COMPARES_VIEWS: whether `extra_losses` is called, which costs a pass of the student's RoI head.
        COMPARES_PROPOSALS: whether it is called with all proposals of the teacher, not with its confident detections.
        STUDENT_SEES_WEAK: whether features of the weak views are the student's, not the teacher's, in `score_transform`
            and `extra_losses`, which costs a pass of the student.
    """

    OBSERVES_LABELLED = False
    COMPARES_VIEWS = False
    COMPARES_PROPOSALS = False
    STUDENT_SEES_WEAK = False
    theta_fixed: Tensor

    def __init__(self, num_classes: int, theta: float = 0.9) -> None:
        super().__init__()
        self.num_classes = num_classes
        # Not persistent: a setting, not a state.
        self.register_buffer("theta_fixed", torch.full((num_classes,), theta), persistent=False)

    def model_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the detector's mmdet settings, changed where the method needs another head."""
        return config

    def change_model(self, model: nn.Module) -> None:
        """Change the built student, with its initial weights, before the teacher is copied from it.

        Modules added here are the student's, so that the teacher averages their parameters.
        """

    def stock(self, detector: Stock) -> Stock:
        """Return a trained detector in the words of stock mmdet, for ``cissod-bench export``; it may be changed.

        A method that replaces `model_config`, `change_model`, `activation` or `final_scores` has to say what that is
        there; what acts in training alone need not be told.

        Args:
            detector: settings as they were before the method changed them, and the weights as trained.

        Raises:
            UsageFault: the method does not say it.
        """
        changed = ("model_config", "change_model", "activation", "final_scores")
        own = [name for name in changed if getattr(type(self), name) is not getattr(Parts, name)]
        if own:
            raise UsageFault(
                f"{type(self).__name__} replaces {', '.join(own)}, and does not say what that is in a stock detector.",
                remedy="add `stock` to the method's parts (cissod_bench/contract/parts.py says how)",
            )
        return detector

    def departures(self) -> dict[str, list[Any]]:
        """Return the run's constants that are not the paper's: name -> [the paper's value, the value used].

        They go into run.json. What holds in every run stands as sentences in `Method.departures`.
        """
        return {}

    def score_transform(self, scores: Tensor, features: Tensor, context: Context) -> Tensor:
        """Return the teacher's class probabilities as NMS shall see them.

        Args:
            scores: probabilities of the teacher's RoIs, background last, shape (R, K).
            features: output of the last shared layer of the RoI head, shape (R, D); see ``STUDENT_SEES_WEAK``.
            context: branch "teacher".
        """
        return scores

    def thresholds(self, context: Context) -> Tensor:
        """Return theta in [0, 1], shape (n,): a pseudo label of class i trains the classifier if score > theta[i].

        Asked once per iteration, in branch "teacher", after `observe_detections` and before the classification loss.
        """
        return self.theta_fixed

    def rpn_threshold(self, threshold: float) -> float:
        """Return the score above which a detection is an object to the RPN.

        Args:
            threshold: the settings', in [0, 1]; where scores are no probabilities, the method says which it stands for.
        """
        return threshold

    def classification_loss(
        self, logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context
    ) -> Tensor:
        """Return the RoI classification loss, a scalar: sum_r v_r l_r / Z with cross-entropy rows l_r.

        Args:
            logits: class scores before the activation, background last, shape (R, K).
            labels: channels in [0, n], n is background, int64, shape (R,).
            label_weights: v in [0, 1], shape (R,); below 1 only for background RoIs of unlabelled images.
            normaliser: Z > 0, a scalar: R on labelled images, max(sum v, 1) on unlabelled ones.
            context: branch "sup" or "unsup_cls"; state may be collected where ``context.collect``.
        """
        return (label_weights * F.cross_entropy(logits, labels, reduction="none")).sum() / normaliser

    def activation(self, logits: Tensor) -> Tensor:
        """Return class probabilities, shape (R, K); the last column is P(background) in [0, 1]."""
        return logits.softmax(dim=1)

    def observe_detections(self, detections: Sequence[Detections], context: Context) -> None:
        """Look at the teacher's detections above the score floor on this iteration's unlabelled images."""

    def copies(self, context: Context) -> Copies | None:
        """Return how often each image is drawn in the generation that begins; None for once each.

        Called at the start of every generation on every rank; the result of rank 0 is used on all.
        """
        return None

    def after_iteration(self, context: Context) -> None:
        """Update the state once per iteration, after the optimiser's step, with sums over all ranks."""

    def observe_labelled(self, regions: Regions, context: Context) -> None:
        """Look at the teacher's features of this iteration's labelled boxes; only if ``OBSERVES_LABELLED``."""

    def extra_losses(self, teacher: Regions, student: Tensor, context: Context) -> dict[str, Tensor]:
        """Return further losses on unlabelled images, which are weighted by lambda_u; only if ``COMPARES_VIEWS``.

        Args:
            teacher: the RoIs of its detections above the initial threshold, or all its RoIs (``COMPARES_PROPOSALS``),
                in the weak views.
            student: its features of the same boxes in the strong views, with their graph, shape (M, D).
            context: branch "unsup_cls".
        """
        return {}

    def promoted(self, context: Context) -> Promoted | None:
        """Return the pseudo labels that count as labels in the generation that begins; before `copies`.

        Only for methods with ``images="promoted"``, whose source 0 holds D_l and behind it D_u: image i of D_u is row
        N_l + i. Called on every rank; the result of rank 0 is used on all.
        """
        return None

    def stages(self) -> Sequence[Stage]:
        """Return the stages of the training, whose shares of T sum to 1."""
        return ONE_STAGE

    def begin_stage(self, model: nn.Module, context: Context) -> None:
        """Change the student's weights where a stage after the first begins; the teacher becomes its copy.

        Called once, on every rank with the same state of torch's generator, before `enter_stage`.
        """

    def enter_stage(self, model: nn.Module, context: Context) -> None:
        """Set what a stage has other than weights, e.g. what is frozen, on the student and on the teacher.

        Called where a stage begins, the first one too, and where a run continues; a new optimiser follows.
        """

    def begin_run(self, labelled: LabelledImages) -> None:
        """Look for what the method needs beside the split; called on every rank before the training begins or goes on.

        Args:
            labelled: reads images of D_l, now or later.

        Raises:
            EnvironmentFault: something is missing, told before the training and not after it.
        """

    def final_scores(self, image: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """Return the final scores of an image's detections after NMS, shape (M,); not of the pseudo labels of a batch.

        Called where images are scored and in full passes over D_u (``Context.detect_unlabelled``).

        Args:
            image: in the view that images are scored in: blue, green, red, uint8, shape (3, H, W).
            boxes: xyxy in its pixels, shape (M, 4).
            labels: channels in [0, n), int64, shape (M,).
            scores: in (score floor, 1], shape (M,).
        """
        return scores

    def statistics(self, context: Context) -> dict[str, Tensor | float]:
        """Return numbers for ``pseudo_labels.jsonl``, which no training reads: ("w", "pool", "pool_coverage").

        Called at the end of every generation on every rank. Tensors of shape (n,) become a mean per group, with its
        least and greatest value.
        """
        return {}

    def before_save_checkpoint(self, state: dict[str, Any]) -> None:
        """Add what is not a buffer (ragged lists as tensors) to the checkpoint's ``state``.

        Called on every rank, so that what the ranks hold apart can be gathered; rank 0's ``state`` is written.
        """

    def after_load_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Take back what `before_save_checkpoint` added."""


def parts_for(facts: Any) -> Parts:
    """Return Soft Teacher's parts: the choice of a method that changes nothing in them.

    Args:
        facts: `contract.method.RunFacts`.
    """
    return Parts(len(facts.classes), facts.settings.theta)


def group_means(classes: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Tensor:
    """Return the matrix that averages a vector over the classes of each group, shape (groups, n)."""
    members = torch.tensor([[float(name in own) for name in classes] for own in map(set, groups.values())])
    return members / members.sum(dim=1, keepdim=True).clamp(min=1)
