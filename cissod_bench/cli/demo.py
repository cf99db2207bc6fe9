"""cissod-bench demo: from nothing to a table on the toy task."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import click

from cissod_bench.cli.common import Output, global_options, pass_output, work_dir_option


@click.command("demo", short_help="Toy task from nothing to a table.")
@click.option("--preset", "preset_name", default="mini", show_default=True, metavar="mini|smoke", help="Scale.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=("soft-teacher", "ours"),
    show_default=True,
    metavar="NAME",
    help="What to train; repeatable.",
)
@work_dir_option
@global_options
@pass_output
@click.pass_context
def command(ctx: click.Context, output: Output, *, preset_name: str, methods: tuple[str, ...], work_dir: Path) -> None:
    """Draw the toy task, train Soft Teacher and the paper's method on it, score them and write the report.

    The commands are shown as they run. Needs no data and no GPU. A demo that was stopped continues where it was.
    """
    from cissod_bench.cli import evaluate, make_splits, report, run
    from cissod_bench.extras import require_training
    from cissod_bench.records.run_folder import PREDICTIONS, RECORD, run_folder

    require_training("demo")
    begun = time.perf_counter()
    methods = tuple(dict.fromkeys(methods))
    folders = [run_folder(work_dir, "toy", 0, name, "", preset_name, "default", 0) for name in methods]
    split = work_dir / "splits" / "toy" / "seed0"
    work = ("--work-dir", str(work_dir))
    steps: list[tuple[click.Command, tuple[str, ...]]] = [(make_splits.command, ("--task", "toy", *work))]
    for name, folder in zip(methods, folders, strict=True):
        steps += [
            (run.command, ("--task", "toy", "--method", name, "--preset", preset_name, *work)),
            (evaluate.command, ("--predictions", str(folder / PREDICTIONS), "--split", str(split), *work)),
        ]
    steps.append((report.command, work))
    shown = Output(
        verbosity=output.verbosity
    )  # with --json the steps' text goes to stderr, the one value is the demo's
    with redirect_stdout(sys.stderr) if output.json else nullcontext():
        for step, arguments in steps:
            shown.say(f"\n$ cissod-bench {step.name} {' '.join(arguments)}")
            with step.make_context(step.name, list(arguments), parent=ctx, obj=shown) as own:
                step.invoke(own)
    output.say(f"\nDone in {time.perf_counter() - begun:.0f} s.")
    if output.json:
        runs = [{"dir": str(folder), **json.loads((folder / RECORD).read_bytes())} for folder in folders]
        output.result({"runs": runs, "report": str(work_dir / "reports" / "report.html")})
