"""A method with one choice of settings and all its runs: what reports compare with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cissod_bench.averaging import scored_model, shared
from cissod_bench.spec import AP, RunRecord
from cissod_bench.table_notes import differing

OURS = "ours"

Scores = Mapping[tuple[str, int], Mapping[str, AP]]
"""(hash of the split, training seed) -> column -> points."""


@dataclass(frozen=True)
class Side:
    """One method with one choice of settings.

    Attributes:
        method: its name.
        mark: tells its choices of settings apart.
        title: as printed.
        records: its runs, one at least; all have the same settings, and no two the same split and training seed.
    """

    method: str
    mark: str
    title: str
    records: Sequence[RunRecord]

    def scores(self) -> Scores:
        """Return the AP of every run."""
        return {(one.split_sha256, one.seed): one.ap[scored_model(one)] for one in self.records}

    def apart(self, other: Side) -> AbstractSet[str]:
        """Return the settings that keep both from being compared: those in which they differ, their constants aside."""
        return differing([shared(self.records[0]), shared(other.records[0])])
