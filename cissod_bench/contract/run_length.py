"""How long a run is beside the paper's, and what a threshold on probabilities is in a shorter one."""

from __future__ import annotations

from collections.abc import Callable

PAPER_ITERATIONS = 180_000
"""Of Sec. 4.2; MS-COCO -> Objects365 has twice as many with the same constants."""


def share_of_paper(iterations: int) -> float:
    """Return T / 180 000, at most 1: longer runs keep the paper's constants as they are."""
    return min(iterations / PAPER_ITERATIONS, 1.0)


def score_threshold(theta: float, score_of: Callable[[float], float], iterations: int) -> float:
    """Return the threshold on scores that a threshold theta on probabilities becomes.

    In a run of T >= 180 000 it is theta, as in the paper; a run of no length would have the score that means theta;
    in between it moves in proportion to T. A threshold of .5 or less is kept: it would rise, which no detector needs.

    Args:
        theta: in [0, 1].
        score_of: the score that stands for a probability, in a detector that learned what its loss asks for.
        iterations: T.
    """
    share = share_of_paper(iterations)
    if share == 1 or not 0.5 < theta < 1:
        return theta
    return share * theta + (1 - share) * score_of(theta)
