"""cissod-bench sweep: methods x variants x tasks x split seeds x seeds, one run after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.cli.cost_lines import measure_option
from cissod_bench.cli.slurm import jobs_told, slurm_options, wanted_of
from cissod_bench.contract.seeds import seeds_of
from cissod_bench.errors import BenchError, Interrupted, UsageFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cissod_bench.sweeping.cells import Cell, Folders, Seen
    from cissod_bench.sweeping.cluster import Array
    from cissod_bench.sweeping.queue_file import Queue


_NOT_WITH_QUEUE = ("methods", "tasks", "split_seeds", "seeds", "preset_name", "profile", "changes", "name")


def _seeds(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[int]:
    """Return the seeds of options such as ``3`` and ``0-2``."""
    found: list[int] = []
    for value in values:
        try:
            found += seeds_of(value)
        except ValueError as fault:
            raise click.BadParameter(f"{value!r} {fault}.", ctx, param) from None
    return found


@click.command("sweep", short_help="Run methods x tasks x seeds as a queue.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME|FILE.py[+VARIANT]",
    help="Repeatable: ours, ours+gbr+gbt, my_idea.py.",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME|FILE", help="As --task of run; repeatable.")
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
    "--preset",
    "preset_name",
    metavar="full|fine-tune|photo|mini|smoke",
    help="Scale.  [default: full; mini for toy tasks, photo for photographs and own data]",
)
@click.option("--profile", default="default", show_default=True, metavar="default|paper|official", help="Constants.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option(
    "--name", default="", metavar="NAME", help="Part of the runs' folders.  [default: the settings that were changed]"
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of kept records, laid out as below WORK-DIR/runs. What is done there is not run again; the small "
    "files of new runs are added.",
)
@click.option(
    "--queue",
    "queue_file",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="The whole queue in one file, in place of all options above but --results; as examples/league.toml. It ends "
    "when nothing is left to do here, also while others work on the rest.",
)
@click.option(
    "--launcher",
    type=click.Choice(["none", "slurm"]),
    default="none",
    show_default=True,
    help="slurm submits the cells as one array of jobs and ends; none runs them here, one after the other.",
)
@click.option("--gpus", default="1", show_default=True, metavar="N", help="Processes of a Slurm job on each machine.")
@slurm_options
@click.option(
    "--at-once", type=click.IntRange(min=1), default=4, show_default=True, help="Slurm jobs that may run at a time."
)
@click.option("--cancel", is_flag=True, help="Cancel the queued and running Slurm jobs of the cells and stop.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="List the cells, how far each is, what a run costs and how long the rest takes; run none.",
)
@measure_option
@click.option("--status", is_flag=True, help="Print how far every cell is and stop.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    /,
    *,
    results: Path | None,
    queue_file: Path | None,
    launcher: str,
    gpus: str,
    nodes: int,
    partition: str,
    time: str,
    more: tuple[str, ...],
    at_once: int,
    cancel: bool,
    dry_run: bool,
    measure: bool,
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
    from cissod_bench.cli import sweep_listing
    from cissod_bench.extras import require_training
    from cissod_bench.running.trackers import check_installed
    from cissod_bench.split_folders.ensure import check_existing, draw_options, ensure_split
    from cissod_bench.sweeping import cluster
    from cissod_bench.sweeping.cells import Folders
    from cissod_bench.sweeping.sweep import Sweep

    if not (status or cancel):
        require_training("sweep")
    queue, folders = _queue(queue_file, options), Folders(work_dir, results)
    wanted = wanted_of(launcher, gpus, nodes, partition, time, more)
    if wanted is None and gpus != "1":
        raise UsageFault("--gpus is an option of Slurm jobs.", remedy="add --launcher slurm, or leave it out")
    if status or dry_run or cancel:
        seen = cluster.with_jobs(folders, {cell: folders.look(cell) for cell in queue.cells})
        if cancel:
            _cancel(output, seen)
        elif dry_run:
            sweep_listing.show_queue(output, folders, seen, queue.labels, measure=measure)
        else:
            sweep_listing.show_matrix(output, folders, seen)
        return

    def given(cell: Cell) -> dict[str, float]:
        percent = queue.percents.get((cell.named, cell.split_seed))
        return {} if percent is None else {"unlabelled_percent": percent}

    def draw(cell: Cell) -> None:
        if given(cell):  # else the run draws it
            task = find_task(cell.named)
            drawn = draw_options(task, split_seed=cell.split_seed, **given(cell))
            ensure_split(task, data_root, work_dir, drawn, given=given(cell).keys(), say=output.say)

    for tracker in dict.fromkeys(str(cell.settings["tracker"]) for cell in queue.cells):
        check_installed(tracker)
    for cell in {(cell.named, cell.split_seed): cell for cell in queue.cells}.values():
        check_existing(find_task(cell.named), data_root, work_dir, cell.split_seed, **given(cell))
    environment = {"CISSOD_DATA": str(data_root), "CISSOD_WORK": str(work_dir)}
    if wanted is not None:
        _submit(output, cluster.Array(folders, wanted, at_once, environment), queue.cells, draw)
        return
    with _live_line(output, folders) as tick:
        sweep = Sweep(queue.cells, folders, say=output.say, tick=tick, environment=environment, prepare=draw)
        sweep.waits = queue_file is None
        seen = sweep.run()
    sweep_listing.show_matrix(output, folders, seen)
    _conclude(seen)


def _submit(output: Output, array: Array, cells: Sequence[Cell], prepare: Callable[[Cell], None]) -> None:
    """Hand cells over to Slurm and show their jobs."""
    for cell in cells:
        prepare(cell)
    jobs = array.submit(cells)
    output.result([{"dir": str(array.folders.run(cell)), "job": job.id, "log": job.log} for cell, job in jobs.items()])
    jobs_told(output, [(cell.title, job) for cell, job in jobs.items()])
    rest = "; add --status for their state, --cancel to stop them" if jobs else ""
    output.tell(f"{len(jobs)} of {len(cells)} cells submitted, {array.at_once} at a time{rest}")


def _cancel(output: Output, seen: Mapping[Cell, Seen]) -> None:
    """Cancel the jobs of cells."""
    from cissod_bench.launching.slurm import cancel

    jobs = [(cell.title, own.job) for cell, own in seen.items() if own.job is not None]
    if jobs:
        cancel([job for _, job in jobs])
    output.result([job.id for _, job in jobs])
    for title, job in jobs:
        output.tell(f"{title}: job {job.id} is cancelled")
    output.tell(f"{len(jobs)} jobs cancelled; the same sweep continues what they have begun")


def _queue(file: Path | None, options: dict[str, Any]) -> Queue:
    """Return the cells that the options, or a queue file, name.

    Raises:
        UsageFault: options that do not go together, or a name or value that does not exist.
    """
    from cissod_bench.sweeping.cells import cells_of
    from cissod_bench.sweeping.queue_file import Queue, read_queue

    source = click.get_current_context().get_parameter_source
    named = [name for name in _NOT_WITH_QUEUE if (where := source(name)) and where.name == "COMMANDLINE"]
    if file is not None:
        if named:
            raise UsageFault(
                f"--queue {file} names all cells; options for {', '.join(named)} do not go with it.",
                remedy="leave them out, or write them into the file",
            )
        return read_queue(file)
    if not options["methods"] or not options["tasks"]:
        missing = "--method" if not options["methods"] else "--task"
        raise UsageFault(f"Missing option '{missing}'.", remedy="name methods and tasks, or a file with --queue")
    methods, tasks = options.pop("methods"), options.pop("tasks")
    return Queue(cells_of(methods, tasks, **options), {}, {})


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
    stopped = [cell for cell, one in seen.items() if one.state not in ("done", "running")]
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
