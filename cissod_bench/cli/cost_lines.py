"""How ``run --dry-run`` and ``sweep --dry-run`` show what runs cost before they start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output

if TYPE_CHECKING:
    from pathlib import Path

    from cissod_bench.records.run_folder import Run
    from cissod_bench.running.cost import Cost, Likely, Subject
    from cissod_bench.running.plan import Plan
    from cissod_bench.sweeping.cells import Cell, Folders, Seen

_PROCESSES = (1, 2, 4, 8)
_PIPE_WIDTH = 160  # where there is no terminal to ask, no table has to be squeezed

measure_option = click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="With --dry-run: say what an iteration computes, which takes some seconds to find out.",
)


def cost_of_plan(output: Output, plan: Plan, processes: int, work_dir: Path, *, measure: bool) -> dict[str, Any]:
    """Print what a run costs and return it for --json.

    Args:
        output: of the command.
        plan: the run.
        processes: that share it.
        work_dir: the runs below it tell how long runs like it took.
        measure: whether an iteration is counted.
    """
    from cissod_bench.running.assembly import pick_device
    from cissod_bench.running.cost import batches_and_rates, cost_of, likely, subject_of
    from cissod_bench.running.provenance import hardware

    device = pick_device()
    subject = subject_of(plan.task, plan.method, plan.variant, plan.profile, plan.settings, plan.manifest)
    scored = _scored(plan) if measure else None
    cost = cost_of(subject, processes, scored=scored, measure=measure, iterate_on=device)
    time = likely(subject, _runs(work_dir / "runs"), hardware(device), processes)
    for name, text in _lines(cost, subject, time).items():
        output.say(f"  {name:<11} {text}")
    rates = [
        {"processes": number, "images": images, "learning_rate": rate}
        for number, images, rate in batches_and_rates(subject, _PROCESSES)
    ]
    return {**_value(cost, time), "several": rates}


def _scored(plan: Plan) -> int | None:
    """Return how many images are scored; None where their file is broken, which the run itself tells."""
    from cissod_bench.annotations.file_names import ImageFolder
    from cissod_bench.annotations.reading import read_annotations
    from cissod_bench.errors import DataFault

    folder, absent = ImageFolder(plan.images["val"], plan.task.images["val"]), frozenset(plan.task.absent)
    with (
        suppress(DataFault),
        read_annotations(plan.val, naming=plan.naming, swapped=plan.task.swapped, folder=folder) as file,
    ):
        return sum(name not in absent for name in file.file_names)
    return None


def _runs(*roots: Path | None) -> list[Run]:
    from cissod_bench.records.run_folder import find_runs

    return [run for root in roots if root is not None for run in find_runs(root, on_fault=lambda fault: None)]


def _lines(cost: Cost, subject: Subject, time: Likely | None) -> dict[str, str]:
    """Return heading -> text of what a run costs."""
    from cissod_bench.keeping.inventory import bytes_text
    from cissod_bench.running.cost import batches_and_rates

    labelled, unlabelled = cost.read
    scored = "" if cost.scored is None else f"; {cost.scored:,} in scoring"
    lines = {
        "work": work_text(cost),
        "reads": f"{labelled:,} labelled + {unlabelled:,} unlabelled images in training{scored}",
        "memory": memory_text(cost),
    }
    if cost.checkpoint is not None:
        lines["disk"] = f"{bytes_text(cost.checkpoint)} per checkpoint"
        if cost.predictions is not None:
            lines["disk"] += f", up to {bytes_text(cost.predictions)} of predictions"
    several = (
        f"{number}: {images} images, {rate:.4g}" for number, images, rate in batches_and_rates(subject, _PROCESSES)
    )
    lines["GPUs"] = f"batch and learning rate by their number: {'; '.join(several)}"
    lines["time"] = time_text(time)
    return lines


def work_text(cost: Cost) -> str:
    """Return operations per iteration and of the whole run, and how they are known."""
    if cost.work is None or cost.flops is None:
        return f"not counted: {cost.why_not}"
    before = f" ({flops_text(cost.work.labelled_flops)} in the first {cost.begin:,})" if cost.begin else ""
    height, width = cost.size
    how = f"images of {width} x {height}, {cost.work.way}"
    if cost.work.way == "derived":
        how += " from the layers' shapes, nothing was computed"
    whole = flops_text(cost.flops)
    return f"{flops_text(cost.work.flops)} per iteration and process{before}, {whole} in all ({how})"


def memory_text(cost: Cost) -> str:
    """Return what an iteration takes on each process, and how that is known."""
    from cissod_bench.keeping.inventory import bytes_text

    if cost.work is None:
        return "not measured"
    if cost.work.device == "cuda":
        return f"{bytes_text(cost.work.memory)} of the GPU at most, measured on an iteration"
    known = "measured on an iteration" if cost.work.way == "counted" else "derived"
    told = f"; {cost.why_not}" if cost.why_not else ""
    half = ", about half of it in mixed precision" if cost.work.way == "derived" else ""
    return (
        f"{bytes_text(cost.work.memory)} of models, optimiser and what is kept for the backward pass "
        f"({known}, in float32{half}){told}"
    )


def time_text(time: Likely | None) -> str:
    """Return how long a run takes, and by which run that is known."""
    from cissod_bench.sweeping.sweep import duration

    if time is None:
        return "not known: no finished run with these sizes on such hardware is below --work-dir"
    what = "" if time.scoring else " of training"
    other = "" if time.same_method else f", of {time.run.record.method}"
    return f"about {duration(time.seconds)}{what}, by {time.run.folder} (the fastest of {time.of} like it{other})"


def flops_text(number: float) -> str:
    """Return operations as ``8.12 TFLOP``."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 999.5:
            return f"{number:.3g} {unit}FLOP"
        number /= 1000
    return f"{number:.3g} EFLOP"


