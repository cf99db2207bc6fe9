"""EQLv2 (Tan et al., CVPR 2021) on Soft Teacher: n + 1 sigmoid classifiers, weighted by the gradients each has seen.

With one-hot targets y over K = n + 1 channels, the last one background, and e_rj = |sigmoid(x_rj) - y_rj|:

    pos_j = sum_r v_r W_rj e_rj y_rj,  neg_j = sum_r v_r W_rj e_rj (1 - y_rj)      summed over the whole training
    g_j = pos_j / (neg_j + 1e-10), 100 until there are gradients
    f(g) = 1 / (1 + exp(-gamma (g - mu)))
    W_rj = y_rj (1 + alpha (1 - f(g_j))) + (1 - y_rj) f(g_j) for j < n, 1 for the background
    L = (1 / Z) sum_r v_r sum_j W_rj BCE(x_rj, y_rj)
    score_j = sigmoid(x_j) (1 - sigmoid(x_n)), P(background) = sigmoid(x_n)

The background channel is an inverted objectness: scores and pseudo labels go through it, not through a softmax. D_l is
drawn as RFS draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, Parts, group_means
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.contract.run_length import score_threshold
from cissod_bench.contract.stock import Stock

# Tan et al., Sec. 4.2, for LVIS, and in the release for Open Images; no others are published for MS-COCO.
GAMMA = 12.0
MU = 0.8
ALPHA = 4.0
# The released code: all weights begin at 1, and a ratio is never divided by 0.
INITIAL_RATIO = 100.0
EPSILON = 1e-10


def gate(ratio: Tensor, gamma: float = GAMMA, mu: float = MU) -> Tensor:
    """Return f(g) = 1 / (1 + exp(-gamma (g - mu))) in [0, 1], of the shape of ``ratio``.

    Args:
        ratio: g >= 0, positive over negative gradient.
        gamma: steepness.
        mu: where f is 1/2.
    """
    return torch.sigmoid(gamma * (ratio - mu))


def gradient_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """Return g = pos / (neg + 1e-10), shape (n,); 100 for a class that has no gradient at all yet.

    Args:
        positive: gradient summed over the RoIs of the class, >= 0, shape (n,).
        negative: over all other RoIs, >= 0, shape (n,).
    """
    ratio = positive / (negative + EPSILON)
    return torch.where(positive + negative > 0, ratio, torch.full_like(ratio, INITIAL_RATIO))


def class_weights(ratio: Tensor, alpha: float = ALPHA) -> tuple[Tensor, Tensor]:
    """Return the weights of positive and of negative targets, each (K,): 1 + alpha (1 - f) in [1, 5] and f in [0, 1].

    Args:
        ratio: g, shape (n,).
        alpha: most that a positive target weighs more than 1.

    The background, the last channel, keeps 1 and 1.
    """
    f, one = gate(ratio), ratio.new_ones(1)
    return torch.cat([1 + alpha * (1 - f), one]), torch.cat([f, one])


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """Return y, 1 at each row's label and 0 elsewhere, shape and type of ``logits`` (R, K)."""
    return torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)


