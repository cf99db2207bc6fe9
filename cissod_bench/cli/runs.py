"""``cissod-bench runs``: the runs that were made, what they take on the disk, and how they travel."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.errors import UsageFault

if TYPE_CHECKING:
    from cissod_bench.keeping.inventory import KeptRun
    from cissod_bench.keeping.unpacking import Unpacked
    from cissod_bench.records.record import RunRecord

_PIPE_WIDTH = 160  # where there is no terminal to ask, no table has to be squeezed

runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), help="Folder above the runs, or one run's.  [default: WORK-DIR/runs]"
)


@click.group("runs", short_help="List, clean, pack and unpack runs.")
@global_options
def command() -> None:
    """List runs, delete the checkpoints of finished ones, and send finished runs to another machine."""


@command.command("list", short_help="All runs with state, AP and size.")
@runs_option
@work_dir_option
@global_options
@pass_output
def list_command(output: Output, *, runs: Path | None, work_dir: Path) -> None:
    """List all runs: how far each is, its AP and what it takes on the disk.

    A run is "running" only while a process works on it; one that was killed is "interrupted".
    """
    found = _inventory(output, runs or work_dir / "runs")
    output.result([_value(kept) for kept in found])
    if not output.shows:
        return
    if not found:
        output.tell(f"There is no run below {runs or work_dir / 'runs'}.")
        return
    _print(found)
    output.tell(_sums(found))


@command.command("clean", short_help="Delete the checkpoints of finished runs.")
@runs_option
@click.option("--yes", is_flag=True, help="Delete without a question.")
@work_dir_option
@global_options
@pass_output
def clean_command(output: Output, *, runs: Path | None, yes: bool, work_dir: Path) -> None:
    """Delete the checkpoints of finished runs; asks first, and says how many bytes that frees.

    Records, logs and predictions stay, so scores, tables and archives are as before. Without its checkpoint a run
    cannot predict anything anew. Runs that are not finished keep theirs: they continue from it.
    """
    from cissod_bench.keeping.inventory import bytes_text, clean

    place = runs or work_dir / "runs"
    ready = [kept for kept in _inventory(output, place) if kept.removable]
    size, files = sum(kept.checkpoint_size for kept in ready), sum(len(kept.checkpoints) for kept in ready)
    freed = 0
    if not ready:
        output.tell(f"There is no checkpoint of a finished run below {place}.")
    else:
        for kept in ready:
            output.say(f"  {bytes_text(kept.checkpoint_size):>8}  {kept.run.folder}")
        _confirm(f"{files} checkpoints of {len(ready)} finished runs, {bytes_text(size)} ({size:,} bytes)", yes)
        freed = clean(ready)
        output.tell(f"Deleted: {bytes_text(freed)} ({freed:,} bytes)")
    output.result({"runs": [str(kept.run.folder) for kept in ready], "bytes": freed})


def _confirm(what: str, yes: bool) -> None:
    """Return if the checkpoints may be deleted.

    Raises:
        UsageFault: the user wants to keep them, or there is nobody to ask.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageFault(
            f"{what}, would be deleted. Nobody can be asked here, so nothing was.",
            remedy="cissod-bench runs clean --yes deletes them without a question",
        )
    if not click.confirm(f"Delete {what}?", default=False, err=True):
        raise UsageFault("Nothing was deleted.", remedy="name one run's folder with --runs to delete less")


@command.command("pack", short_help="Finished runs into one archive.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The archive.  [default: here, named as the run]"
)
@work_dir_option
@global_options
@pass_output
def pack_command(output: Output, *, folder: Path, out: Path | None, work_dir: Path) -> None:
    """Pack the run in DIR, or all finished runs below it, into one archive.

    It holds each run's record, settings, logs and predictions, the manifest of its split, and the hash of every file;
    checkpoints stay. The same runs give the same archive. `runs unpack` checks it on the other machine.
    """
    from cissod_bench.errors import DataFault
    from cissod_bench.keeping.inventory import bytes_text
    from cissod_bench.keeping.packing import pack
    from cissod_bench.records.run_folder import RECORD

    if not folder.is_dir():
        raise DataFault(f"There is no folder {folder}.", remedy="cissod-bench runs list names the folders of all runs")
    runs = [kept.run for kept in _inventory(output, folder)]
    if not (folder / RECORD).is_file():
        unfinished = [run for run in runs if run.record.status != "done"]
        for run in unfinished:
            output.warn(f"{run.folder} is not finished ({run.record.status}) and stays out.")
        runs = [run for run in runs if run not in unfinished]
    alone = runs[0].record if len(runs) == 1 else None
    file = out or Path(f"{_file_name(alone) if alone else folder.resolve().name}.tar.gz")
    packed = pack(runs, file, work_dir)
    for warning in packed.warnings:
        output.warn(f"{warning}: whoever unpacks it cannot score it again.")
    size = file.stat().st_size
    output.tell(f"Written: {file}, {len(packed.places)} runs, {bytes_text(size)}, sha256 {packed.sha256}")
    output.result({"file": str(file), "sha256": packed.sha256, "bytes": size, "runs": list(packed.places)})