def _value(cost: Cost, time: Likely | None) -> dict[str, Any]:
    """Return what --json prints of a cost."""
    known = None
    if time is not None:
        names = ("seconds", "scoring", "same_method", "of")
        known = {**{name: getattr(time, name) for name in names}, "dir": str(time.run.folder)}
    return {**asdict(cost), "flops": cost.flops, "reads": list(cost.read), "time": known}


def costs_of_queue(
    output: Output, folders: Folders, seen: Mapping[Cell, Seen], *, measure: bool
) -> list[dict[str, Any]]:
    """Print what a run of every row of a queue costs and return it for --json; a row's seeds cost the same.

    Args:
        output: of the command.
        folders: whose runs tell how long runs like these took.
        seen: every cell.
        measure: whether iterations are derived; else nothing is printed.
    """
    if not measure:
        return []
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for cell in seen:
        rows.setdefault((cell.named, cell.row, cell.preset, cell.profile, *cell.changes), []).append(cell)
    runs = _runs(folders.work_dir / "runs", folders.results)
    costs = [(cells, *_cost_of_cell(cells[0], folders, runs)) for cells in rows.values()]
    if output.shows:
        _print(costs)
    names = ("task", "row", "preset", "profile")
    return [
        {**{name: getattr(cells[0], name) for name in names}, "cells": len(cells), **_value(cost, time)}
        for cells, cost, time in costs
    ]


def _cost_of_cell(cell: Cell, folders: Folders, runs: list[Run]) -> tuple[Cost, Likely | None]:
    """Return what a cell's run costs in one process; of a split that is not drawn yet the classes are not known."""
    from cissod_bench.catalogue.method_files import find_method
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.contract.presets import resolved
    from cissod_bench.errors import DataFault
    from cissod_bench.running.assembly import pick_device
    from cissod_bench.running.cost import cost_of, likely, subject_of
    from cissod_bench.running.provenance import hardware
    from cissod_bench.splitting.manifest import read_manifest, split_folder

    task, manifest = find_task(cell.named), None
    with suppress(DataFault):
        manifest = read_manifest(split_folder(folders.work_dir, cell.task, cell.split_seed))
    settings = resolved(task, cell.preset, cell.changes)
    subject = subject_of(task, find_method(cell.file or cell.method), cell.variant, cell.profile, settings, manifest)
    return cost_of(subject, 1), likely(subject, runs, hardware(pick_device()), 1)


def _print(costs: list[tuple[list[Cell], Cost, Likely | None]]) -> None:
    from rich.table import Table

    from cissod_bench.keeping.inventory import bytes_text
    from cissod_bench.sweeping.sweep import duration
    from cissod_bench.terminal import Console, Text

    numbers = ("cells", "per iteration", "per run", "reads", "memory", "checkpoint", "time")
    table = Table("task", "method", "preset", *numbers)
    for column in table.columns[3:]:
        column.justify = "right"
    for cells, cost, time in costs:
        words = [cells[0].task, cells[0].row, cells[0].preset, str(len(cells))]
        if cost.work is None or cost.flops is None or cost.checkpoint is None:
            words += ["-"] * 2 + [f"{sum(cost.read):,}"] + ["-"] * 2
        else:
            words += [flops_text(cost.work.flops), flops_text(cost.flops), f"{sum(cost.read):,}"]
            words += [bytes_text(cost.work.memory), bytes_text(cost.checkpoint)]
        table.add_row(*map(Text, [*words, "-" if time is None else duration(time.seconds)]))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
