"""cissod-bench run: plan, train, score, record."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.cli.cost_lines import measure_option
from cissod_bench.cli.slurm import slurm_options
from cissod_bench.errors import UsageFault

if TYPE_CHECKING:
    from cissod_bench.records.record import RunRecord
    from cissod_bench.running.plan import Plan


@click.command("run", short_help="Train a method on a sub-task and score it.")
@click.option(
    "--method", "method_name", required=True, metavar="NAME|FILE.py", help="A row of the tables: cissod-bench methods."
)
@click.option("--task", "task_name", required=True, metavar="NAME|FILE", help="A sub-task, or its .toml or .py file.")
@click.option("--variant", default="", metavar="NAME", help="An ablation of the method.")
@click.option(
    "--preset",
    "preset_name",
    metavar="full|fine-tune|photo|mini|smoke",
    help="Scale.  [default: full; mini for toy tasks, photo for photographs and own data]",
)
@click.option(
    "--profile",
    default="default",
    show_default=True,
    metavar="default|paper|official",
    help="Where constants come from.",
)
@click.option("--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draw.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the training.")
@click.option(
    "--backbone",
    default="",
    metavar="NAME[=FILE]",
    help="resnet18 to resnet101 or timm:NAME, with weights of a file; norm and mean follow.  [default: the preset's]",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option(
    "--name", default="", metavar="NAME", help="Part of the run's folder.  [default: the settings that were changed]"
)
@click.option(
    "--gpus",
    default="1",
    show_default=True,
    metavar="N|auto",
    help="Processes, one per GPU (or CPU); with --launcher slurm on each machine.",
)
@click.option(
    "--launcher",
    type=click.Choice(["none", "pytorch", "slurm"]),
    default="none",
    show_default=True,
    help="pytorch starts --gpus processes here, slurm submits a job; under torchrun, srun or mpirun leave it out.",
)
@slurm_options
@click.option("--resume/--restart", default=True, show_default=True, help="Continue an earlier start or delete it.")
@click.option("--yes", is_flag=True, help="With --restart: delete without a question, however much there is.")
@click.option("--dry-run", is_flag=True, help="Print the plan and what it costs, and stop.")
@measure_option
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    /,
    *,
    task_name: str,
    method_name: str,
    backbone: str,
    resume: bool,
    yes: bool,
    dry_run: bool,
    measure: bool,
    gpus: str,
    launcher: str,
    nodes: int,
    partition: str,
    time: str,
    more: tuple[str, ...],
    **options: Any,
) -> None:
    """Train a method on a sub-task, score teacher and student, and write the run's folder.

    A split that is not there yet is drawn first. The same command continues a run that was stopped.
    """
    from cissod_bench.backbones.named import named_backbone
    from cissod_bench.backbones.weight_files import require_named_file
    from cissod_bench.catalogue.method_files import find_method
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.cli.cost_lines import cost_of_plan
    from cissod_bench.cli.restart import allow_restart
    from cissod_bench.cli.slurm import submit_run, wanted_of
    from cissod_bench.extras import require_training
    from cissod_bench.launching.launchers import rank_variables
    from cissod_bench.launching.ranks import launch, process_count
    from cissod_bench.running.plan import make_plan
    from cissod_bench.signals import follow_agent

    require_training("run")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        follow_agent()
    os.environ.update(rank_variables(os.environ))
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if rank > 0:  # one rank speaks for all
        output.verbosity, output.silent = -1, True
    options["changes"] = (*named_backbone(backbone), *options["changes"])
    wanted = wanted_of(launcher, gpus, nodes, partition, time, more)
    processes = world if world > 1 or launcher == "none" else process_count(gpus) * nodes
    if launcher == "none" and world == 1 and gpus not in ("1", "auto"):
        process_count(gpus)
        raise UsageFault(f"--gpus {gpus} needs somebody to start {gpus} processes.", remedy="add --launcher pytorch")
    task, method = find_task(task_name), find_method(method_name)
    plan = make_plan(task, method, command=sys.argv, say=output.say, **options)
    for line in describe(plan, processes):
        output.say(line)
    if dry_run or processes > world or wanted:  # else told where the run begins
        require_named_file(plan.settings.pretrained)
    if dry_run:
        cost = cost_of_plan(output, plan, processes, options["work_dir"], measure=measure)
        output.result([{"dir": str(plan.folder), "dry_run": True, "cost": cost}])
    elif processes > world or wanted:
        if not resume:
            allow_restart(plan.folder, plan.settings.checkpoint_every, yes=yes, may_ask=True)
        words = [*sys.argv[1:], *([] if resume else ["--yes"])]
        if wanted:
            output.result([submit_run(output, plan.folder, options["work_dir"], wanted, words)])
        else:
            launch(processes, words, plan.folder, result=output.stream)
    else:
        if world > 1:
            output.say(f"  processes   {world}, rank 0 at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
        _train(output, plan, restart=not resume, yes=yes)


def _train(output: Output, plan: Plan, *, restart: bool, yes: bool) -> None:
    """Do the run in this process, as one of its ranks if there are several, and show its result."""
    from cissod_bench import distributed
    from cissod_bench.cli.restart import allow_restart
    from cissod_bench.running import run
    from cissod_bench.running.assembly import pick_device

    distributed.start(pick_device())
    interval, may_ask = plan.settings.checkpoint_every, not distributed.is_distributed()
    try:
        if restart:
            distributed.from_first(lambda: allow_restart(plan.folder, interval, yes=yes, may_ask=may_ask))
        record = run.execute(plan, restart=restart, say=output.say, quiet=output.verbosity < 0, warn=output.warn)
    finally:
        distributed.stop()
    show_result(output, plan, record)
    output.result([result_of(plan, record)])


def describe(plan: Plan, world: int) -> list[str]:
    """Return the plan's lines: images, iterations, batch, learning rate, departures, folder."""
    from cissod_bench.contract.settings import FULL, departures, learning_rate_for
    from cissod_bench.running.plan import images_per_rank
    from cissod_bench.splitting.statements import chosen

    settings, counts = plan.settings, plan.manifest.counts
    other = [f"{name} {there} (the task's {own})" for name, (there, own) in chosen(plan.manifest).items()]
    labelled, unlabelled = images_per_rank(plan)
    rate = learning_rate_for(settings, world)
    missing = departures(settings, task_iterations=plan.task.iterations, world_size=world)
    _, drawn = missing.get("images_per_iteration", (0, 0))
    paper = FULL.reference_images
    seen = ""
    if drawn and plan.preset == "full":
        seen = f", {drawn} where the paper has {paper}: {drawn / paper:.1%} of its images in as many iterations"
    return [
        f"{plan.method.title} on {plan.task.title}, preset {plan.preset}, profile {plan.profile}, "
        f"split seed {plan.split_seed}, training seed {plan.seed}" + (f", name {plan.name}" if plan.name else ""),
        f"  images      D_l {counts['labelled']}, D_u {counts['unlabelled']}, {len(plan.classes)} classes",
        *([f"  split       drawn with {', '.join(other)}"] if other else []),
        f"  iterations  {settings.iterations} in {settings.generations} generations, learning rate {rate:g} "
        f"({settings.optimiser}), divided by 10 after {', '.join(f'{m:.0%}' for m in settings.milestones)}",
        f"  batch       {world} x ({labelled} labelled + {unlabelled} unlabelled) images{seen}",
        f"  departures  {len(missing)} settings differ from the paper's (run.json lists them)",
        f"  folder      {plan.folder}",
    ]


