"""``cissod-bench doctor``: check the installation and print the command that repairs it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cissod_bench.cli.common import Output, global_options, pass_output, work_dir_option
from cissod_bench.errors import EnvironmentFault

if TYPE_CHECKING:
    from cissod_bench.doctor import Check

COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}


@click.command("doctor")
@work_dir_option
@global_options
@pass_output
def command(output: Output, work_dir: Path) -> None:
    """Check the installation: python, torch, mmcv's operators, pretrained weights, versions, memory, disk, port.

    Prints PASS, WARN or FAIL for each, and below the table the command that repairs what is not well. If nothing FAILs,
    it ends with what to do next on this machine, else with exit code 4. --json prints a list of {check, status, detail,
    fix}.
    """
    from cissod_bench.advice import advice, machine_here
    from cissod_bench.doctor import run_checks

    checks = run_checks(work_dir)
    output.result([asdict(check) for check in checks])
    if not output.json:
        _print(checks)
    failed = [check.check for check in checks if check.status == "FAIL"]
    if failed:
        raise EnvironmentFault(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.",
            remedy="the lines below the table say what repairs each; --json has them as fix",
        )
    if output.shows:
        output.say("Next:")
        for line in advice(machine_here()):
            output.say(f"  {line}")


def _print(checks: list[Check]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    console = Console()
    table = Table("check", "status", "found", box=None, pad_edge=False)
    for check in checks:
        table.add_row(Text(check.check), Text(check.status, COLOURS[check.status]), Text(check.detail))
    console.print(table)
    # Below the table and unwrapped, so that a command can be copied in one piece.
    for check in checks:
        if check.fix:
            console.print(Text(f"{check.check}: {check.fix}"), soft_wrap=True)
