"""DeFRCN (Qiao et al., ICCV 2021) on Soft Teacher: pre-train on the majority classes, then tune on balanced images.

The paper says no more than that (Sec. 4.3); the pieces are the few-shot detector's:

* Decoupling layers before the RPN and before the RoI head: a learned affine per channel that scales the gradient to the
  shared features. None of the RPN's gradient reaches them, and 3/4, then 1/100 of the RoI head's.
* Stage 1, T / 3 (the cut is ours; no paper states one): base classes only, supervised, on images of D_l whose boxes are
  all of base classes.
* Between the stages the predictors get fresh rows for the other classes; the base classes keep theirs, by name.
* Stage 2, 2 T / 3: Soft Teacher on D_l with repeat factors and D_u. The two shared layers of the RoI head, where this
  detector has what is res5 in the original, are frozen; the classifier's input has dropout, less where it is narrow.

Base classes are the task's first group: "maj", on LVIS "f". "A balanced dataset" (Sec. 4.3) is read as D_l with repeat
factors, because the same paragraph says that the sampling of all these methods is replaced with RFS; the few-shot
protocol's K images per class are the variant ``kshot``. The original's calibration with prototypes of an ImageNet
classifier (`pcb`) is the variant ``pcb``: it needs weights of another network and acts at test time only.
``METHOD.departures`` lists what else is not as in DeFRCN.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, LabelledImages, Parts
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.contract.stages import Stage
from cissod_bench.contract.stock import Stock
from cissod_bench.errors import UsageFault
from cissod_bench.files.hashing import mix

from . import pcb
from .decoupled import decoupled

BASE, TUNING = 0, 1  # numbers of the stages
RPN_SHARES = (0.0, 0.0)  # lambda of the RPN, per stage; these and the next two lines are DeFRCN's values
ROI_SHARES = (0.75, 0.01)  # lambda of the RoI head
DROPOUT = 0.8  # of the classifier's input while tuning, where it has `WIDTH` channels
WIDTH = 1024  # of Sec. 4.2's detector
CLASSIFIER_SPREAD, REGRESSOR_SPREAD = 0.01, 0.001  # standard deviations of fresh rows, as of Faster R-CNN's own
NO_CHANCE = -1e4  # a logit whose share of a softmax is 0
SHOTS = 10  # images per class of the few-shot protocol
BACKGROUND = "\0background"  # the classifier's last row among names of classes; no class is called this

Chosen = npt.NDArray[np.bool_]


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, share: float) -> Tensor:
        ctx.share = share
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.share, None


class Decoupling(nn.Module):
    """Gradient decoupling layer: y = w x + b per channel, dL/dx = lambda w dL/dy.

    It begins as the identity; w and b get their full gradients. All levels of a feature pyramid share it.

    Args:
        channels: C of the features.

    Attributes:
        share: lambda in [0, 1], set where a stage is entered.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.share = 1.0

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, (B, C, H, W)."""
        own: Tensor = _ScaledGradient.apply(features, self.share)  # type: ignore[no-untyped-call]
        return own * self.weight[:, None, None] + self.bias[:, None, None]


# Hooks read what they need from the module they hang on, so that they serve the teacher's copy of it, too.
def _decouple(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Send the feature pyramid, a module's first argument, through its decoupling layer."""
    return tuple(module.decoupling(level) for level in arguments[0]), *arguments[1:]


