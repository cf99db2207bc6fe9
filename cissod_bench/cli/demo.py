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
    "--method", "method_name", default="soft-teacher", show_default=True, metavar="NAME", help="What to train."
)
@work_dir_option
@global_options
@pass_output
@click.pass_context
def command(ctx: click.Context, output: Output, *, preset_name: str, method_name: str, work_dir: Path) -> None:
    """Draw the toy task, train a method on it, score it and write the report: four commands, shown as they run.

    Needs no data and no GPU. A demo that was stopped continues where it was.
    """
    from cissod_bench.cli import evaluate, make_splits, report, run
    from cissod_bench.runs import PREDICTIONS, RECORD, run_folder

    begun = time.perf_counter()
    folder = run_folder(work_dir, "toy", 0, method_name, "", preset_name, "default", 0)
    split = work_dir / "splits" / "toy" / "seed0"
    work = ("--work-dir", str(work_dir))
    steps: tuple[tuple[click.Command, tuple[str, ...]], ...] = (
        (make_splits.command, ("--task", "toy", *work)),
        (run.command, ("--task", "toy", "--method", method_name, "--preset", preset_name, *work)),
        (evaluate.command, ("--predictions", str(folder / PREDICTIONS), "--split", str(split), *work)),
        (report.command, work),
    )
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
        record = json.loads((folder / RECORD).read_bytes())
        output.result({"run": {"dir": str(folder), **record}, "report": str(work_dir / "reports" / "report.html")})
