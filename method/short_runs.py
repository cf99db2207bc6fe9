"""The paper's constants are meant for 180 000 iterations; in shorter runs they keep their share of the training.

A moving average over 2000 iterations would never leave its start in a run of 700. But shortened in proportion it would
span seven, and the class weights would jump with single batches: no window falls below about 100 iterations.
"""

from __future__ import annotations

PAPER_ITERATIONS = 180_000  # Sec. 4.2; MS-COCO -> Objects365 has twice as many with the same constants
LEAST_WINDOW = 100  # iterations (or detections, for averages over detections)


def share_of_paper(iterations: int) -> float:
    """Return T / 180 000, at most 1: longer runs keep the constants as they are."""
    return min(iterations / PAPER_ITERATIONS, 1.0)


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
