"""cissod-bench sweep: methods x variants x tasks x split seeds x seeds, one run after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.errors import BenchError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from cissod_bench.sweeping.cells import Cell, Folders, Seen


_PIPE_WIDTH = 160  # where there is no terminal to ask, no table has to be squeezed


def _seeds(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[int]:
    """Return the seeds of options such as ``3`` and ``0-2``."""
    found: list[int] = []
    for value in values:
        first, dash, last = value.partition("-")
        if not all(word.isascii() and word.isdigit() for word in ((first, last) if dash else (first,))):
            raise click.BadParameter(f"{value!r} is neither a seed nor a range such as 0-2.", ctx, param)
        own = range(int(first), int(last if dash else first) + 1)
        if not own or own[-1] >= 2**63:
            raise click.BadParameter(f"{value!r} holds no seed in [0, 2^63).", ctx, param)
        found += own
    return found


@click.command("sweep", short_help="Run methods x tasks x seeds as a queue.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    required=True,
    metavar="NAME|FILE.py[+VARIANT]",
    help="Repeatable: ours, ours+gbr+gbt, my_idea.py.",
)
@click.option("--task", "tasks", multiple=True, required=True, metavar="NAME|FILE.toml", help="Repeatable.")
@click.option(
    "--split-seed",
    "split_seeds",
    multiple=True,
    default=("0",),
    callback=_seeds,
    metavar="N|N-M",
    help="Seeds of the draw; repeatable.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    default=("0",),
    callback=_seeds,
    metavar="N|N-M",
    help="Seeds of the training; repeatable.",
)
@click.option(
    "--preset", "preset_name", metavar="full|photo|mini|smoke", help="Scale.  [default: full, mini for toy tasks]"
)
@click.option("--profile", default="default", show_default=True, metavar="default|paper|official", help="Constants.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of kept records, laid out as below WORK-DIR/runs. What is done there is not run again; the small "
    "files of new runs are added.",
)
@click.option("--status", is_flag=True, help="Print how far every cell is and stop.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    /,
    *,
    methods: Sequence[str],
    tasks: Sequence[str],
    results: Path | None,
    status: bool,
    data_root: Path,
    work_dir: Path,
    **options: Any,
) -> None:
    """Run every combination of the given methods, tasks and seeds, each in a process of its own.

    A run that is done is not repeated. One that was stopped or broke continues from its checkpoint. A run that fails is
    noted, and the queue goes on. Several sweeps may work on the same folder: they share the queue, e.g. one per GPU.
    """
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.split_folders.ensure import check_existing
    from cissod_bench.sweeping.cells import Folders, cells_of
    from cissod_bench.sweeping.sweep import Sweep

    cells = cells_of(methods, tasks, **options)
    folders = Folders(work_dir, results)
    if status:
        _show(output, folders, {cell: folders.look(cell) for cell in cells})
        return
    for named, split_seed in dict.fromkeys((cell.named, cell.split_seed) for cell in cells):
        check_existing(find_task(named), data_root, work_dir, split_seed)
    environment = {"CISSOD_DATA": str(data_root), "CISSOD_WORK": str(work_dir)}
    with _live_line(output, folders) as tick:
        seen = Sweep(cells, folders, say=output.say, tick=tick, environment=environment).run()
    _show(output, folders, seen)
    _conclude(seen)


def _conclude(seen: Mapping[Cell, Seen]) -> None:
    """End with the exit code of the worst cell.

    Raises:
        BenchError: a cell failed.
        Interrupted: a cell was stopped by somebody else.
    """
    failed = [cell for cell, one in seen.items() if one.state == "failed"]
    if failed:
        raise BenchError(
            f"{len(failed)} of {len(seen)} cells failed, the first is {failed[0].title}: {seen[failed[0]].note}",
            remedy="mend the cause and repeat the same command: only what is not done is run",
        )
    stopped = [cell for cell, one in seen.items() if one.state != "done"]
    if stopped:
        raise Interrupted(
            f"{len(stopped)} of {len(seen)} cells were stopped, the first is {stopped[0].title}.",
            remedy="repeat the same command to continue",
        )


@contextmanager
def _live_line(output: Output, folders: Folders) -> Iterator[Callable[[Cell], None]]:
    """Yield a function that shows how far a cell is on a terminal, and nothing elsewhere."""
    from cissod_bench.terminal import Console, Text

    console = Console(stderr=True)
    if output.verbosity < 0 or not console.is_terminal:
        yield lambda cell: None
        return
    with console.status("") as line:
        yield lambda cell: line.update(Text(f"{cell.title}  {folders.progress(cell)}"))


def _show(output: Output, folders: Folders, seen: Mapping[Cell, Seen]) -> None:
    """Print the matrix of cells, a table a sub-task and split: methods as rows, seeds as columns."""
    output.result([_value(folders, cell, one) for cell, one in seen.items()])
    if not output.shows:
        return
    from rich.markup import escape
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for group in dict.fromkeys((cell.task, cell.split_seed) for cell in seen):
        own = {cell: one for cell, one in seen.items() if (cell.task, cell.split_seed) == group}
        seeds = list(dict.fromkeys(cell.seed for cell in own))
        names = dict.fromkeys(name for one in own.values() for name in one.scores())
        what = f"{group[0]}, split seed {group[1]}" + (f": AP {' / '.join(names)}" if names else "")
        table = Table(escape(what), *(f"seed {seed}" for seed in seeds))
        for row in dict.fromkeys(cell.row for cell in own):
            states = {cell.seed: _text(one) for cell, one in own.items() if cell.row == row}
            table.add_row(Text(row), *(Text(states[seed]) for seed in seeds))
        console.print(table)
    for cell, one in seen.items():
        if one.state == "failed":
            output.tell(f"{cell.title}: {one.note}")


def _text(one: Seen) -> str:
    """Return a cell of the matrix: its AP of all classes and of the last group, or its state."""
    if one.state == "done":
        points = ("-" if value is None else f"{value:.1f}" for value in one.scores().values())
        return f"done {' / '.join(points)}"
    return f"{one.state} {one.note}".strip() if one.state != "failed" else "failed"


def _value(folders: Folders, cell: Cell, one: Seen) -> dict[str, Any]:
    """Return what --json prints of a cell."""
    from cissod_bench.sweeping.cells import IDENTITY

    facts = {name: getattr(cell, name) for name in IDENTITY}
    return {"dir": str(folders.run(cell)), **facts, "state": one.state, "ap": one.scores() or None, "note": one.note}
