"""What runs did not do as the paper: every set of settings once, with the runs that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cissod_bench.records.record import FREE_SETTINGS
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import as_text, method_words


@dataclass(frozen=True)
class Departures:
    """A set of departures from the paper that can change a number.

    Attributes:
        settings: name -> [the paper's value, the value used].
        runs: what was run, in words -> its training seeds.
    """

    settings: Mapping[str, Sequence[Any]]
    runs: dict[str, list[int]] = field(default_factory=dict)


def departures(runs: Sequence[Run]) -> list[Departures]:
    """Return each set of departures once; those of ``FREE_SETTINGS`` are left out, and runs that have none."""
    sets: dict[str, Departures] = {}
    for run in runs:
        record = run.record
        changed = {name: pair for name, pair in record.departures.items() if name not in FREE_SETTINGS}
        if changed:
            same = sets.setdefault(as_text(changed), Departures(changed))
            words = f"{record.task}, {method_words(record)}, {record.preset}-{record.profile}"
            words += f"+{record.name}" if record.name else ""  # as its folder is called
            words += f", split seed {record.split_seed}" if record.split_seed else ""  # 0 is the usual one
            seeds = same.runs.setdefault(words, [])
            seeds += [record.seed] * (record.seed not in seeds)
    return list(sets.values())


def change_words(pair: Sequence[object]) -> str:
    """Return "the paper's value -> the value used"."""
    return " -> ".join(map(str, pair))