def show_result(output: Output, plan: Plan, record: RunRecord) -> None:
    """Print AP of teacher and student beside the paper's cell, and the run's folder."""
    from rich.table import Table

    from cissod_bench.terminal import Console

    reported = plan.method.reported.get(plan.task.name, {})
    columns = ["all", *(plan.groups if len(plan.groups) > 1 else ())]
    table = Table("AP in points")
    for column in columns:
        table.add_column(column, justify="right")
    for who, numbers in record.ap.items():
        table.add_row(who, *(_points(numbers.get(column)) for column in columns))
    if best := record.best:
        table.add_row(f"best, iteration {best['iteration']}", *(_points(best["ap"]["teacher"].get(c)) for c in columns))
    if reported:
        table.add_row("paper (full scale)", *(_points(reported.get(column)) for column in columns))
    if output.shows:
        Console().print(table)
    if best:
        output.say(
            f"Best: of {best['evaluations']} evaluations on {best['images']:,} of {best['of']:,} images, the teacher's "
            f"by {best['column']}. It was chosen on images that are scored: the headline is the last iteration's."
        )
    output.say(
        f"{record.timings.get('train', 0):.0f} s of training, {record.timings.get('predict', 0):.0f} s of prediction"
    )
    output.tell(f"Run folder: {plan.folder}")


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def result_of(plan: Plan, record: RunRecord) -> dict[str, Any]:
    """Return what --json prints of a run: its folder and run.json's content."""
    from dataclasses import asdict

    return {"dir": str(plan.folder), **asdict(record)}
