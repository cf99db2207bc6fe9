"""How ``cissod-bench sweep`` shows its cells: as a matrix of scores, or as a list with how long the rest takes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.common import Output
from cissod_bench.cli.slurm import jobs_told

if TYPE_CHECKING:
    from cissod_bench.sweeping.cells import Cell, Folders, Seen

_PIPE_WIDTH = 160  # where there is no terminal to ask, no table has to be squeezed


def show_queue(
    output: Output, folders: Folders, seen: Mapping[Cell, Seen], labels: Mapping[Cell, str], *, measure: bool
) -> None:
    """Print every cell in the queue's order with its state, what runs cost, and how long one worker needs for the rest.

    Args:
        output: of the command.
        folders: of the runs.
        seen: every cell.
        labels: of cells, as the queue's file has them.
        measure: whether it is derived what a run computes.
    """
    from cissod_bench.cli.cost_lines import costs_of_queue
    from cissod_bench.sweeping.estimate import estimate

    left = estimate(seen)
    values = [{**_value(folders, cell, own), "label": labels.get(cell, "")} for cell, own in seen.items()]
    if output.shows:
        _print_queue(seen, labels)
    costs = costs_of_queue(output, folders, seen, measure=measure)
    told = {"left_seconds": left.seconds, "unknown": left.unknown, "finished": left.finished}
    output.result({"cells": values, **told, "costs": costs})
    if not output.shows:
        return
    from cissod_bench.sweeping.sweep import duration

    _tell_failed(output, seen)
    counts = Counter(own.state for own in seen.values())
    output.tell(f"{len(seen)} cells: " + ", ".join(f"{number} {state}" for state, number in counts.items()))
    known = f"about {duration(left.seconds)} of one worker, by {left.finished} finished cells"
    unknown = f"nothing is known of {left.unknown}: no run on their task with their preset is finished"
    output.tell("Left: " + "; ".join([known] * bool(left.finished) + [unknown] * bool(left.unknown)))


def _print_queue(seen: Mapping[Cell, Seen], labels: Mapping[Cell, str]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    table = Table("", "label", "task", "split seed", "method", "preset", "seed", "state")
    for number, (cell, own) in enumerate(seen.items(), 1):
        names = (labels.get(cell, ""), cell.task, str(cell.split_seed), cell.row_and_name, cell.preset, str(cell.seed))
        table.add_row(str(number), *map(Text, (*names, _text(own))))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def show_matrix(output: Output, folders: Folders, seen: Mapping[Cell, Seen]) -> None:
    """Print the matrix of cells, a table a sub-task and split: methods as rows, seeds as columns."""
    output.result([_value(folders, cell, one) for cell, one in seen.items()])
    if not output.shows:
        return
    from rich.markup import escape
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    scales = {(cell.preset, cell.profile) for cell in seen}
    for group in dict.fromkeys((cell.task, cell.split_seed, cell.preset, cell.profile) for cell in seen):
        own = {
            cell: one for cell, one in seen.items() if (cell.task, cell.split_seed, cell.preset, cell.profile) == group
        }
        seeds = list(dict.fromkeys(cell.seed for cell in own))
        names = dict.fromkeys(name for one in own.values() for name in one.scores())
        what = f"{group[0]}, split seed {group[1]}"
        what += f", preset {group[2]}, profile {group[3]}" if len(scales) > 1 else ""
        what += f": AP {' / '.join(names)}" if names else ""
        table = Table(escape(what), *(f"seed {seed}" for seed in seeds))
        for row in dict.fromkeys(cell.row_and_name for cell in own):
            states = {cell.seed: _text(one) for cell, one in own.items() if cell.row_and_name == row}
            table.add_row(Text(row), *(Text(states.get(seed, "")) for seed in seeds))
        console.print(table)
    _tell_failed(output, seen)


def _tell_failed(output: Output, seen: Mapping[Cell, Seen]) -> None:
    for cell, own in seen.items():
        if own.state == "failed":
            output.tell(f"{cell.title}: {own.note}")
    jobs_told(output, [(cell.title, own.job) for cell, own in seen.items() if own.job is not None])


def _text(one: Seen) -> str:
    """Return a cell of the matrix: its AP of all classes and of the last group, or its state."""
    if one.state == "done":
        points = ("-" if value is None else f"{value:.1f}" for value in one.scores().values())
        return f"done {' / '.join(points)}"
    words = [one.state, one.note, f"job {one.job.id}" if one.job else ""]
    return " ".join(filter(None, words)) if one.state != "failed" else "failed"


def _value(folders: Folders, cell: Cell, one: Seen) -> dict[str, Any]:
    """Return what --json prints of a cell."""
    from cissod_bench.sweeping.cells import IDENTITY

    facts = {name: getattr(cell, name) for name in IDENTITY}
    value = {"dir": str(folders.run(cell)), **facts, "state": one.state, "ap": one.scores() or None, "note": one.note}
    return value if one.job is None else {**value, "job": one.job.id, "log": one.job.log}
