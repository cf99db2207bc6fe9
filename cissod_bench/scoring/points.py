"""Average precision in points, and its mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

AP: TypeAlias = float | None
"""Average precision in points, 0-100; None where a class or group has no ground-truth box (never -1, never 0)."""


def mean_ap(values: Iterable[AP]) -> AP:
    """Return the mean of the values that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
