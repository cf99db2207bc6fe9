"""cissod-bench show: a page with pictures of a split before training, or of what a run saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option

if TYPE_CHECKING:
    from cissod_bench.looking.at_hand import Places
    from cissod_bench.records.run_folder import Run
    from cissod_bench.reporting.tables import Report


@click.command("show", short_help="Look at the boxes of a split, or at what a run saw.")
@click.argument("place", metavar="TASK|SPLIT|RUN")
@click.option("--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which split of TASK.")
@click.option("--images", type=click.IntRange(1, 500), default=24, show_default=True, help="Of a split: labelled ones.")
@click.option("--out", type=click.Path(path_type=Path), help="The page.  [default: WORK-DIR/reports/show_….html]")
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output, *, place: str, split_seed: int, images: int, out: Path | None, data_root: Path, work_dir: Path
) -> None:
    """Write one page of pictures.

    Of a split (a task's name, its file, or a split's folder): labelled, unlabelled and scored images with their boxes,
    some of every class, before any training. Of a run's folder: what it found, missed and mistook, as in report.html.
    """
    from cissod_bench.files.whole_files import write_bytes
    from cissod_bench.looking.at_hand import Places, split_at_hand
    from cissod_bench.looking.split_pictures import UNKNOWN, split_report
    from cissod_bench.records.run_folder import RECORD
    from cissod_bench.rendering.page import render_html
    from cissod_bench.split_folders.listing import find_split

    places = Places(data_root, work_dir)
    runs: list[Run] = []
    if (Path(place) / RECORD).is_file():
        report, runs, name, heading = _run_report(Path(place), places)
    else:
        hand = split_at_hand(find_split(place, split_seed, work_dir), places)
        report, name = split_report(hand, images), f"{hand.manifest.task}_split{hand.manifest.split_seed}"
        heading = f"{hand.manifest.title}, split seed {hand.manifest.split_seed}"
    path = out or work_dir / "reports" / f"show_{name}.html"
    write_bytes(path, render_html([report], runs, heading).encode())
    for note in report.notes:
        (output.say if note == UNKNOWN else output.warn)(note)
    output.tell(f"Written: {path}")
    output.result({"file": str(path), "notes": list(report.notes)})


def _run_report(folder: Path, places: Places) -> tuple[Report, list[Run], str, str]:
    """Return what a run saw, the run, what its page is called and its heading."""
    from dataclasses import replace

    from cissod_bench.catalogue import load_report
    from cissod_bench.errors import DataFault
    from cissod_bench.figures.drawing import safe_stem
    from cissod_bench.looking.at_hand import run_at_hand
    from cissod_bench.records.run_folder import Run, read_record
    from cissod_bench.reporting.averaging import is_scored, method_words, run_words

    record = read_record(folder)
    if not is_scored(record):
        raise DataFault(
            f"{folder}: the run is {record.status} and has no scores yet, so there is nothing to look at.",
            remedy="cissod-bench run with the run's own options continues it",
        )
    run = Run(folder, replace(record, method=method_words(record), variant=""))
    hand = run_at_hand(run, places)
    report: Report = load_report("looking")([run], [] if hand is None else [hand.manifest], places=places)
    words = f"{method_words(record)}_{record.task}_split{record.split_seed}_seed{record.seed}"
    return report, [Run(folder, record)], safe_stem(words), run_words(record)
