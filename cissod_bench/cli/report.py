"""cissod-bench report: runs -> the paper's tables and figures, in the terminal and as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option

if TYPE_CHECKING:
    from cissod_bench.looking.at_hand import Places
    from cissod_bench.records.run_folder import Run
    from cissod_bench.reporting.tables import Report
    from cissod_bench.splitting.manifest import Manifest

FORMATS = ("rich", "md", "latex", "csv", "html", "png", "svg")
_PIPE_WIDTH = 160  # where there is no terminal to ask, no table has to be squeezed


@click.command("report", short_help="Collect runs into tables.")
@click.option("--runs", type=click.Path(path_type=Path), help="Folder above the runs.  [default: WORK-DIR/runs]")
@click.option(
    "--format",
    "formats",
    default="rich,html",
    show_default=True,
    metavar=",".join(FORMATS),
    help='What to make; "rich" is for the terminal, "latex" are booktabs tables, "png" and "svg" figures, for print.',
)
@click.option("--all-tables", is_flag=True, help="Also the paper's Tables 1-3 for which nothing ran.")
@click.option("--all", "all_rows", is_flag=True, help="Also the methods for which nothing ran, as rows of dashes.")
@click.option("--pictures/--no-pictures", default=True, help="Whether predictions and images are looked at.")
@click.option("--out", type=click.Path(path_type=Path), help="Where files go.  [default: WORK-DIR/reports]")
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    /,
    *,
    runs: Path | None,
    formats: str,
    all_tables: bool,
    all_rows: bool,
    pictures: bool,
    out: Path | None,
    data_root: Path,
    work_dir: Path,
) -> None:
    """Collect runs into the paper's tables and figures: mean ± std over seeds, the paper's numbers beside them.

    Where predictions, the validation file and images are at hand, the page also shows what detectors saw: pictures,
    types of errors, confusions.
    """
    from dataclasses import replace

    from cissod_bench.catalogue import list_reports
    from cissod_bench.errors import DataFault
    from cissod_bench.files.whole_files import write_bytes
    from cissod_bench.looking.at_hand import Places
    from cissod_bench.records.run_folder import find_runs
    from cissod_bench.rendering.formats import render_files

    chosen = _formats(formats)
    place = runs or work_dir / "runs"
    met = find_runs(place, on_fault=lambda fault: output.warn(f"Passed over: {fault}"))
    if not met:
        raise DataFault(
            f"{place}: there is no run to report on.", remedy="cissod-bench run --method soft-teacher --task toy"
        )
    splits = _splits(output, work_dir)
    places = Places(data_root, work_dir) if pictures else None
    reports = sorted((_built(name, met, splits, places) for name in list_reports()), key=lambda report: report.order)
    if not all_rows:
        reports = [replace(report, tables=tuple(table.with_numbers() for table in report.tables)) for report in reports]
    if all_tables:
        reports = [replace(report, tables=report.tables + report.blank, blank=()) for report in reports]
    files = render_files(reports, met, chosen)
    folder = out or work_dir / "reports"
    for file, data in files.items():
        write_bytes(folder / file, data)
    if "rich" in chosen and not output.json:
        _print(reports, met)
    for line in _told(folder, list(files), any(figure.files for report in reports for figure in report.figures)):
        output.tell(line)
    output.result(_value(reports, [folder / file for file in files]))


def _built(name: str, runs: list[Run], splits: list[Manifest], places: Places | None) -> Report:
    """Return a report; one that looks at predictions and images is told where they lie."""
    from inspect import signature

    from cissod_bench.catalogue import load_report

    build = load_report(name)
    more = {"places": places} if "places" in signature(build).parameters else {}
    report: Report = build(runs, splits, **more)
    return report


def _told(folder: Path, files: list[str], drawn: bool) -> list[str]:
    """Return a line per file and one for all figures, or how to have them where there are some."""
    figures = [file for file in files if "/" in file]
    lines = [f"Written: {folder / file}" for file in files if "/" not in file]
    if figures:
        return [*lines, f"Written: {len(figures)} files of figures below {(folder / figures[0]).parent}"]
    return [*lines, "Figures for print: --format svg,png"] if drawn else lines


def _splits(output: Output, work_dir: Path) -> list[Manifest]:
    """Return the manifests of the splits below the work folder; those that cannot be read are named."""
    from cissod_bench.split_folders.listing import find_splits

    manifests = []
    for split in find_splits(work_dir):
        if split.manifest is None:
            output.warn(f"Passed over: {split.fault}")
        else:
            manifests.append(split.manifest)
    return manifests


def _formats(text: str) -> list[str]:
    """Return the formats asked for.

    Raises:
        UsageFault: one of them does not exist.
    """
    from cissod_bench.errors import unknown_name

    chosen = [name.strip() for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in FORMATS:
            raise unknown_name("report format", name, FORMATS)
    return chosen


def _print(reports: list[Report], runs: list[Run]) -> None:
    from cissod_bench.rendering.formats import notes_once
    from cissod_bench.rendering.terminal import print_rich
    from cissod_bench.reporting.departures import departures
    from cissod_bench.terminal import Console

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for report in notes_once(reports):
        print_rich(report, console)
    most = max((len(departed.settings) for departed in departures(runs)), default=0)
    if most:
        console.print(
            f"Settings that are not the paper's: up to {most} per run; report.html and --format md list them."
        )


def _value(reports: list[Report], written: list[Path]) -> dict[str, Any]:
    """Return what --json prints: every cell, the runs left out, the files."""
    from cissod_bench.rendering.formats import plain_records

    return {
        "reports": {
            report.name: [line for frame in report.numbers for line in plain_records(frame)] for report in reports
        },
        "unfinished": [
            {"dir": str(run.folder), "status": run.record.status} for report in reports for run in report.unfinished
        ],
        "files": list(map(str, written)),
    }
