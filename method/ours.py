"""Ours: GbR, GbT and CrS on Soft Teacher (Sec. 3), with the rows of Tables 4 and 5 as variants.

The parts are ``gbr.py`` (Eq. 1-8, its state in ``balance.py``), ``gbt.py`` (Eq. 9) and ``crs.py`` (Eq. 10-11); the
constants, and whether they are the paper's, stand in ``profiles.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, Detections, Parts, group_means
from cissod_bench.contract.repeat_factors import images_with_class, labelled_copies

from . import gbr, gbt
from .balance import Balance, Branch
from .crs import ClassRebalancing
from .labelmatch import LabelMatch
from .profiles import Profile, Thresholds, departures, profile_for
from .short_runs import focal_threshold

Module: TypeAlias = Literal["crs", "gbt", "gbr"]
State: TypeAlias = Balance | gbt.RunningScores | LabelMatch


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What is on. ``modules`` are the check marks of Table 4; each other switch is "as the modules say" where None.

    The table leaves two readings open, which the switches allow, too: the focal loss belongs to GbR (the row "FL" has
    it alone), RFS on D_l to CrS. "GbT" includes theta^c.

    Attributes:
        modules: of "crs", "gbt", "gbr".
        loss: classification loss, "focal" or "ce". With GbT alone the gradients balanced are those of cross-entropy.
        weights: whether the loss is weighted (Eq. 8).
        thresholds: "fixed", "theta-c", "theta-p", "gbt" (their minimum) or "labelmatch".
        theta: the fixed threshold; None is the settings' (0.9).
        labelled: how D_l is drawn, "uniform" or "rfs".
        unlabelled: how D_u is drawn, "uniform" or "crs".
        pool: "on-the-fly" keeps the teacher's latest detections of training, "full-pass" lets it look at all of D_u
            before each generation.
        beta: exponent of the class weights on labelled images (Eq. 8); None is the profile's (0.5).
    """

    modules: tuple[Module, ...] = ("crs", "gbt", "gbr")
    loss: Literal["focal", "ce"] | None = None
    weights: bool | None = None
    thresholds: Thresholds | None = None
    theta: float | None = None
    labelled: Literal["uniform", "rfs"] | None = None
    unlabelled: Literal["uniform", "crs"] | None = None
    pool: Literal["on-the-fly", "full-pass"] = "on-the-fly"
    beta: float | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Switches with nothing left open.

    Attributes:
        focal: the classification loss is the focal loss, else cross-entropy.
        weighted: the loss has the weights of GbR (Eq. 8).
        thresholds: as in `Switches`.
        theta: the fixed threshold.
        rfs: D_l is drawn by repeat factors.
        crs: D_u is drawn by CrS.
        full_pass: the pool is filled by a pass over D_u before each generation, not from the training's detections.
    """

    focal: bool
    weighted: bool
    thresholds: Thresholds
    theta: float
    rfs: bool
    crs: bool
    full_pass: bool

    @property
    def needs_weights(self) -> bool:
        """Whether w is estimated at all (`Balance`): for the loss or for theta^p."""
        return self.weighted or self.thresholds in {"theta-p", "gbt"}

    @property
    def needs_scores(self) -> bool:
        """Whether the running scores of theta^c are kept (`gbt.RunningScores`)."""
        return self.thresholds in {"theta-c", "gbt"}


def resolve(switches: Switches, profile: Profile, theta: float) -> Choice:
    """Return what a run does.

    Args:
        switches: of the variant.
        profile: says what "GbT" stands for.
        theta: the settings' fixed threshold.
    """
    modules = switches.modules
    thresholds = switches.thresholds or (profile.gbt_rule if "gbt" in modules else "fixed")
    return Choice(
        focal=(switches.loss or ("focal" if "gbr" in modules else "ce")) == "focal",
        weighted="gbr" in modules if switches.weights is None else switches.weights,
        thresholds=thresholds,
        theta=theta if switches.theta is None else switches.theta,
        rfs=(switches.labelled or ("rfs" if "crs" in modules else "uniform")) == "rfs",
        crs=(switches.unlabelled or ("crs" if "crs" in modules else "uniform")) == "crs",
        full_pass=switches.pool == "full-pass",
    )


class Ours(Parts):
    """The method's parts for one run.

    In an iteration `classification_loss` weights the losses (Eq. 8) and collects the gradients (Eq. 1-2),
    `observe_detections` collects the teacher's scores (theta^c) and fills the pool (CrS), `thresholds` follows from the
    state that the iteration before has left (Eq. 9), and `after_iteration` moves the state (Eq. 3-7). A generation
    begins with `copies` (Eq. 10-11).

    Args:
        facts: of the run.
    """

    groups: Tensor
    sums: Tensor

    def __init__(self, facts: RunFacts) -> None:
        settings, channels = facts.settings, len(facts.classes) + 1
        switches = Switches(**facts.variant)
        profile = profile_for(facts.profile, facts.task.name, facts.iterations, channels)
        if switches.beta is not None:
            profile = replace(profile, gbr=replace(profile.gbr, beta=switches.beta))
        choice = resolve(switches, profile, settings.theta)
        self.gamma = profile.gbr.focal_gamma if choice.focal else 0.0
        self.iterations, self.stated_theta, self.stated_rpn = facts.iterations, choice.theta, settings.rpn_threshold
        choice = replace(choice, theta=focal_threshold(choice.theta, self.gamma, facts.iterations))
        super().__init__(len(facts.classes), choice.theta)
        self.profile, self.choice = profile, choice
        self.threshold_low = settings.initial_threshold if self.profile.gbt.bounded_below else 0.0
        self.threshold_start = self.profile.gbt.warmup * facts.iterations
        self.balance = self._balance(facts) if choice.needs_weights else None
        self.scores = gbt.RunningScores(self.num_classes, self.profile.gbt) if choice.needs_scores else None
        self.labelmatch = self._labelmatch(facts) if choice.thresholds == "labelmatch" else None
        self.labelled_copies = self._labelled_copies(facts) if choice.rfs else None
        self.rebalancing = self._rebalancing(facts) if choice.crs else None
        self.group_names = tuple(facts.groups)
        self.register_buffer("groups", group_means(facts.classes, facts.groups), persistent=False)
        # What the states collect in an iteration, one behind the other, so that ranks exchange one tensor; 0 between
        # iterations.
        self.register_buffer("sums", torch.zeros(sum(state.size for state in self._states())), persistent=False)

    def _balance(self, facts: RunFacts) -> Balance:
        return Balance(
            self.num_classes + 1,
            self.profile.gbr,
            gamma=self.gamma,
            iterations=facts.iterations,
            milestones=facts.settings.milestones,
            unsup_weight=facts.settings.unsup_weight,
        )

    def _labelmatch(self, facts: RunFacts) -> LabelMatch:
        return LabelMatch(facts.labelled_boxes, len(facts.labelled_classes), self.choice.theta, facts.iterations)

    def _labelled_copies(self, facts: RunFacts) -> Any:
        return labelled_copies(facts.labelled_classes, self.num_classes, facts.task.repeat_threshold)

    def _rebalancing(self, facts: RunFacts) -> ClassRebalancing:
        return ClassRebalancing(
            self.profile.crs,
            gamma=facts.task.crs_gamma,
            labelled_counts=images_with_class(facts.labelled_classes, self.num_classes),
            labelled=len(facts.labelled_classes),
            unlabelled=facts.num_unlabelled,
            floor=facts.settings.initial_threshold,
            iterations=facts.iterations,
        )

    def _states(self) -> list[State]:
        return [state for state in (self.balance, self.scores, self.labelmatch) if state is not None]

    def _sums_of(self, state: State, sums: Tensor) -> Tensor:
        """Return a state's piece of ``sums``, a view, shape (state.size,)."""
        states = self._states()
        return torch.split(sums, [one.size for one in states])[states.index(state)]

    def departures(self) -> dict[str, list[Any]]:
        """Return the constants that are not the paper's."""
        found = departures(self.profile)
        if self.choice.theta != self.stated_theta:
            found["theta"] = [self.stated_theta, self.choice.theta]
        if self.rpn_threshold(self.stated_rpn) != self.stated_rpn:
            found["rpn_threshold"] = [self.stated_rpn, self.rpn_threshold(self.stated_rpn)]
        return found

    def classification_loss(
        self, logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context
    ) -> Tensor:
        """Return the RoI classification loss with its class weights (Eq. 8), a scalar; collect its gradients."""
        losses = gbr.focal_loss(logits, labels, self.gamma) if self.choice.focal else _cross_entropy(logits, labels)
        if self.balance is None:
            return (label_weights * losses).sum() / normaliser
        branch = cast(Branch, context.branch)
        weights = self.balance.row_weights(labels, branch) if self.choice.weighted else None
        if context.collect:
            sums = self._sums_of(self.balance, self.sums)
            self.balance.collect(sums, branch, logits, labels, label_weights, normaliser, weights)
        if weights is not None:
            label_weights = label_weights * weights / self.balance.mean(branch)
        return (label_weights * losses).sum() / normaliser

    def observe_detections(self, detections: Sequence[Detections], context: Context) -> None:
        """Note the teacher's scores and, for CrS, its confident detections."""
        for state in (self.scores, self.labelmatch):
            if state is not None:
                state.collect(self._sums_of(state, self.sums), detections)
        if self.rebalancing is not None and not self.choice.full_pass:
            self.rebalancing.observe(detections, context.iteration)

    def thresholds(self, context: Context) -> Tensor:
        """Return theta, shape (n,): min(theta^p, theta^c) (below Eq. 9) within [low, theta], theta during the warm-up.

        That is the choice "gbt"; "theta-p" and "theta-c" have one of the two, "labelmatch" its own without the upper
        bound, "fixed" has theta always. low is the initial threshold, in profile "paper" 0.
        """
        if self.choice.thresholds == "fixed" or context.iteration < self.threshold_start:
            return self.theta_fixed
        if self.labelmatch is not None:
            return self.labelmatch.theta.clamp(min=self.threshold_low)
        theta, candidates = self.choice.theta, []
        if self.balance is not None and self.choice.thresholds in {"theta-p", "gbt"}:
            candidates.append(gbt.weight_thresholds(self.balance.weights[:-1], theta))
        if self.scores is not None:
            candidates.append(gbt.score_thresholds(self.scores.scores, theta))
        return gbt.final_thresholds(theta, self.threshold_low, *candidates)

    def rpn_threshold(self, threshold: float) -> float:
        """Return the score of the focal loss that stands for the RPN's threshold; see `focal_threshold`."""
        return focal_threshold(threshold, self.gamma, self.iterations)

    def copies(self, context: Context) -> Copies | None:
        """Return RFS's copies of D_l and, from generation 1 on, CrS's of D_u."""
        copies: dict[int, Any] = {}
        if self.labelled_copies is not None:
            copies[0] = self.labelled_copies
        if self.rebalancing is not None and context.generation > 0:
            if self.choice.full_pass:
                assert context.detect_unlabelled is not None
                for one in context.detect_unlabelled():
                    self.rebalancing.observe([one], context.iteration)
            self.rebalancing.share()
            theta = self.thresholds(context).double().cpu().numpy()
            since = (context.generation - 1) * context.iterations // context.generations
            copies[1] = self.rebalancing.copies(theta, context.generation, context.generations, since)
        return copies or None

    @torch.no_grad()
    def after_iteration(self, context: Context) -> None:
        """Sum what the ranks collected in one exchange, move all states by it, and log them."""
        if len(self.sums):
            sums = context.sum_over_ranks(self.sums)
            # A loss that is not finite is not learned from; nothing of it may stay in the averages either.
            # Sums that are 0 move no state; whether these are is not asked of a GPU.
            sums.masked_fill_(~torch.isfinite(sums.sum()), 0.0)
            for state in self._states():
                state.update(self._sums_of(state, sums), context.iteration)
            self.sums.zero_()
        self._log(context)

    def _log(self, context: Context) -> None:
        """Log weights and thresholds per group, the pool's coverage and the copies."""
        logs = context.logs
        if self.balance is not None:
            weights = self.balance.weights
            logs.update(w_min=weights[:-1].min(), w_max=weights[:-1].max(), w_background=weights[-1])
            logs.update(self._by_group("w_mean", weights[:-1]))
        if self.choice.weighted and self.balance is not None:
            logs.update(row_weight_sup=self.balance.mean("sup"), row_weight_unsup=self.balance.mean("unsup_cls"))
        logs.update(self._by_group("theta_mean", self.thresholds(context)))
        if self.rebalancing is not None:
            logs.update(self.rebalancing.numbers)

    def statistics(self, context: Context) -> dict[str, Tensor | float]:
        """Return the class weights and how many images of D_u the pool holds."""
        numbers: dict[str, Tensor | float] = {}
        if self.balance is not None:
            numbers["w"] = self.balance.weights[:-1]
        if self.rebalancing is not None:
            numbers |= self.rebalancing.statistics()
        return numbers

    def _by_group(self, title: str, values: Tensor) -> dict[str, Tensor]:
        return {f"{title}_{name}": mean for name, mean in zip(self.group_names, self.groups @ values, strict=True)}

    def before_save_checkpoint(self, state: dict[str, Any]) -> None:
        """Add the pool."""
        if self.rebalancing is not None:
            state["rebalancing"] = self.rebalancing.state()

    def after_load_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Take the pool back."""
        if self.rebalancing is not None:
            self.rebalancing.load(state["rebalancing"])


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


METHOD = Method(
    title="Ours",
    source="Sec. 3, Tables 1-5",
    summary="weights (GbR), thresholds (GbT) and copies of images (CrS) per class; RFS",
    citation="J. Li, X. Lin, W. Zhang, X. Tan, Y. Li, J. Han, E. Ding, J. Wang, G. Li: Gradient-based Sampling for "
    "Class Imbalanced Semi-supervised Object Detection. ICCV 2023.",
    parts=Ours,
    reported={
        "coco-split1": {"all": 26.5, "maj": 30.7, "min": 13.9},
        "coco-split2": {"all": 23.8, "maj": 32.4, "min": 15.1},
        "coco-o365": {"all": 9.2, "maj": 23.7, "min": 5.2},
        "lvis": {"all": 8.9, "f": 21.7, "c": 12.3, "r": 4.2},
    },
    variants={
        # Table 4, its first eight rows; the ninth is the method as it stands.
        "baseline": {"modules": ()},
        "fl": {"modules": (), "loss": "focal"},
        "crs": {"modules": ("crs",)},
        "gbt": {"modules": ("gbt",)},
        "gbr": {"modules": ("gbr",)},
        "gbr+gbt": {"modules": ("gbt", "gbr")},
        "crs+gbr": {"modules": ("crs", "gbr")},
        "crs+gbt": {"modules": ("crs", "gbt")},
        # Table 5: CrS + GbR with other thresholds. Its 0.9 is Table 4's crs+gbr, its GbT the method as it stands.
        "theta-0.5": {"thresholds": "fixed", "theta": 0.5},
        "theta-0.9": {"thresholds": "fixed", "theta": 0.9},
        "theta-c": {"thresholds": "theta-c"},
        "theta-p": {"thresholds": "theta-p"},
        "labelmatch": {"thresholds": "labelmatch"},
        # Not in the paper: pseudo labels of all of D_u before each generation; the same weights on D_l as on D_u.
        "full-pass": {"pool": "full-pass"},
        "beta-1": {"beta": 1.0},
    },
    reported_variants={
        "baseline": {"coco-split1": {"all": 23.6, "maj": 31.0, "min": 1.5}},
        "fl": {"coco-split1": {"all": 23.8, "maj": 30.5, "min": 3.5}},
        "crs": {"coco-split1": {"all": 24.6, "maj": 30.7, "min": 6.6}},
        "gbt": {"coco-split1": {"all": 24.8, "maj": 31.2, "min": 5.7}},
        "gbr": {"coco-split1": {"all": 25.2, "maj": 31.0, "min": 7.9}},
        "gbr+gbt": {"coco-split1": {"all": 25.8, "maj": 30.9, "min": 10.5}},
        "crs+gbr": {"coco-split1": {"all": 25.8, "maj": 30.6, "min": 11.4}},
        "crs+gbt": {"coco-split1": {"all": 25.6, "maj": 30.8, "min": 10.3}},
        "theta-0.5": {"coco-split1": {"all": 25.6, "maj": 30.0, "min": 12.6}},
        "theta-0.9": {"coco-split1": {"all": 25.8, "maj": 30.6, "min": 11.4}},
        "theta-c": {"coco-split1": {"all": 25.9, "maj": 30.8, "min": 11.9}},
        "theta-p": {"coco-split1": {"all": 26.4, "maj": 30.6, "min": 13.8}},
        "labelmatch": {"coco-split1": {"all": 25.9, "maj": 30.8, "min": 12.1}},
    },
    departures=(
        "constants that are not the paper's are in run.json, those of every profile in method/profiles.py",
        "t of RFS and gamma of Eq. 10, made for 80 classes and more, also on tasks with few: there a class is in more "
        "of the images, S_c is smaller, and CrS hardly repeats an image of D_u",
        "warm-ups of GbR and GbT count from the first iteration, also where unlabelled images wait (photo, mini: 40 % "
        "of T) and they are over before the first of these",
        "in short runs with the focal loss theta and the RPN's threshold are the scores that stand for their "
        "probabilities",
    ),
)
