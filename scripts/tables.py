"""Fill the tables of README.md and docs/league.md from the kept runs below results/ (`make tables`).

A table stands between two lines, ``<!-- table: TITLE -->`` and ``<!-- end -->``, where TITLE is a heading in the
report ("Toy shapes"), or "seconds of TITLE" for how long its runs took. What stands between is replaced.
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
    """Rewrite the pages; say which changed."""
    tables = tables_of(find_runs(ROOT / "results"))
    for page in PAGES:
        path = ROOT / page
        old = path.read_text(encoding="utf-8")
        new = filled(old, tables)
        print(f"{page}: {'unchanged' if new == old else 'rewritten'}")
        if new != old:
            write_bytes(path, new.encode("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