def _drop(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return module.dropout(arguments[0]), *arguments[1:]


def base_channels(group: Collection[str], classes: Sequence[str], boxes: Sequence[int]) -> tuple[int, ...]:
    """Return the channels of the base classes, in channel order: those of the task's first group.

    Where none of them has a labelled box, as may be in a tiny split (LVIS: frequent is > 100 images), the base
    classes are all that have one; without any box, all.

    Args:
        group: names of the first group's classes.
        classes: names in channel order.
        boxes: labelled boxes per class, shape (n,).
    """
    base = tuple(channel for channel, name in enumerate(classes) if name in group)
    if not any(boxes[channel] for channel in base):
        base = tuple(channel for channel, number in enumerate(boxes) if number)
    return base or tuple(range(len(classes)))


def base_images(classes_of_images: Sequence[Sequence[int]], base: Sequence[int]) -> Chosen:
    """Return which images of D_l the first stage draws, bool, shape (images,): those without a box of another class.

    If none of them has a box of a base class (on LVIS there may be none), all images that have one are drawn: RoIs of
    other classes are left out of the classification loss then, while RPN and box regressor learn from their boxes, too.
    If there is none either, all images.

    Args:
        classes_of_images: the distinct channels of every image's boxes.
        base: channels of the base classes.
    """
    known = set(base)
    has_base = np.array([not known.isdisjoint(own) for own in classes_of_images], bool)
    only_base = np.array([known.issuperset(own) for own in classes_of_images], bool)
    if (only_base & has_base).any():
        return only_base
    return has_base if has_base.any() else np.ones(len(classes_of_images), bool)


def balanced_images(
    classes_of_images: Sequence[Sequence[int]], base: Sequence[int], order: npt.ArrayLike, shots: int = SHOTS
) -> Chosen:
    """Return the few-shot protocol's images of D_l, bool, shape (images,).

    All images with a box of a class that is not base, and in the given order every other image with a class that is
    still in fewer than ``shots`` chosen ones. What is counted is images, not boxes; a class exceeds ``shots`` only
    together with one that lacks some.

    Args:
        classes_of_images: the distinct channels of every image's boxes.
        base: channels of the base classes.
        order: the images' rows in the order they are asked.
        shots: K > 0.
    """
    known = set(base)
    chosen = np.array([not known.issuperset(own) for own in classes_of_images], bool)
    counts = dict.fromkeys(known, 0)
    asked = np.asarray(order)
    for row in [*np.flatnonzero(chosen), *asked[~chosen[asked]]]:
        own = known.intersection(classes_of_images[row])
        chosen[row] |= any(counts[channel] < shots for channel in own)
        if chosen[row]:
            counts.update({channel: counts[channel] + 1 for channel in own})
    return chosen if chosen.any() else np.ones(len(classes_of_images), bool)


def grown(
    rows: Tensor, old: Sequence[str], new: Sequence[str], *, block: int, spread: float, generator: torch.Generator
) -> Tensor:
    """Return a predictor's rows for other classes: those of known names are copied, the others drawn from N(0, spread).

    Args:
        rows: weights or biases with ``block`` rows per name of ``old``, shape (len(old) * block, ...).
        old: names in the order of the rows; `BACKGROUND` is one.
        new: names of the result, all of ``old`` among them.
        block: rows per name: 1 of the classifier, 4 of the box regressor.
        spread: standard deviation of fresh rows; 0 for biases.
        generator: on the CPU, for fresh rows.
    """
    blocks = rows.detach().reshape(len(old), block, -1)
    result = torch.empty(len(new), block, blocks.shape[2]).normal_(0, spread, generator=generator).to(blocks)
    places = {name: place for place, name in enumerate(new)}
    result[[places[name] for name in old]] = blocks
    return result.reshape(len(new) * block, *rows.shape[1:])


def dropout_for(width: int) -> float:
    """Return the dropout p of a classifier's input that disturbs its logits as .8 of 1024 channels does.

    The variance that dropout adds to a mean of D alike channels is p / (1 - p) / D of its square. Narrow heads of short
    runs keep it: 256 channels have p = .5. Of .8 they would keep 51 channels, and hardly a score passes theta.

    Args:
        width: D > 0; from 1024 on p is .8.
    """
    noise = DROPOUT / (1 - DROPOUT) * width / WIDTH
    return noise / (1 + noise) if width < WIDTH else DROPOUT


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What variants change.

    Attributes:
        base_unlabelled: whether stage 1 is Soft Teacher on the base classes instead of supervised.
        balanced: the second stage's D_l: "rfs", all of it with repeat factors, or "kshot", `balanced_images`.
        calibrated: whether the scores of classes that are not base are calibrated at test time (`pcb`).
    """

    base_unlabelled: bool = False
    balanced: Literal["rfs", "kshot"] = "rfs"
    calibrated: bool = False


class DeFRCN(Parts):
    """Soft Teacher in two stages with decoupled gradients.

    In stage 1 the detector has the channels of all classes already; those of other classes are left out of the softmax,
    which is the classifier of the base classes and background.

    Args:
        facts: of the run.

    Attributes:
        stage: number of the running stage, set where it is entered.
        dropout: p of the classifier's input in stage 2.
    """

    known: Tensor

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(len(facts.classes), facts.settings.theta)
        self.choice, self.classes, self.stage = Choice(**facts.variant), facts.classes, BASE
        group = frozenset(facts.groups.get(facts.task.groups[0], ()))
        self.base = base_channels(group, facts.classes, facts.labelled_boxes)
        known = torch.zeros(self.num_classes + 1, dtype=torch.bool)
        known[[*self.base, self.num_classes]] = True
        self.register_buffer("known", known, persistent=False)  # of stage 1; from the split, not a state
        self._copies = self._labelled_copies(facts)
        self._scales = facts.settings.optimiser == "sgd"
        self.dropout = dropout_for(facts.settings.fc_channels)
        base = set(self.base)
        self._support = [row for row, own in enumerate(facts.labelled_classes) if not base.issuperset(own)]
        self._labelled: LabelledImages | None = None
        self._classifier: pcb.RegionClassifier | None = None
        self._prototypes: tuple[Tensor, Tensor] | None = None

    def departures(self) -> dict[str, list[Any]]:
        """Return that the shares of the RoI head's gradient do nothing under AdamW, which divides by its own average.

        Nothing else reaches the backbone within a stage, so its gradient is scaled by one constant. And a narrow
        head's dropout, and the classifier that calibrates, by its file's hash.
        """
        found: dict[str, list[Any]] = {} if self._scales else {"defrcn.roi_shares": [list(ROI_SHARES), [1.0, 1.0]]}
        if self.dropout != DROPOUT:
            found["defrcn.dropout"] = [DROPOUT, self.dropout]
        if self._classifier is not None:
            found["defrcn.pcb"] = ["", self._classifier.sha256]
        return found

    def begin_run(self, labelled: LabelledImages) -> None:
        """Read the classifier of the variant ``pcb``.

        Raises:
            EnvironmentFault: it is not at hand, or the file is no such network.
        """
        if self.choice.calibrated:
            self._labelled, self._classifier = labelled, pcb.RegionClassifier(pcb.weights_file())

    def final_scores(self, image: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, those of classes that are not base calibrated by prototypes of their labelled boxes."""
        if self._classifier is None or self._labelled is None or not len(boxes):
            return scores
        if self._prototypes is None:
            images = self._labelled(self._support)
            self._prototypes = pcb.prototypes(self._classifier, images, self.num_classes, boxes.device)
        means, present = self._prototypes
        cosines = F.cosine_similarity(self._classifier.describe(image, boxes), means[labels], dim=1)
        return pcb.calibrated(scores, labels, cosines.to(scores.dtype), present & ~self.known[:-1])

    def _labelled_copies(self, facts: RunFacts) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        images = facts.labelled_classes
        first = base_images(images, self.base).astype(np.int32)
        if self.choice.balanced == "rfs":
            return first, labelled_copies(images, self.num_classes, facts.task.repeat_threshold)
        order = np.argsort(mix(facts.seed, 0xDF, np.arange(len(images), dtype=np.uint64)), kind="stable")
        return first, balanced_images(images, self.base, order).astype(np.int32)

    def change_model(self, model: Any) -> None:
        """Put the decoupling layers before the RPN and the RoI head and a dropout before the classifier."""
        for head in (model.rpn_head, model.roi_head.bbox_roi_extractor):
            head.decoupling = Decoupling(model.neck.out_channels)
            head.register_forward_pre_hook(_decouple)
        classifier = model.roi_head.bbox_head.fc_cls
        classifier.dropout = nn.Dropout(0.0)
        classifier.register_forward_pre_hook(_drop)

    def stock(self, detector: Stock) -> Stock:
        """Return the detector with its decoupling layers in the weights beside them; see `decoupled`.

        Raises:
            UsageFault: the variant ``pcb``, or a decoupling layer that cannot be undone.
        """
        if self.choice.calibrated:
            raise UsageFault(
                "The variant pcb of DeFRCN changes scores by another network and by D_l, which mmdet knows nothing of.",
                remedy="predict with cissod-bench predict, or export a run without --variant pcb",
            )
        decoupled(detector.state)
        if self.stage == BASE:  # classes that are not base are left out of the softmax
            own = ~self.known.cpu()
            detector.state["roi_head.bbox_head.fc_cls.weight"][own] = 0.0
            detector.state["roi_head.bbox_head.fc_cls.bias"][own] = NO_CHANCE
        return detector

    def stages(self) -> Sequence[Stage]:
        """Return the two stages: T / 3 on the base classes, 2 T / 3 on all."""
        first = Stage(name="base", share=1 / 3, unlabelled=self.choice.base_unlabelled)
        return first, Stage(name="tuning", share=2 / 3)

    def begin_stage(self, model: Any, context: Context) -> None:
        """Give classifier and box regressor fresh rows for the classes that the first stage did not know."""
        names, head = [self.classes[channel] for channel in self.base], model.roi_head.bbox_head
        of_classes: list[tuple[Any, int, float, list[str]]] = [(head.fc_cls, 1, CLASSIFIER_SPREAD, [BACKGROUND])]
        if not head.reg_class_agnostic:  # one regressor for all classes is kept as it is
            of_classes.append((head.fc_reg, 4, REGRESSOR_SPREAD, []))
        for layer, block, spread, background in of_classes:
            old, new = [*names, *background], [*self.classes, *background]
            kept = self.known[: len(new)].repeat_interleave(block)
            for values, deviation in ((layer.weight, spread), (layer.bias, 0.0)):
                own = values.detach()
                draws = torch.default_generator  # in the same state on all ranks
                own.copy_(grown(own[kept], old, new, block=block, spread=deviation, generator=draws))

    def enter_stage(self, model: Any, context: Context) -> None:
        """Set the shares of the gradients, the dropout and what is frozen."""
        self.stage = context.stage
        model.rpn_head.decoupling.share = RPN_SHARES[self.stage]
        model.roi_head.bbox_roi_extractor.decoupling.share = ROI_SHARES[self.stage]
        head = model.roi_head.bbox_head
        head.fc_cls.dropout.p = self.dropout if self.stage == TUNING else 0.0  # the teacher is in evaluation mode
        head.shared_fcs.requires_grad_(self.stage == BASE)

    def copies(self, context: Context) -> Copies:
        """Return the stage's copies of D_l."""
        return {0: self._copies[context.stage]}

    def _known_only(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(~self.known, float("-inf")) if self.stage == BASE else logits

    def classification_loss(
        self, logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context
    ) -> Tensor:
        """Return the cross-entropy; in stage 1 over base classes and background, RoIs of other classes left out."""
        if self.stage == BASE:
            known = self.known[labels]
            label_weights = label_weights * known
            labels = torch.where(known, labels, self.num_classes)  # any known label: it weighs nothing
        return super().classification_loss(self._known_only(logits), labels, label_weights, normaliser, context)

    def activation(self, logits: Tensor) -> Tensor:
        """Return class probabilities, shape (R, K); in stage 1 those of classes that are not base are 0."""
        return self._known_only(logits).softmax(dim=1)


METHOD = Method(
    title="DeFRCN",
    source="Sec. 4.3, Tables 1-2",
    summary="trains on the majority classes first; RPN and RoI head decoupled from the backbone; RFS",
    citation="L. Qiao, Y. Zhao, Z. Li, X. Qiu, J. Wu, C. Zhang: DeFRCN: Decoupled Faster R-CNN for Few-Shot Object "
    "Detection. ICCV 2021.",
    parts=DeFRCN,
    reported={
        "coco-split1": {"all": 24.4, "maj": 29.4, "min": 9.2},
        "coco-split2": {"all": 20.9, "maj": 30.5, "min": 11.3},
        "coco-o365": {"all": 7.9, "maj": 21.2, "min": 4.3},
    },
    variants={
        # Not in the paper: the readings it leaves open.
        "stage1-ssl": {"base_unlabelled": True},
        "kshot": {"balanced": "kshot"},
        # As in DeFRCN's release, where an ImageNet ResNet-101 lies on this machine.
        "pcb": {"calibrated": True},
    },
    departures=(
        "the second stage draws all of D_l with repeat factors (the paper replaces the methods' sampling with RFS); "
        "the original draws K = 10 images per class (variant kshot)",
        "stage 1 takes T / 3 and stage 2 takes 2 T / 3: this cut is ours, neither paper states one; the original "
        "trains 110 000 and 6 000 iterations on MS-COCO",
        "no calibration by an ImageNet classifier at test time (variant pcb)",
        "a feature pyramid instead of one map: its levels share one decoupling layer per branch, and the two shared "
        "layers of the RoI head are frozen where the original freezes res5",
        "learning rate, weight decay and milestones are the other rows', not the few-shot schedule's",
        "heads of less than 1 024 channels have a smaller dropout than .8, which disturbs their scores as much as .8 "
        "does those of 1 024 (run.json lists the value)",
        "under AdamW (photo, mini, smoke) the RoI head's share of the gradient, 0.75 and 0.01, has no effect",
    ),
)
