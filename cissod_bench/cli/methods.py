"""cissod-bench methods: the rows of the tables, and what one of them is."""

from __future__ import annotations

from typing import Any

import click

from cissod_bench.catalogue import Entry, list_methods
from cissod_bench.catalogue.method_files import find_entry, find_method
from cissod_bench.cli.common import Output, global_options, pass_output, warnings_told

_SHOWN = ("summary", "citation", "images", "competitor", "variants", "departures", "reported")


@click.command("methods", short_help="List the methods.")
@click.argument("name", required=False)
@global_options
@pass_output
def command(output: Output, name: str | None) -> None:
    """List the methods, or show NAME (or a .py file): citation, variants, departures and the paper's numbers."""
    with warnings_told(output):
        _command(output, name)


def _command(output: Output, name: str | None) -> None:
    if name is None:
        entries = list_methods().values()
        rows = [
            {"name": e.name, "title": e.title, "source": e.source, "summary": e.literals.get("summary", "")}
            for e in entries
        ]
        output.result(rows)
        if not output.json:
            _list(rows)
        return
    facts = _facts(find_entry(name), name)
    output.result(facts)
    if not output.json:
        _show(facts)


def _facts(entry: Entry, named: str) -> dict[str, Any]:
    """Return what a method says of itself; it is imported only where that is not written as literals."""
    facts = {"name": entry.name, "title": entry.title, "source": entry.source, "images": "semi", "competitor": True}
    facts |= {"summary": "", "variants": {}, "departures": (), "reported": {}}
    if "citation" in entry.literals:
        return facts | {key: entry.literals[key] for key in _SHOWN if key in entry.literals}
    method = find_method(named)
    return facts | {key: getattr(method, key) for key in ("title", "source", *_SHOWN)}


def _list(rows: list[dict[str, str]]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    table = Table("name", "title", "what it does")
    for row in rows:
        table.add_row(Text(row["name"]), Text(row["title"]), Text(row["summary"] or row["source"]))
    Console().print(table)


def _show(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    table = Table(show_header=False, box=None)
    trained = {
        "semi": "D_l with boxes, D_u without",
        "promoted": "D_l with boxes, D_u without; images of D_u join D_l with their pseudo labels",
        "labelled": "D_l only",
        "oracle": "D_l, D_u with its hidden boxes",
    }
    lines = {key: str(facts[key]) for key in ("name", "title", "summary", "source", "citation")}
    lines = {key: text for key, text in lines.items() if text}
    lines["trains on"] = trained[facts["images"]] + ("" if facts["competitor"] else " (reference row, no competitor)")
    for variant, changed in facts["variants"].items():
        lines[f"variant {variant}"] = ", ".join(f"{key}={value}" for key, value in changed.items())
    for number, departure in enumerate(facts["departures"], start=1):
        lines[f"departure {number}"] = departure
    for task, columns in facts["reported"].items():
        lines[f"paper, {task}"] = "  ".join(f"{column} {value}" for column, value in columns.items())
    for key, text in lines.items():
        table.add_row(Text(key, style="dim"), Text(text))
    Console().print(table)