def _file_name(record: RunRecord) -> str:
    """Return what the archive of one run is called, without its ending."""
    from cissod_bench.keeping.pack_format import place_of

    return place_of(record).replace("/", "-")


@command.command("unpack", short_help="Check such an archive and score its predictions again.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@data_root_option
@work_dir_option
@global_options
@pass_output
def unpack_command(output: Output, *, file: Path, data_root: Path, work_dir: Path) -> None:
    """Check an archive of `runs pack` and put its runs below WORK-DIR/runs.

    Every file must have its hash and every record its place. Where the validation file of the split is at hand, the
    predictions are scored again and must give the AP of the record. If anything is wrong, nothing is unpacked.
    """
    from cissod_bench.keeping.unpacking import unpack

    unpacked = unpack(file, work_dir, data_root, output.say)
    for one in unpacked:
        output.tell(f"{one.run.folder}: {_told(one)}")
        if one.rescored.why_not:
            output.warn(f"{one.run.folder} was not scored again as a whole: {one.rescored.why_not}.")
    output.result(
        [
            {
                "dir": str(one.run.folder),
                "there": one.there,
                "scored_again": list(one.rescored.models),
                "why_not": one.rescored.why_not,
            }
            for one in unpacked
        ]
    )


def _told(one: Unpacked) -> str:
    words = ["was there already, the same" if one.there else "unpacked", "all hashes right"]
    words += [f"{' and '.join(one.rescored.models)} scored again: the AP of run.json"] * bool(one.rescored.models)
    return ", ".join(words)


def _inventory(output: Output, place: Path) -> list[KeptRun]:
    from cissod_bench.keeping.inventory import inventory

    return inventory(place, on_fault=lambda fault: output.warn(f"Passed over: {fault}"))


def _scores(kept: KeptRun) -> dict[str, float | None]:
    """Return the teacher's AP of all classes and of the last group (min, or r on LVIS), empty where there is none."""
    ap = kept.run.record.ap.get("teacher", {})
    return {name: ap[name] for name in ("all", *list(kept.run.record.groups)[1:][-1:]) if name in ap}


def _print(found: Sequence[KeptRun]) -> None:
    from rich.table import Table

    from cissod_bench.keeping.inventory import bytes_text
    from cissod_bench.terminal import Console, Text

    table = Table("task", "split", "method", "scale", "seed", "state", "AP", "size", "checkpoints")
    for column in (*table.columns[-2:], table.columns[1], table.columns[4]):
        column.justify = "right"
    for kept in found:
        record = kept.run.record
        points = (f"{name} {'-' if value is None else f'{value:.1f}'}" for name, value in _scores(kept).items())
        scale = f"{record.preset}-{record.profile}" + (f"+{record.name}" if record.name else "")
        names = (record.task, str(record.split_seed), kept.name, scale, str(record.seed))
        sizes = bytes_text(kept.size), bytes_text(kept.checkpoint_size) if kept.checkpoints else "-"
        table.add_row(*map(Text, (*names, kept.status, ", ".join(points), *sizes)))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _sums(found: Sequence[KeptRun]) -> str:
    """Return the line below the table: how much all take, and what `runs clean` would free."""
    from cissod_bench.keeping.inventory import bytes_text

    ready = [kept for kept in found if kept.removable]
    words = f"{len(found)} runs, {bytes_text(sum(kept.size for kept in found))}"
    if ready:
        free = bytes_text(sum(kept.checkpoint_size for kept in ready))
        words += f"; `cissod-bench runs clean` would free {free} of checkpoints of {len(ready)} finished runs"
    return words


def _value(kept: KeptRun) -> dict[str, Any]:
    """Return what --json prints of a run."""
    record = kept.run.record
    names = ("task", "method", "variant", "preset", "profile", "split_seed", "seed", "split_sha256", "created", "name")
    return {
        "dir": str(kept.run.folder),
        **{name: getattr(record, name) for name in names},
        "status": kept.status,
        "ap": record.ap,
        "bytes": kept.size,
        "checkpoints": [str(path) for path in kept.checkpoints],
        "checkpoint_bytes": kept.checkpoint_size,
    }
