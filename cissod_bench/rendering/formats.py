"""The formats of reports: which function writes the files of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.csv_files import render_csv
from cissod_bench.rendering.latex import render_latex
from cissod_bench.rendering.markdown import render_markdown
from cissod_bench.rendering.page import render_html
from cissod_bench.reporting.tables import Files, Report, draw_figures

DRAWN = ("png", "svg")
"""Formats of figures for print."""


def notes_once(reports: Sequence[Report]) -> list[Report]:
    """Return reports that are read one after another: without notes that an earlier one has."""
    seen: set[str] = set()
    read = []
    for report in reports:
        read.append(replace(report, notes=tuple(note for note in report.notes if note not in seen)))
        seen.update(report.notes)
    return read


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


def render_files(reports: Sequence[Report], runs: Sequence[Run], formats: Collection[str]) -> dict[str, bytes]:
    """Return the files of some formats, name -> content.

    Args:
        reports: what they show.
        runs: that the reports were made of.
        formats: of `RENDERERS` and `DRAWN`; others make no file.
    """
    files: dict[str, bytes] = {}
    for name in formats:
        if name in DRAWN:
            files |= draw_figures(reports, name)
        elif name in RENDERERS:
            files |= {file: text.encode() for file, text in RENDERERS[name](reports, runs).items()}
    return files
