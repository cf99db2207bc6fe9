"""Ids of records and the rows they stand in: which stands twice, and where each of many ids is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Rows: TypeAlias = npt.NDArray[np.signedinteger[Any]]

_TABLE_PER_ID = 16
_TABLE_AT_LEAST = 1 << 16


class Twice(NamedTuple):
    """The smallest id that stands twice: its first two rows, and how many records in all repeat an id."""

    id: int
    first: int
    second: int
    repeats: int


def id_twice(ids: Ints) -> Twice | None:
    """Return what is known of ids that stand twice, int64 (N,) in any order; None where every id stands once."""
    if (np.diff(np.sort(ids)) > 0).all():
        return None
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    first, second = (int(row) for row in order[repeated[0] : repeated[0] + 2])
    return Twice(int(ids[first]), first, second, len(repeated))


def row_finder(ids: Ints) -> Callable[[Ints], Rows]:
    """Return a function from ids to their rows in ``ids``, -1 where there is none.

    Ids are mostly dense, and a table is ten times as fast as a search; ids far apart would make it too long.
    """
    low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
    if high - low < _TABLE_PER_ID * len(ids) + _TABLE_AT_LEAST:
        table = np.full(high - low + 2, -1, np.int32)  # the last place is that of all ids beyond
        table[ids - low] = np.arange(len(ids))
        return lambda wanted: table[np.where((wanted < low) | (wanted > high), high + 1, wanted) - low]
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]

    def search(wanted: Ints) -> Ints:
        places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
        return np.where(ascending[places] == wanted, order[places], -1)

    return search
