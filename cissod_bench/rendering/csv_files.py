"""Numbers as CSV files that a spreadsheet can open: text stays text, whatever it begins with, and numbers numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from cissod_bench.records.record import DEFAULT_OPERATORS, PHASES, RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.departures import change_words
from cissod_bench.reporting.tables import Files, Report

# A spreadsheet runs text that starts with one of these; some take the wide forms for the same.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COPIED = (
    *("task", "method", "variant", "preset", "profile", "split_seed", "seed"),
    *("status", "split_sha256", "engine", "created"),
)  # of a record, as they are


def render_csv(reports: Sequence[Report], runs: Sequence[Run]) -> Files:
    """Return the tidy frames of every report, one line per number, and one file of the runs."""
    files = {f"{stem}.csv": csv_text(frame) for report in reports for stem, frame in report.frames.items()}
    return {**files, "runs.csv": csv_text(runs_frame(runs))}


def runs_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one line per run: what it was, its state, its AP of all classes and what it was made with."""
    return pd.DataFrame([{"folder": str(run.folder), **_facts(run.record)} for run in runs])


def _facts(record: RunRecord) -> dict[str, object]:
    return {
        **{name: getattr(record, name) for name in _COPIED},
        "teacher": record.ap.get("teacher", {}).get("all"),
        "student": record.ap.get("student", {}).get("all"),
        "seconds": sum(seconds for phase, seconds in record.timings.items() if phase in PHASES),
        "versions": "; ".join(f"{name} {version}" for name, version in record.versions.items()),
        "hardware": "; ".join(
            f"{name} {value}"
            for name, value in record.hardware.items()
            if (name, value) != ("operators", DEFAULT_OPERATORS)
        ),
        "departures": "; ".join(f"{name}: {change_words(pair)}" for name, pair in record.departures.items()),
    }


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with a line of heads."""
    safe = frame.map(csv_cell).set_axis([csv_cell(str(name)) for name in frame.columns], axis="columns")
    return str(safe.to_csv(index=False, lineterminator="\n"))


def csv_cell(value: object) -> object:
    """Return a value no spreadsheet takes for a formula: such text gets an apostrophe, and numbers stay numbers."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
