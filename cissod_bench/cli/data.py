"""``cissod-bench data``: is what the sub-tasks need there, and is it sound; labels of other formats as COCO files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.cli.data_convert import convert_command
from cissod_bench.errors import DataFault, UsageFault

if TYPE_CHECKING:
    from cissod_bench.split_folders.data_check import Check, TaskCheck

COLOURS = {"ok": "green", "missing": "yellow", "broken": "bold red"}
_MOST_FOLDERS = 5  # Objects365 has more than fifty
_TURNED = {"apply": " (turned)", "ignore": " (not turned)", "sizes": " (as their sizes fit)"}
_POLICY = {
    "degenerate": "without area",
    "outside": "outside their image",
    "clipped": "reaching out of it",
    "crowd": "crowd regions",
}


@click.group("data", short_help="Check the data of the sub-tasks; convert labels.")
@global_options
def command() -> None:
    """Check the annotation files and images of the sub-tasks, and convert labels. Nothing is downloaded."""


command.add_command(convert_command)


@command.command("check", short_help="Are files and images there, sound, and train and val apart?")
@click.option(
    "--task",
    "names",
    multiple=True,
    metavar="NAME",
    help="A sub-task or a .toml or .py file; repeatable. What it needs must then be there.  [default: every one]",
)
@click.option(
    "--deep", is_flag=True, help="Decode the images instead of listing their folders; takes minutes to hours."
)
@click.option("--sample", type=click.IntRange(min=1), help="With --deep: so many images per folder, spread evenly.")
@data_root_option
@work_dir_option
@global_options
@pass_output
def check(
    output: Output, *, names: tuple[str, ...], deep: bool, sample: int | None, data_root: Path, work_dir: Path
) -> None:
    """Check the data of the sub-tasks: files there, JSON sound, images there, train and val apart.

    Missing files are listed with their official source. They are a failure (exit code 3) only for tasks named by
    --task; broken files always are. Images that one task scores and another one trains on give a warning.
    """
    from cissod_bench.catalogue import list_tasks, load_task
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.cli.file_progress import shown_progress
    from cissod_bench.split_folders.data_check import DataCheck, Depth

    if sample is not None and not deep:
        raise UsageFault("--sample says how many images are decoded.", remedy="add --deep")
    catalogue = [load_task(name) for name in list_tasks()]
    tasks = [find_task(name) for name in dict.fromkeys(names)] or catalogue
    with shown_progress(output) as progress:
        every = DataCheck(data_root, work_dir, others=catalogue, depth=Depth(deep=deep, most=sample), progress=progress)
        found = [every.check(task) for task in tasks]
    for one in found:
        for warning in one.warnings:
            output.warn(warning)
    output.result([_facts(one) for one in found])
    if not output.json:
        _print(found, data_root)
    _judge(found, must_be_there=bool(names))


def _facts(found: TaskCheck) -> dict[str, Any]:
    from dataclasses import asdict

    return {"task": found.task, "state": found.state, **asdict(found)}


def _judge(found: Sequence[TaskCheck], *, must_be_there: bool) -> None:
    """End with a fault if something is broken, or missing that was asked for."""
    broken = [one.task for one in found if one.state == "broken"]
    missing = [one.task for one in found if any(check.missing for check in one.checks)]
    if broken:
        raise DataFault(
            f"The data of {', '.join(broken)} is broken; the faults are listed above.",
            remedy="mend the files and images named there; --deep decodes the images, too",
        )
    if missing and must_be_there:
        raise DataFault(
            f"The data of {', '.join(missing)} is not all there; what is missing is listed above.",
            remedy="fetch it, correct what the task file names, or say with --data-root where data lies",
        )


def _print(found: Sequence[TaskCheck], data_root: Path) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    console = Console()
    table = Table("task", "what", "state", "found", box=None, pad_edge=False)
    for one in found:
        if one.draws_its_own:
            table.add_row(Text(one.task), "", Text("ok", COLOURS["ok"]), Text("draws its own images when it is used"))
        for number, check in enumerate(one.checks):
            table.add_row(
                Text("" if number else one.task),
                Text(f"{check.role} {check.what}"),
                Text(check.state, COLOURS[check.state]),
                Text(_found(check)),
            )
    console.print(table)
    # Below the table and unwrapped, so that a path can be copied in one piece.
    official = any(check.source for one in found for check in one.checks if check.missing)
    missing = f"Missing below {data_root}; official sources" if official else f"Missing (data root: {data_root})"
    for title, lines in (("Broken", _broken(found)), (missing, _missing(found))):
        if lines:
            console.print(Text(f"\n{title}:", style="bold"))
            for line in lines:
                console.print(Text(f"  {line}"), soft_wrap=True)


def _found(check: Check) -> str:
    """Return the counts of a file or folder as text."""
    from cissod_bench.annotations.lenient import WORDS

    counts = check.counts
    if not counts:
        return "the folder is there" if check.state == "ok" else ""
    if check.what == "images":
        told = [f"{counts['named']:,} named"]
        if counts["there"] != counts["named"]:
            told.append(f"{counts['there']:,} to be there")
        if counts["checked"] != counts["there"]:
            told.append(f"{counts['checked']:,} looked at")
        told.append(f"{counts['faulty']:,} at fault")
        if counts.get("oriented"):
            told.append(f"{counts['oriented']:,} with an EXIF orientation{_TURNED.get(check.exif, '')}")
        return ", ".join(told)
    told = [f"{counts[key]:,} {key}" for key in ("images", "boxes", "classes") if key in counts]
    if photographs := counts.get("unlabelled"):
        told[:1] = [f"{counts['images'] - photographs:,} labelled images", f"{photographs:,} photographs"]
    odd = [f"{counts[key]:,} {text}" for key, text in _POLICY.items() if counts.get(key)]
    normalised = [f"{counts[key]:,} {text}" for key, text in WORDS.items() if counts.get(key)]
    return (
        ", ".join(told)
        + (f"; boxes: {', '.join(odd)}" if odd else "")
        + (f"; normalised: {', '.join(normalised)}" if normalised else "")
    )


def _broken(found: Sequence[TaskCheck]) -> list[str]:
    """Return what is wrong, once each: tasks share files."""
    lines: list[str] = []
    for one in found:
        for check in one.checks:
            lines += check.faults
            if check.counts.get("faulty", 0) > len(check.faults):
                lines.append(f"... and {check.counts['faulty'] - len(check.faults):,} more of {check.path}")
        lines += one.faults
    return list(dict.fromkeys(lines))


def _missing(found: Sequence[TaskCheck]) -> list[str]:
    """Return what is not there with its official source, once each."""
    lines: list[str] = []
    for one in found:
        for check in one.checks:
            source = f": {check.source}" if check.source else ""
            lines += [f"{path}{source}" for path in check.missing[:_MOST_FOLDERS]]
            if len(check.missing) > _MOST_FOLDERS:
                lines.append(f"... and {len(check.missing) - _MOST_FOLDERS} more folders below {check.path}")
    return list(dict.fromkeys(lines))
