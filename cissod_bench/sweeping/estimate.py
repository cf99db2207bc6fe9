"""How long the rest of a queue takes, by the records of what is finished."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from cissod_bench.records.record import RunRecord
from cissod_bench.sweeping.cells import Cell, Seen

_PHASES = ("train", "evaluations", "predict", "evaluate")


def seconds_of(record: RunRecord) -> float:
    """Return the seconds a finished run took without its split, 0 where its record does not say."""
    return sum(record.timings.get(phase, 0.0) for phase in _PHASES)


@dataclass(frozen=True)
class Estimate:
    """How long one worker needs for what is left.

    Attributes:
        seconds: of the cells that something is known of.
        finished: cells from which it is known.
        unknown: cells that nothing is known of: no run on their task with their preset is finished.
    """

    seconds: float
    finished: int
    unknown: int


def estimate(seen: Mapping[Cell, Seen]) -> Estimate:
    """Return how long what is left takes: a cell as long as the mean of its method's runs, else of its task's.

    Args:
        seen: every cell of a queue; one that runs or was interrupted counts by how far it is.
    """
    known: dict[tuple[str, ...], list[float]] = {}
    finished = 0
    for cell, state in seen.items():
        if state.state == "done" and state.record is not None and (seconds := seconds_of(state.record)) > 0:
            finished += 1
            known.setdefault((cell.task, cell.preset, cell.row), []).append(seconds)
            known.setdefault((cell.task, cell.preset), []).append(seconds)
    total, unknown = 0.0, 0
    for cell, state in seen.items():
        if state.state == "done" or state.final:
            continue
        runs = known.get((cell.task, cell.preset, cell.row)) or known.get((cell.task, cell.preset))
        unknown += runs is None
        total += _left(state) * sum(runs) / len(runs) if runs else 0.0
    return Estimate(total, finished, unknown)


def _left(seen: Seen) -> float:
    """Return the share of a run that is still to do, by a note such as "510/900"."""
    if seen.state in ("running", "interrupted", "queued"):
        with suppress(ValueError, ZeroDivisionError):
            done, _, whole = seen.note.partition("/")
            return max(0.0, 1 - int(done) / int(whole))
    return 1.0
