"""The report as one self-contained HTML page: no script, no font, no link that loads anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from cissod_bench import __version__
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.reporting.averaging import as_text, scored_model
from cissod_bench.reporting.paper_tables import CITATION
from cissod_bench.reporting.tables import DASH, Report, Runs
from cissod_bench.scoring.points import AP

PHASES = ("split", "train", "predict", "evaluate")  # keys of RunRecord.timings that are seconds


def render_html(reports: Sequence[Report], runs: Runs) -> str:
    """Return the page: tables, drawings, then every run with what it was made of. All text is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["points"] = _points
    template = (resources.files("cissod_bench.rendering") / "report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        reports=reports,
        svg=Markup,
        runs=[_facts(folder, record) for folder, record in runs],
        departures=departures(runs),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        citation=CITATION,
        dash=DASH,
    )


def _points(value: AP) -> str:
    return DASH if value is None else f"{value:.1f}"


def _facts(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return what a reader needs to trust or repeat one run."""
    seconds = sum(record.timings.get(phase, 0.0) for phase in PHASES)
    return {
        "record": record,
        "folder": str(folder),
        "method": _method(record),
        "model": scored_model(record),
        "ap": record.ap.get(scored_model(record), {}),
        "student": record.ap.get("student", {}).get("all"),
        "minutes": f"{seconds / 60:.1f}" if seconds else DASH,
        "created": record.created[:16].replace("T", " ") or DASH,
    }


def _method(record: RunRecord) -> str:
    return f"{record.method}+{record.variant}" if record.variant else record.method


def departures(runs: Runs) -> list[dict[str, Any]]:
    """Return each set of departures from the paper that can change a number once, with the runs that share it.

    Each has ``settings``, name -> [the paper's value, the value used], and ``runs``, what was run -> its seeds.
    """
    found: dict[str, dict[str, Any]] = {}
    for _, record in runs:
        changed = {name: pair for name, pair in record.departures.items() if name not in FREE_SETTINGS}
        if changed:
            entry = found.setdefault(as_text(changed), {"settings": changed, "runs": {}})
            name = f"{record.task}, {_method(record)}, {record.preset}-{record.profile}"
            entry["runs"].setdefault(name, []).append(record.seed)
    return list(found.values())
