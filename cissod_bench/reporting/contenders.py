"""A method with one choice of settings and all its runs: what reports compare with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import departing, scored_model, shared
from cissod_bench.reporting.table_notes import differing
from cissod_bench.reporting.table_plan import is_competitor, method_place, method_title
from cissod_bench.scoring.points import AP

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


def sides_of(records: Sequence[RunRecord], methods: Mapping[str, Entry]) -> list[Side]:
    """Return the methods in the paper's order, references last; several settings of one method are numbered.

    Args:
        records: of one task at one scale, no variants, a run once.
        methods: what the catalogue lists, for titles.
    """
    together: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        together.setdefault((record.method, departing(record)), []).append(record)
    sides = []
    for method, settings in sorted(
        together, key=lambda key: (not is_competitor(methods, key[0]), *method_place(key[0]), key[1])
    ):
        same = sorted(key for key in together if key[0] == method)
        mark = str(same.index((method, settings)) + 1) if len(same) > 1 else ""
        title = method_title(methods, method) + (f" [{mark}]" if mark else "")
        sides.append(Side(method, mark, title, together[method, settings]))
    return sides
