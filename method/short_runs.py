"""The paper's constants are meant for 180 000 iterations; in shorter runs they keep their share of the training.

A moving average over 2000 iterations would never leave its start in a run of 700. But shortened in proportion it would
span seven, and the class weights would jump with single batches: no window falls below about 100 iterations.

A threshold on scores means a probability, and under the focal loss a score is less than the probability it stands for.
A detector that has learned D_l by heart scores near 1 in any case; one that was trained for minutes does not.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq

from cissod_bench.contract.run_length import score_threshold, share_of_paper

LEAST_WINDOW = 100  # iterations (or detections, for averages over detections)


def shortened_momentum(momentum: float, iterations: int) -> float:
    """Return eta' = eta^(180 000 / T), whose window 1 / (1 - eta') is the same share of T, but at least 100.

    Args:
        momentum: eta for 180 000 iterations, in [0, 1).
        iterations: T.
    """
    return max(float(momentum ** (1 / share_of_paper(iterations))), min(momentum, 1 - 1 / LEAST_WINDOW))


def shortened_count(count: float, iterations: int) -> float:
    """Return a number of events for 180 000 iterations as the same share of T, but at least 100."""
    return max(count * share_of_paper(iterations), min(count, LEAST_WINDOW))


def raised_rate(rate: float, momentum: float, coefficient: float, channels: int, iterations: int) -> float:
    """Return the class logits' learning rate lr 180 000 / T, lowered until they respond in no less than 100 iterations.

    That keeps one step stable, too: lr coefficient 2 / K = (1 - mu) / 100 at most.

    Args:
        rate: lr for 180 000 iterations.
        momentum: mu of their SGD.
        coefficient: weight of L_align.
        channels: K.
        iterations: T; from 180 000 on the rate is not changed.
    """
    share = share_of_paper(iterations)
    if share == 1:
        return rate
    return min(rate / share, channels * (1 - momentum) / (2 * coefficient * LEAST_WINDOW))


def probability_of(score: float, gamma: float) -> float:
    """Return the probability of a class at which the focal loss is least, on the mean, with this score.

    Of two classes, with h(p) = (1 - p)^gamma / p - gamma (1 - p)^(gamma - 1) ln p, the slope of the loss:
    h(1 - s) / (h(s) + h(1 - s)) (Charoenphakdee et al., "On Focal Loss for Class-Posterior Probability Estimation",
    CVPR 2021). It is s itself where gamma is 0, and above s for s > .5 else.

    Args:
        score: s, in (0, 1).
        gamma: focusing parameter, >= 0.
    """
    own, other = _slope(score, gamma), _slope(1 - score, gamma)
    return other / (own + other)


def _slope(p: float, gamma: float) -> float:
    return float((1 - p) ** gamma / p - gamma * (1 - p) ** (gamma - 1) * math.log(p))


def focal_threshold(theta: float, gamma: float, iterations: int) -> float:
    """Return the threshold on scores that a threshold theta on probabilities becomes: .9 is .774 for gamma = 1.

    See `score_threshold` for runs in between.

    Args:
        theta: in [0, 1].
        gamma: focusing parameter of the loss that the scores were learned with, >= 0.
        iterations: T.
    """

    def score_of(probability: float) -> float:
        return float(brentq(lambda s: probability_of(s, gamma) - probability, 1e-9, 1 - 1e-9))

    return score_threshold(theta, score_of, iterations) if gamma else theta
