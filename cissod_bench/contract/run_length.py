"""How long a run is beside the paper's, and which score stands for a threshold on probabilities in a shorter one."""

from __future__ import annotations

from collections.abc import Callable

PAPER_ITERATIONS = 180_000
"""Of Sec. 4.2; MS-COCO -> Objects365 has twice as many with the same constants."""


def share_of_paper(iterations: int) -> float:
    """Return T / 180 000, at most 1: longer runs keep the paper's constants as they are."""
    return min(iterations / PAPER_ITERATIONS, 1.0)


def score_threshold(theta: float, score_of: Callable[[float], float], iterations: int) -> float:
    """Return the threshold on scores that stands for a threshold theta on probabilities in a run of T iterations.

    share theta + (1 - share) score_of(theta) with share = min(T / 180 000, 1): in a run of the paper's length it is
    theta, as in the paper; the shorter the run, the nearer it is to score_of(theta). A theta of .5 or less is kept:
    score_of of the focal loss would raise it.

    Args:
        theta: in [0, 1].
        score_of: probability that a box is right -> the score that the method's loss makes a detector give it.
        iterations: T.
    """
    share = share_of_paper(iterations)
    if share == 1 or not 0.5 < theta < 1:
        return theta
    return share * theta + (1 - share) * score_of(theta)
