"""Two methods over the same training seeds: the mean of their differences and how likely it is by chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

MOST_FLIPPED = 16
"""Pairs up to which every choice of signs is tried."""

_EQUAL = 1e-9  # points; differences that vary by less do not vary


@dataclass(frozen=True)
class Paired:
    """What the differences of n pairs say.

    Attributes:
        n: pairs.
        mean: of the differences, points; None without a pair.
        std: of the sample; None below two pairs.
        p_t: two-sided p of Student's paired t test; None below two pairs or where the differences do not vary.
        p_flip: two-sided p of the exact sign-flip test; None without a pair or beyond ``MOST_FLIPPED``.
    """

    n: int
    mean: float | None
    std: float | None
    p_t: float | None
    p_flip: float | None


def paired(differences: Sequence[float]) -> Paired:
    """Return the tests of differences d_i = ours_i - other_i, points."""
    n = len(differences)
    mean = statistics.fmean(differences) if n else None
    std = statistics.stdev(differences) if n > 1 else None
    return Paired(n, mean, std, paired_t(differences), sign_flips(differences))


def paired_t(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of t = mean / (std / sqrt(n)) with n - 1 degrees of freedom (Student, 1908)."""
    n = len(differences)
    if n < 2 or (std := statistics.stdev(differences)) < _EQUAL:
        return None
    return t_two_sided(statistics.fmean(differences) / (std / math.sqrt(n)), n - 1)


def t_two_sided(t: float, freedom: int) -> float:
    """Return P(|T| >= |t|) of Student's t distribution.

    ``scipy.stats.ttest_1samp`` gives the same number; it would load all of ``scipy.stats`` for it.

    Args:
        t: finite.
        freedom: degrees of freedom, >= 1.
    """
    return 2 * float(stdtr(freedom, -abs(t)))


def sign_flips(differences: Sequence[float]) -> float | None:
    """Return the share of the 2^n choices of signs whose |sum| is at least that of the differences (Fisher, 1935).

    If the methods are alike, each difference might as well have the other sign. The observed signs and their opposites
    always count, so the result is at least 2 / 2^n: .25 with three pairs. Time and memory O(2^n).
    """
    n = len(differences)
    if not 0 < n <= MOST_FLIPPED:
        return None
    sums: NDArray[np.float64] = np.zeros(1)
    for value in differences:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= abs(sum(differences)) - _EQUAL))


def least_flip(n: int) -> float:
    """Return the smallest p that the sign-flip test can give with n pairs, n >= 1: 2^(1 - n)."""
    return 2.0 ** (1 - n)
