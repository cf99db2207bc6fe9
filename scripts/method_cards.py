"""The facts of docs/methods.md: what every method says of itself, the paper's AP and that of the kept runs.

``scripts/tables.py`` puts them into the page; the words around them are written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from cissod_bench.catalogue import list_methods, load_method, load_report
from cissod_bench.contract.method import Method
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.markdown import column_rules, escape, grid_text
from cissod_bench.reporting.paper_tables import METHODS, TABLES
from cissod_bench.reporting.tables import DASH, Table

COLUMNS = (("all",), ("maj", "f"), ("c",), ("min", "r"))
"""Score columns that stand above each other: of both scenarios, from frequent to rare."""
_HEADS = ("AP in points", *(" / ".join(names) for names in COLUMNS))


def cards_of(first: Sequence[Run]) -> dict[str, str]:
    """Return "the methods" -> table of all of them, and "card of NAME" -> Markdown for each.

    Args:
        first: the kept runs on split seed 0.
    """
    entries = list_methods()
    order = [*METHODS, *(name for name in entries if name not in METHODS)]
    methods = [load_method(name) for name in order]
    measured = load_report("comparison")(first, ()).tables
    rows = [(f"[{escape(one.title)}](#{one.name})", f"`{one.name}`", escape(one.summary)) for one in methods]
    listed = grid_text(("", "name", "what it does"), column_rules(3, 3), rows)
    return {"the methods": listed} | {
        f"card of {one.name}": _card(one, entries[one.name].module, measured) for one in methods
    }


def _card(method: Method, module: str, measured: Sequence[Table]) -> str:
    folder, stem = module.split(".")[-2:]
    parts = [f"`{folder}/{stem}.py`. {escape(method.citation)}"]
    rows = [*_printed(method), *_measured(method, measured)]
    parts += [grid_text(_HEADS, column_rules(len(_HEADS), 1), rows)] if rows else []
    if method.variants:
        parts.append(f"Variants: {', '.join(f'`{name}`' for name in method.variants)}.")
    if method.departures:
        points = "\n".join(f"* {escape(words)}" for words in method.departures)
        number = f"{len(method.departures)} point{'s' * (len(method.departures) > 1)}"
        head = f"<summary>Not as in its source: {number}</summary>"
        parts.append(f'<details markdown="1">\n{head}\n\n{points}\n\n</details>')
    return "\n\n".join(parts)


def _printed(method: Method) -> list[tuple[str, ...]]:
    """Return a row per task of the paper that has the method."""
    titles = {task: title for paper in TABLES for task, title in paper.tasks.items()}
    rows = []
    for task, columns in method.reported.items():
        cells = [next((f"{columns[name]:.1f}" for name in names if name in columns), DASH) for names in COLUMNS]
        rows.append((f"paper, {titles[task]}", *cells))
    return rows


def _measured(method: Method, tables: Sequence[Table]) -> list[tuple[str, ...]]:
    """Return a row per table of the kept runs that has the method as it stands."""
    rows = []
    for table in tables:
        for row in table.rows:
            for block in table.blocks:
                n = table.seeds(row, block)
                if row.key == (method.name, "", "") and n:
                    there = [next((name for name in names if name in block.columns), None) for names in COLUMNS]
                    cells = [table.cell(row, block, name).text if name else DASH for name in there]
                    rows.append((f"here, {table.title} ({n} seeds)", *cells))
    return rows
