"""A method with one choice of settings and all its runs: what reports compare with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import comparable_settings, free_numbers, repetition_key, scored_model
from cissod_bench.reporting.table_notes import differing
from cissod_bench.reporting.table_plan import is_competitor, method_place, method_title
from cissod_bench.scoring.points import AP

OURS = "ours"

ApByRun = Mapping[tuple[str, int], Mapping[str, AP]]
"""(hash of the split, training seed) -> column -> points."""


@dataclass(frozen=True)
class Side:
    """One method with one choice of settings.

    Attributes:
        method: its name.
        mark: tells its choices of settings apart.
        title: as printed.
        runs: of it, one at least; all have the same settings, and no two the same split and training seed.
    """

    method: str
    mark: str
    title: str
    runs: Sequence[Run]

    @property
    def record(self) -> RunRecord:
        """The record of its first run, for all that its runs have in common."""
        return self.runs[0].record

    def aps(self) -> ApByRun:
        """Return the AP of every run."""
        records = [run.record for run in self.runs]
        return {(record.split_sha256, record.seed): record.ap[scored_model(record)] for record in records}

    def apart(self, other: Side) -> AbstractSet[str]:
        """Return the settings that keep both from being compared: those in which they differ, their constants aside."""
        return differing([comparable_settings(self.record), comparable_settings(other.record)])


def sides_of(runs: Sequence[Run], methods: Mapping[str, Entry]) -> list[Side]:
    """Return the methods in the paper's order, references last; several settings of one method are named or numbered.

    Args:
        runs: of one task at one scale, no variants, a run once.
        methods: what the catalogue lists, for titles.
    """
    together: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        together.setdefault((run.record.method, run.record.name, repetition_key(run.record)), []).append(run)
    sides = []
    for key in sorted(together, key=lambda key: (not is_competitor(methods, key[0]), *method_place(key[0]), *key[1:])):
        method, name, _ = key
        same = sorted(other for other in together if other[:2] == key[:2])
        numbers = dict(zip(same, free_numbers([other[1] for other in together if other[0] == method]), strict=False))
        mark = " ".join(filter(None, (name, numbers[key] if len(same) > 1 else "")))
        title = method_title(methods, method) + (f" [{mark}]" if mark else "")
        sides.append(Side(method, mark, title, together[key]))
    return sides
