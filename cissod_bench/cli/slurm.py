"""``--launcher slurm``: its options, and the submission of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cissod_bench.cli.common import Output
from cissod_bench.errors import UsageFault

if TYPE_CHECKING:
    from cissod_bench.launching.slurm import Job, Wanted

F = TypeVar("F", bound=Callable[..., Any])


def slurm_options(command: F) -> F:
    """Add what a Slurm job may ask for: --nodes, --partition, --time and --slurm."""
    for option in (
        click.option(
            "--slurm",
            "more",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any other option of sbatch, e.g. account=NAME or cpus_per_task=8; repeatable. gpus_per_node=0 where "
            "a cluster has no GPUs; signal_delay_s: seconds before its time ends at which a job is asked to stop.",
        ),
        click.option("--time", default="", metavar="LIMIT", help="Of a Slurm job: 30, 8:00:00 or 2-0 (days-hours)."),
        click.option("--partition", default="", metavar="NAME", help="Of the Slurm cluster."),
        click.option(
            "--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines of a Slurm job."
        ),
    ):
        command = option(command)
    return command


def wanted_of(launcher: str, gpus: str, nodes: int, partition: str, time: str, more: tuple[str, ...]) -> Wanted | None:
    """Return what a job shall ask for; None without ``--launcher slurm``.

    Raises:
        UsageFault: an option of Slurm's stands without it, or the number of GPUs cannot be known here.
    """
    from cissod_bench.launching.ranks import process_count
    from cissod_bench.launching.slurm import Wanted

    if launcher != "slurm":
        given = {"--nodes": nodes > 1, "--partition": partition, "--time": time, "--slurm": more}
        for name, value in given.items():
            if value:
                raise UsageFault(f"{name} is an option of a Slurm job.", remedy="add --launcher slurm, or leave it out")
        return None
    if gpus == "auto":
        raise UsageFault("--gpus auto counts the GPUs of this machine, not the cluster's.", remedy="write --gpus 8")
    return Wanted(nodes, process_count(gpus), partition, time, more)


def submit_run(output: Output, folder: Path, work_dir: Path, wanted: Wanted, words: Sequence[str]) -> dict[str, Any]:
    """Submit a run, say how it is followed and stopped, and return what --json prints.

    Args:
        output: takes the lines.
        folder: of the run.
        work_dir: below which the job's log is written.
        wanted: what the job asks for.
        words: the command line behind the program's name.

    Raises:
        UsageFault: a job works on the run already.
        EnvironmentFault: there is no Slurm, or it refuses the job.
    """
    from cissod_bench.launching import slurm
    from cissod_bench.launching.child import run_command
    from cissod_bench.launching.job import Work
    from cissod_bench.launching.ranks import without_own_options

    there = slurm.alive(work_dir).get(folder.resolve())
    if there is not None:
        raise UsageFault(
            f"Job {there.id} is {there.state} for this run already; its log: {there.log}.",
            remedy=f"wait for it, or stop it first: scancel {there.id}",
        )
    work = Work(run_command(without_own_options(words)), folder.resolve())
    (number,) = slurm.submit([work], wanted, work_dir / slurm.FOLDER, name="cissod-bench run")
    slurm.note(work_dir, [folder], [number])
    log = slurm.log_of(work_dir, number)
    output.tell(f"Submitted as job {number}, {wanted.processes} processes on {wanted.nodes} machines")
    output.say(f"  log         {log}")
    output.say(f"  state       squeue -j {number}; it is queued again until the run is done")
    output.say(f"  stop        scancel {number}; the same command continues")
    return {"dir": str(folder), "job": number, "log": str(log)}


def jobs_told(output: Output, jobs: Sequence[tuple[str, Job]]) -> None:
    """Print the title, number and log of jobs."""
    for title, job in jobs:
        output.tell(f"{title}: {job}, {job.state}; its log: {job.log}")
