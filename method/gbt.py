"""GbT: gradient-based thresholding (Sec. 3.3, Eq. 9) and the thresholds it is compared with in Table 5.

Thresholds act on the pseudo labels of the RoI classifier and on CrS: a pseudo label of class i counts if its score is
above theta_i. The RPN and the box branch have their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cissod_bench import distributed
from cissod_bench.contract.parts import Detections

SCORE_FLOOR = 0.05
"""Detections above it enter the running scores (released code), whatever floor the task scores with."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Numbers of GbT; ``profiles.py`` holds the values and where each comes from.

    Attributes:
        warmup: share of T during which all thresholds are theta.
        bounded_below: thresholds stay at or above Soft Teacher's initial threshold.
        score_momentum: eta_p of the running score, per detection.
        score_warmup: detections per class over which its running score is the plain mean.
        summed_start: during that warm-up add score / score_warmup instead (the released code's way).
        per_rank: count the detections of an average rank instead of those of all (the released code's way, where each
            rank keeps running scores of its own): more GPUs do not move the scores faster.
    """

    warmup: float
    bounded_below: bool
    score_momentum: float
    score_warmup: float
    summed_start: bool
    per_rank: bool


def weight_thresholds(weights: Tensor, theta: float) -> Tensor:
    """Return theta^p_i = min(theta, theta / w_i) (Eq. 9), shape (n,): lower for classes that need a larger weight.

    Args:
        weights: w > 0 of the foreground classes, not clamped, shape (n,).
        theta: the fixed threshold.
    """
    return (theta / weights).clamp(max=theta)


def score_thresholds(scores: Tensor, theta: float) -> Tensor:
    """Return theta^c_i = theta s_i / mean(s), shape (n,): lower for classes the teacher is less sure of.

    The paper takes theta^c from Nie et al. (AAAI 2023), whose formula could not be checked; this is the form of the
    released code. It may exceed theta. Without any score all are theta.

    Args:
        scores: s, the running mean score per class, >= 0, shape (n,).
        theta: the fixed threshold.
    """
    mean = scores.mean()
    return torch.where(mean > 0, theta * scores / mean.clamp(min=torch.finfo(scores.dtype).tiny), theta)


def final_thresholds(theta: float, low: float, *candidates: Tensor) -> Tensor:
    """Return theta_i = the least candidate, kept within [low, theta], shape (n,).

    Args:
        theta: the fixed threshold.
        low: Soft Teacher's initial threshold: detections below it never become pseudo labels.
        candidates: theta^p, theta^c or both (both is the paper's theta_i, below Eq. 9), each of shape (n,).
    """
    return torch.stack(candidates).amin(dim=0).clamp(min=low, max=theta)


def running_scores(
    scores: Tensor,
    counts: Tensor,
    number: Tensor,
    total: Tensor,
    *,
    momentum: float,
    warmup: float,
    summed_start: bool = False,
) -> Tensor:
    """Return the running mean score of every class after a batch of detections, shape (n,).

    The plain mean until a class has had ``warmup`` detections, then s <- eta^k s + (1 - eta^k) q / k: to first order
    in 1 - eta what one update per detection gives, but independent of their order.

    Args:
        scores: s before the batch, shape (n,).
        counts: detections per class before the batch, shape (n,).
        number: k, detections in the batch, shape (n,).
        total: q, the sum of their scores, shape (n,).
        momentum: eta_p.
        warmup: detections of the plain mean.
        summed_start: add q / warmup instead of taking the plain mean, so that rarely detected classes keep a tiny s.
    """
    kept = momentum**number
    averaged = kept * scores + (1 - kept) * total / number.clamp(min=1)
    plain = (scores * counts + total) / (counts + number).clamp(min=1)
    start = scores + total / warmup if summed_start else plain
    return torch.where(number > 0, torch.where(counts < warmup, start, averaged), scores)


def scores_and_labels(detections: Sequence[Detections]) -> tuple[Tensor, Tensor, Tensor]:
    """Return score and label of all detections and whether each is above `SCORE_FLOOR` and counts, shape (M,) each.

    The others are not cut off: a GPU would be waited for.
    """
    scores, labels = (torch.cat([getattr(one, name) for one in detections]) for name in ("scores", "labels"))
    return scores, labels, scores > SCORE_FLOOR


class RunningScores(nn.Module):
    """The teacher's mean score per class, from all its detections.

    Args:
        num_classes: n.
        constants: of the run's profile.

    Buffers: ``scores`` s (n,), ``counts`` (n,), detections of all ranks.
    """

    scores: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, constants: Constants) -> None:
        super().__init__()
        self.constants, self.size = constants, 2 * num_classes
        self.register_buffer("scores", torch.zeros(num_classes))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def collect(self, sums: Tensor, detections: Sequence[Detections]) -> None:
        """Add the teacher's detections per class, and their scores, to this iteration's sums in place, shape (2 n,)."""
        scores, labels, counted = scores_and_labels(detections)
        number, total = sums.view(2, -1)
        number.index_add_(0, labels, counted.to(number.dtype))
        total.index_add_(0, labels, (scores * counted).to(total.dtype))

    def update(self, sums: Tensor, iteration: int) -> None:
        """Move s by an iteration's sums over all ranks, shape (2 n,).

        ``iteration`` is not used: all states of `Ours` are updated by one call.
        """
        constants = self.constants
        number, total = sums.view(2, -1)
        counts, new = self.counts, number.long()
        ranks = distributed.world_size() if constants.per_rank else 1
        if ranks > 1:
            number, total, counts = number / ranks, total / ranks, counts / ranks
        self.scores = running_scores(
            self.scores,
            counts,
            number,
            total,
            momentum=constants.score_momentum,
            warmup=constants.score_warmup,
            summed_start=constants.summed_start,
        )
        self.counts += new
