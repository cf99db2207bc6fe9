"""Seeds of draws and of trainings: whole numbers in [0, 2^63), one by one or as a range such as "0-4"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from cissod_bench.errors import UsageFault

HIGHEST = 2**63 - 1
MOST = 10_000
"""Seeds that one range may hold: each is a run of minutes at least."""


def is_seed(value: Any) -> bool:
    """Return whether a value is a seed."""
    return isinstance(value, Integral) and 0 <= int(value) <= HIGHEST


def require_seed(name: str, value: Any) -> None:
    """Refuse what is no seed.

    Args:
        name: what the user calls it, such as "seed".
        value: any.

    Raises:
        UsageFault: it is no whole number, or out of its range.
    """
    if not is_seed(value):
        raise UsageFault(f"{name} is a whole number in [0, 2^63). Got {value!r}.", remedy=f"{name}=0")


def seeds_of(text: str) -> Sequence[int]:
    """Return the seeds that a text such as "3" or "0-2" names.

    Raises:
        ValueError: it names none, or too many; the message ends a sentence that begins with the text.
    """
    if not (match := re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text, re.ASCII)):
        raise ValueError("is neither a seed nor a range such as 0-2")
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= HIGHEST:
        raise ValueError("holds no seed in [0, 2^63)")
    if last - first >= MOST:
        raise ValueError(f"holds {last - first + 1:,} seeds, and a range may hold {MOST:,}")
    return range(first, last + 1)