def target_weights(targets: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return W = pos_w y + neg_w (1 - y), shape (R, K).

    Args:
        targets: y, shape (R, K).
        positive: weights of positive targets, shape (K,).
        negative: weights of negative targets, shape (K,).
    """
    return positive.to(targets) * targets + negative.to(targets) * (1 - targets)


def weighted_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, label_weights: Tensor, normaliser: Tensor
) -> Tensor:
    """Return L = (1 / Z) sum_r v_r sum_j W_rj BCE(x_rj, y_rj), a scalar: a sum over classes, a mean over RoIs.

    Args:
        logits: x, shape (R, K).
        targets: y, shape (R, K).
        weights: W, shape (R, K), without gradient.
        label_weights: v in [0, 1], shape (R,).
        normaliser: Z > 0, a scalar.
    """
    weights = weights * label_weights[:, None].to(weights)
    return F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="sum") / normaliser


def class_gradients(logits: Tensor, targets: Tensor, weights: Tensor, label_weights: Tensor) -> Tensor:
    """Return the sizes of the gradients on the foreground's logits by target, float64, shape (2, n).

    Row 0 is sum_r v_r W_rj e_rj y_rj, row 1 the same with 1 - y_rj; e = |sigmoid(x) - y| is |dBCE/dx|.

    Args:
        logits: x, shape (R, K).
        targets: y, shape (R, K).
        weights: W, shape (R, K).
        label_weights: v, shape (R,).
    """
    sizes = (logits.sigmoid() - targets).abs() * weights * label_weights[:, None].to(weights)
    both = torch.stack([(sizes * own).sum(dim=0, dtype=torch.float64) for own in (targets, 1 - targets)])
    return both[:, :-1]


def scores(logits: Tensor, *, objectness: bool = True) -> Tensor:
    """Return sigmoid(x_j) (1 - sigmoid(x_n)) and, last, P(background) = sigmoid(x_n), in [0, 1], shape (R, K).

    Rows do not sum to 1.

    Args:
        logits: x, shape (R, K).
        objectness: whether there is the second factor.
    """
    probabilities = logits.sigmoid()
    background = probabilities[:, -1:]
    if not objectness:
        return probabilities
    return torch.cat([probabilities[:, :-1] * (1 - background), background], dim=1)


def product_threshold(theta: float, iterations: int) -> float:
    """Return the threshold on scores that a threshold theta on probabilities becomes in a short run: .9 is .81.

    A RoI that surely shows the class or no object has score P^2, for both sigmoids stand for P. See `score_threshold`
    for runs in between.

    Args:
        theta: in [0, 1].
        iterations: T.
    """
    return score_threshold(theta, lambda probability: probability**2, iterations)


def prior_bias(prior: float) -> float:
    """Return the bias with which a sigmoid gives the probability ``prior`` in (0, 1): -ln((1 - prior) / prior)."""
    return -math.log((1 - prior) / prior)


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What the literature leaves open.

    Attributes:
        weighted_gradients: whether v enters the gradients that are summed; None: only the profile "official", the code
            of which knows no weights of rows, leaves it out.
        prior: probability that the foreground classifiers give at first; None is bias 0, as released: 1/2, so that the
            first loss is K ln 2.
        objectness: whether scores have the factor 1 - P(background): a switch of the released code, on there, too.
    """

    weighted_gradients: bool | None = None
    prior: float | None = None
    objectness: bool = True


class EqualisationLoss(Parts):
    """EQLv2's parts for one run.

    Args:
        facts: of the run.

    Buffers: ``gradients``, the positive and the negative ones summed over training and ranks, float64 (2, n); ``sums``,
    those of this iteration and rank, empty between iterations.
    """

    gradients: Tensor
    sums: Tensor
    groups: Tensor

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(len(facts.classes), product_threshold(facts.settings.theta, facts.iterations))
        self.iterations, self.stated = facts.iterations, (facts.settings.theta, facts.settings.rpn_threshold)
        switches = Switches(**facts.variant)
        own = switches.weighted_gradients
        self.weighted_gradients = facts.profile != "official" if own is None else own
        self.prior, self.objectness = switches.prior, switches.objectness
        self.register_buffer("gradients", torch.zeros(2, self.num_classes, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros_like(self.gradients), persistent=False)
        self.group_names = tuple(facts.groups)
        self.register_buffer("groups", group_means(facts.classes, facts.groups).double(), persistent=False)
        self._copies = labelled_copies(facts.labelled_classes, self.num_classes, facts.task.repeat_threshold)

    @property
    def ratio(self) -> Tensor:
        """g, float64, shape (n,)."""
        return gradient_ratio(*self.gradients)

    def change_model(self, model: nn.Module) -> None:
        """Let the foreground classifiers begin at the prior probability, if there is one."""
        if self.prior is not None:
            classifier: Any = model.get_submodule("roi_head.bbox_head.fc_cls")
            nn.init.constant_(classifier.bias[:-1], prior_bias(self.prior))

    def departures(self) -> dict[str, list[Any]]:
        """Return the first bias, where it is not the released one, and thresholds that stand for probabilities."""
        found: dict[str, list[Any]] = {}
        for name, stated in zip(("theta", "rpn_threshold"), self.stated, strict=True):
            if self.rpn_threshold(stated) != stated:
                found[name] = [stated, self.rpn_threshold(stated)]
        if self.prior is not None:
            found["eqlv2.initial_bias"] = [0.0, prior_bias(self.prior)]
        return found

    def classification_loss(
        self, logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context
    ) -> Tensor:
        """Return the re-weighted binary cross-entropy, a scalar; collect its gradients, without lambda_u."""
        targets = one_hot(labels, logits.detach())
        weights = target_weights(targets, *class_weights(self.ratio))
        if context.collect:
            counted = label_weights if self.weighted_gradients else torch.ones_like(label_weights)
            self.sums += class_gradients(logits.detach(), targets, weights, counted)
        return weighted_loss(logits, targets, weights, label_weights, normaliser)

    def rpn_threshold(self, threshold: float) -> float:
        """Return the score that stands for the RPN's threshold; see `product_threshold`."""
        return product_threshold(threshold, self.iterations)

    def activation(self, logits: Tensor) -> Tensor:
        """Return the scores of inference and of pseudo labels, shape (R, K)."""
        return scores(logits, objectness=self.objectness)

    def stock(self, detector: Stock) -> Stock:
        """Return the detector with a plugin that gives these scores; mmdet's own EQLV2Loss leaves them a softmax."""
        own = {} if self.objectness else {"objectness": False}
        detector.box_head["loss_cls"] = {"type": "SigmoidScores", "num_classes": self.num_classes, **own}
        detector.plugins.append("sigmoid_scores")
        return detector

    def copies(self, context: Context) -> Copies:
        """Return RFS's copies of D_l."""
        return {0: self._copies}

    @torch.no_grad()
    def after_iteration(self, context: Context) -> None:
        """Add the gradients of all ranks to the sums and log the weights per group."""
        sums = context.sum_over_ranks(self.sums)
        # A loss that is not finite is not learned from; its gradients would stay in the sums for ever.
        self.gradients += torch.where(torch.isfinite(sums.sum()), sums, torch.zeros_like(sums))
        self.sums.zero_()
        positive, negative = class_weights(self.ratio)
        for title, weights in (("positive_weight", positive), ("negative_weight", negative)):
            for name, mean in zip(self.group_names, self.groups @ weights[:-1].double(), strict=True):
                context.logs[f"{title}_{name}"] = mean


METHOD = Method(
    title="EQLv2",
    source="Sec. 4.3, Tables 1-3",
    summary="a sigmoid per class, whose loss is weighted by the gradients it has seen; RFS",
    citation="J. Tan, X. Lu, G. Zhang, C. Yin, Q. Li: Equalization Loss v2: A New Gradient Balance Approach for "
    "Long-tailed Object Detection. CVPR 2021.",
    parts=EqualisationLoss,
    reported={
        "coco-split1": {"all": 22.8, "maj": 29.1, "min": 6.5},
        "coco-split2": {"all": 20.2, "maj": 31.4, "min": 9.1},
        "coco-o365": {"all": 7.4, "maj": 20.3, "min": 3.9},
        "lvis": {"all": 8.1, "f": 20.2, "c": 11.8, "r": 3.5},
    },
    variants={
        # Not in the paper: gradients as the released code sums them; classifiers that begin at a probability of 0.01;
        # scores without the factor 1 - P(background).
        "unweighted-gradients": {"weighted_gradients": False},
        "prior-bias": {"prior": 0.01},
        "class-scores": {"objectness": False},
    },
    departures=(
        "gamma 12, mu 0.8 and alpha 4 are published for LVIS and Open Images and used on every task",
        "label weights of unlabelled images enter the collected gradients; the original knows none (variant "
        "unweighted-gradients)",
        "the weights of the loss change once per iteration, by the sum over branches and ranks; the original's after "
        "every call of the loss",
        "pseudo labels need score > 0.9 as in Soft Teacher, which asks for .949 of each of two sigmoids; in short runs "
        "the score that stands for that probability, for the RPN, too (0.81 in 1 000 iterations; run.json lists it)",
        "gradients are summed from the first iteration on, where every sigmoid is 1/2, as in the original: it alone is "
        "a tenth of what a minority class sums up in 1 000 iterations, by estimate below a hundredth in 180 000",
    ),
)
