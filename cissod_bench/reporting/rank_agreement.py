"""Kendall's tau: how far two lists put the same methods in the same order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

DRAWS = 20_000
"""Draws of the training seeds behind an interval; with a tenth of them its ends depend on the draws."""

_EQUAL = 1e-9  # points
_SHARE = 0.95  # of the draws, that an interval holds


def kendall(measured: Floats, printed: Floats) -> Floats:
    """Return tau-b of every row of ``measured`` with ``printed``, shape (...,), in [-1, 1]; nan where all are equal.

    Pairs in the same order minus pairs in the other one, over the geometric mean of the pairs that either list tells
    apart (Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 1945).

    Args:
        measured: shape (..., n).
        printed: shape (n,).
    """
    first, second = np.triu_indices(len(printed), 1)
    ours, theirs = (_order(values[..., first] - values[..., second]) for values in (measured, printed))
    with np.errstate(invalid="ignore"):
        return np.asarray((ours * theirs).sum(-1) / np.sqrt(np.abs(ours).sum(-1) * np.abs(theirs).sum(-1)))


def _order(differences: Floats) -> Floats:
    """Return -1, 0 or 1: equal means may differ in their last digits, by the order in which they were summed."""
    return np.asarray(np.where(np.abs(differences) < _EQUAL, 0.0, np.sign(differences)))


def exact_p(measured: Floats, printed: Floats) -> float:
    """Return the share of all orders of the methods whose tau is at least as far from 0; nan where there is no tau.

    Args:
        measured: shape (n,), n <= 9.
        printed: shape (n,).
    """
    seen = abs(float(kendall(measured, printed)))
    orders = np.array(list(permutations(range(len(printed)))))
    taus = np.abs(kendall(measured[orders], printed))
    return math.nan if math.isnan(seen) else float((taus >= seen - 1e-9).mean())


def interval(seeds: Sequence[Sequence[float]], printed: Floats, start: int = 0) -> tuple[float, float] | None:
    """Return between what tau of the means lies in 95 % of the draws, if each method's seeds are drawn anew.

    With replacement, as many as the method has, `DRAWS` times. Three seeds have a spread that is known badly, so the
    interval is too narrow rather than too wide. None where a method has one seed or no draw a tau.

    Args:
        seeds: AP of every training seed, a list per method.
        printed: shape (n,).
        start: of the random numbers.
    """
    if min(map(len, seeds)) < 2:
        return None
    dice = np.random.default_rng(start)
    means = [np.array(aps)[dice.integers(len(aps), size=(DRAWS, len(aps)))].mean(axis=1) for aps in seeds]
    taus = kendall(np.stack(means, axis=1), printed)
    if np.isnan(taus).all():
        return None
    low, high = np.nanquantile(taus, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
    return float(low), float(high)
