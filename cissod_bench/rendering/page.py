"""The report as one self-contained HTML page: no script, no font, no link that loads anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from cissod_bench import __version__
from cissod_bench.records.record import PHASES
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.room import MOST_BYTES, MOST_PICTURE_BYTES, Room
from cissod_bench.reporting.averaging import method_words, scored_model
from cissod_bench.reporting.departures import departures
from cissod_bench.reporting.paper_tables import CITATION
from cissod_bench.reporting.tables import DASH, Report
from cissod_bench.scoring.points import AP

HEADING = "Class-imbalanced semi-supervised object detection"


def render_html(reports: Sequence[Report], runs: Sequence[Run], heading: str = HEADING) -> str:
    """Return the page: tables, drawings, then every run with what it was made of. All text is escaped.

    It is no larger than ``MOST_BYTES``, unless text and tables alone are: pictures, and then figures, are left out.
    """
    room = Room(MOST_BYTES, MOST_PICTURE_BYTES)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["points"] = _points
    template = (resources.files("cissod_bench.rendering") / "report.html.j2").read_text(encoding="utf-8")
    html = environment.from_string(template).render(
        reports=reports,
        heading=heading,
        room=room,
        runs=list(map(_facts, runs)),
        departures=departures(runs),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        citation=CITATION,
        dash=DASH,
    )
    return room.filled(html)


def _points(value: AP) -> str:
    return DASH if value is None else f"{value:.1f}"


def _facts(run: Run) -> dict[str, Any]:
    """Return what a reader needs to trust or repeat one run."""
    record = run.record
    seconds = sum(record.timings.get(phase, 0.0) for phase in PHASES)
    return {
        "record": record,
        "folder": str(run.folder),
        "method": method_words(record),
        "model": scored_model(record),
        "ap": record.ap.get(scored_model(record), {}),
        "student": record.ap.get("student", {}).get("all"),
        "minutes": f"{seconds / 60:.1f}" if seconds else DASH,
        "created": record.created[:16].replace("T", " ") or DASH,
    }
