"""cissod-bench check-method: is a method ready for the tables?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cissod_bench.cli.common import Output, global_options, pass_output, work_dir_option
from cissod_bench.errors import BenchError

if TYPE_CHECKING:
    from cissod_bench.exam.desk import Desk
    from cissod_bench.exam.outcome import Outcome


@click.command("check-method", short_help="Examine a method, by name or file.")
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE.py...")
@click.option(
    "--quick", is_flag=True, help="8 iterations of a tiny detector on 46 images, instead of 20 on the toy task."
)
@click.option(
    "--ranks", type=click.Path(path_type=Path), hidden=True, help="Be one of two ranks at this folder's desk."
)
@work_dir_option
@global_options
@pass_output
def command(output: Output, /, *, names: Sequence[str], quick: bool, ranks: Path | None, work_dir: Path) -> None:
    """Examine methods on the toy task: declaration, training, resume, state, hidden boxes, two processes, cost.

    Everything runs on the CPU, at the scale of the preset smoke and with thresholds that let pseudo labels through.
    Only data/toy below --work-dir is kept. Ends with exit code 1 if a check fails.
    """
    if ranks is not None:
        from cissod_bench.exam.ranks import sit_as_rank

        sit_as_rank(names, _desk(ranks, work_dir, quick))
        return
    from cissod_bench.extras import require_training

    require_training("check-method")
    from cissod_bench.catalogue.method_files import find_method
    from cissod_bench.exam.sitting import examine

    methods = {name: find_method(name) for name in names}  # before the toy task is drawn
    with tempfile.TemporaryDirectory(prefix="cissod-exam-") as scratch:
        words = ["check-method", "--ranks", scratch, "--work-dir", str(work_dir), *["--quick"] * quick]
        found = examine(methods, _desk(Path(scratch), work_dir, quick), words, output.say)
    _show(output, list(methods), found)


def _desk(scratch: Path, work_dir: Path, quick: bool) -> Desk:
    from cissod_bench.exam.desk import quick_desk, usual_desk

    return quick_desk(scratch) if quick else usual_desk(scratch, work_dir)


def _show(output: Output, names: Sequence[str], found: Sequence[Sequence[Outcome]]) -> None:
    """Print a table per method.

    Raises:
        BenchError: a check failed.
    """
    from cissod_bench.exam.outcome import CHECKS

    failed = [
        (name, one) for name, outcomes in zip(names, found, strict=True) for one in outcomes if one.status == "FAIL"
    ]
    output.result(
        [
            {
                "method": name,
                "passed": all(one.status != "FAIL" for one in outcomes),
                "checks": [{**asdict(one), "asks": CHECKS[one.check]} for one in outcomes],
            }
            for name, outcomes in zip(names, found, strict=True)
        ]
    )
    if not output.json:
        for name, outcomes in zip(names, found, strict=True):
            _print(name, outcomes)
    if failed:
        name, first = failed[0]
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise BenchError(
            f"{name} fails the check {first.check!r}{others}: {CHECKS[first.check]}.",
            remedy="the contract stands in cissod_bench/contract/parts.py and method.py",
        )


def _print(name: str, outcomes: Sequence[Outcome]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    colours = {"PASS": "green", "FAIL": "bold red", "-": "dim"}
    table = Table(escape(name), "", "found")
    for one in outcomes:
        table.add_row(one.check, Text(one.status, style=colours[one.status]), Text(one.detail))
    Console().print(table)
