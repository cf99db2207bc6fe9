"""Fill the tables and plots of README.md and docs/league.md from the kept runs below results/ (`make tables`).

A table stands between two lines, ``<!-- table: TITLE -->`` and ``<!-- end -->``, where TITLE is a heading in the
report ("Toy shapes"), or "seconds of TITLE" for how long its runs took. What stands between is replaced. The plots are
the report's, of Soft Teacher and ours on split seed 0.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from cissod_bench.atomic import write_bytes
from cissod_bench.catalogue import list_methods, list_reports, load_report
from cissod_bench.rendering import render_markdown
from cissod_bench.runs import find_runs
from cissod_bench.tables import Runs

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/league.md")
_MARKED = re.compile(r"<!-- table: (?P<title>[^>]+?) -->\n.*?<!-- end -->", re.DOTALL)
PICTURES = {
    "docs/pictures/pseudo-labels-toy.svg": "pseudo_labels_toy_mini-default_split0.svg",
    "docs/pictures/state-toy.svg": "pseudo_labels_toy_mini-default_split0_ours.svg",
    "docs/pictures/pseudo-labels-toy-longtail.svg": "pseudo_labels_toy-longtail_mini-default_split0.svg",
    "docs/pictures/state-toy-longtail.svg": "pseudo_labels_toy-longtail_mini-default_split0_ours.svg",
}
"""Picture -> the report's file."""
_PHASES = ("train", "predict", "evaluate")


def tables_of(runs: Runs) -> dict[str, str]:
    """Return title -> Markdown table of every table in the report, and how long the runs of every task took.

    Raises:
        ValueError: two tables have one title, so that a page could not say which it means.
    """
    reports = [load_report(name)(runs, ()) for name in list_reports()]
    found: dict[str, str] = {}
    for name, page in render_markdown(reports, runs).items():
        if not name.endswith(".md"):
            continue
        for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
            title, rest = section.split("\n", 1)
            lines = [line for line in rest.splitlines() if line.startswith("|")]
            if lines and title in found:
                raise ValueError(f"Two tables are called {title!r}; {name} holds the second.")
            if lines:
                found[title] = "\n".join(lines)
    return {**found, **seconds_of(runs)}


def seconds_of(runs: Runs) -> dict[str, str]:
    """Return "seconds of TITLE" -> table of the wall seconds a run, least and most, for every task."""
    titles = {name: entry.literals.get("title", name) for name, entry in list_methods().items()}
    found: dict[str, str] = {}
    for task in dict.fromkeys(record.title for _, record in runs):
        lines = ["| method | runs | seconds a run |", "| --- | ---: | ---: |"]
        own = [record for _, record in runs if record.title == task and record.status == "done"]
        for method, variant in dict.fromkeys((record.method, record.variant) for record in own):
            times = sorted(
                round(sum(record.timings.get(phase, 0) for phase in _PHASES))
                for record in own
                if (record.method, record.variant) == (method, variant)
            )
            name = f"{titles.get(method, method)}{variant and f' [{variant}]'}"
            seconds = "-".join(map(str, dict.fromkeys((times[0], times[-1]))))
            lines.append(f"| {name} | {len(times)} | {seconds} |")
        found[f"seconds of {task}"] = "\n".join(lines)
    return found


def pictures_of(runs: Runs) -> dict[str, bytes]:
    """Return picture -> bytes: Fig. 3 with Soft Teacher and ours, and what our weights and thresholds did meanwhile.

    Raises:
        KeyError: there are no runs for one of them.
    """
    shown = [(folder, record) for folder, record in runs if record.method in {"soft-teacher", "ours"}]
    drawn: dict[str, bytes] = {}
    for figure in load_report("pseudo_labels")(shown, ()).figures:
        drawn |= figure.files("svg") if figure.files else {}
    return {picture: drawn[file] for picture, file in PICTURES.items()}


def filled(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with its marked tables replaced.

    Raises:
        KeyError: a marker names a table that the runs do not give.
    """

    def replaced(match: re.Match[str]) -> str:
        title = match["title"]
        if title not in tables:
            raise KeyError(f"no table {title!r}; there are {', '.join(sorted(tables))}")
        return f"<!-- table: {title} -->\n{tables[title]}\n<!-- end -->"

    return _MARKED.sub(replaced, text)


def main() -> int:
    """Rewrite pages and pictures; say which changed."""
    runs = find_runs(ROOT / "results")
    tables = tables_of(runs)
    new = {page: filled((ROOT / page).read_text(encoding="utf-8"), tables).encode("utf-8") for page in PAGES}
    for name, data in {**new, **pictures_of(runs)}.items():
        path = ROOT / name
        same = path.exists() and path.read_bytes() == data
        print(f"{name}: {'unchanged' if same else 'rewritten'}")
        if not same:
            write_bytes(path, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
