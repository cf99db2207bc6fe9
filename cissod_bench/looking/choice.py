"""Which images are shown: never the best or the worst, but those that come first in an order that no result knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

RULE = "in the order of the sha256 of their file names"
"""How images are ordered, for captions."""


def drawn_order(rows: Iterable[int], names: Sequence[str]) -> list[int]:
    """Return rows by the sha256 of their file names: an order that is the same for all methods and on all machines."""
    return sorted(rows, key=lambda row: (hashlib.sha256(names[row].encode("utf-8", "surrogatepass")).digest(), row))


def first_of_each(wanted: Sequence[Sequence[int]], most: int) -> list[int]:
    """Return up to so many rows, one from each list in turn, none twice.

    Args:
        wanted: lists of rows, each in the order in which they are taken; the first list goes first.
        most: how many at most.
    """
    chosen: dict[int, None] = {}
    queues = [iter(rows) for rows in wanted]
    while queues and len(chosen) < most:
        for queue in list(queues):
            row = next((row for row in queue if row not in chosen), None)
            if row is None:
                queues.remove(queue)
            elif len(chosen) < most:
                chosen[row] = None
    return list(chosen)
