"""The formats of reports: which function writes the files of each, and the numbers as CSV and JSON know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.csv_files import csv_text
from cissod_bench.rendering.latex import render_latex
from cissod_bench.rendering.markdown import render_markdown
from cissod_bench.rendering.page import PHASES, render_html
from cissod_bench.reporting.departures import change_words
from cissod_bench.reporting.tables import Files, Report

_COPIED = (
    *("task", "method", "variant", "preset", "profile", "split_seed", "seed"),
    *("status", "split_sha256", "engine", "created"),
)  # of a record, as they are


def notes_once(reports: Sequence[Report]) -> list[Report]:
    """Return reports that are read one after another: without notes that an earlier one has."""
    seen: set[str] = set()
    read = []
    for report in reports:
        read.append(replace(report, notes=tuple(note for note in report.notes if note not in seen)))
        seen.update(report.notes)
    return read


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
        "hardware": "; ".join(f"{name} {value}" for name, value in record.hardware.items()),
        "departures": "; ".join(f"{name}: {change_words(pair)}" for name, pair in record.departures.items()),
    }


def plain_records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return a frame's lines as JSON knows them: None where a number is undefined."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in line.items()}
        for line in frame.to_dict("records")
    ]


def _html(reports: Sequence[Report], runs: Sequence[Run]) -> Files:
    return {"report.html": render_html(notes_once(reports), runs)}


RENDERERS: Mapping[str, Callable[[Sequence[Report], Sequence[Run]], Files]] = {
    "md": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
    "html": _html,
}
"""Format -> what writes its files. The terminal's table ("rich") is printed and makes none."""
