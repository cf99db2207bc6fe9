"""``cissod-bench tasks``: the sub-tasks, and what one of them is."""

from __future__ import annotations

from typing import Any

import click

from cissod_bench.cli.common import Output, global_options, pass_output, warnings_told
from cissod_bench.controls import shown_name


@click.command("tasks", short_help="List the sub-tasks.")
@click.argument("name", required=False)
@global_options
@pass_output
def command(output: Output, name: str | None) -> None:
    """List the sub-tasks, or show one: its files, groups and defaults. NAME may be a .toml or .py file."""
    from cissod_bench.catalogue import list_tasks

    if name is not None:
        facts = _facts(name)
        output.result(facts)
        if not output.json:
            _print([(key, _text(value)) for key, value in facts.items()], None)
        return
    with warnings_told(output):
        entries = list_tasks().values()
    rows = [{"name": entry.name, "title": entry.title, "source": entry.source} for entry in entries]
    output.result(rows)
    if not output.json:
        _print([tuple(row.values()) for row in rows], ("name", "title", "source"))


def _facts(name: str) -> dict[str, Any]:
    """Return the task's fields that are values."""
    from dataclasses import fields

    from cissod_bench.catalogue.task_files import find_task

    task = find_task(name)
    code = ("draw", "prepare", "conversion")
    shown = [field.name for field in fields(task) if field.name not in ("name", "file", *code)]
    facts = {"name": task.name, **{key: getattr(task, key) for key in shown}, "preset": task.usual_preset}
    return facts if task.conversion is None else {**facts, "converted_from": dict(task.conversion.sources)}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {one}" for key, one in value.items())
    return ", ".join(shown_name(str(one)) for one in value) if isinstance(value, tuple) else str(value)


def _print(rows: list[tuple[str, ...]], header: tuple[str, ...] | None) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    table = Table(*(header or ("", "")), show_header=header is not None, box=None if header is None else Table().box)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
