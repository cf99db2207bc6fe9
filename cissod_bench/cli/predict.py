"""cissod-bench predict: what a run's detector finds on photographs, as COCO results and as pictures."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cissod_bench.cli.common import Output, data_root_option, global_options, pass_output, work_dir_option
from cissod_bench.cli.trained_run import (
    checkpoint_option,
    folder_name,
    loaded,
    method_option,
    model_option,
    run_option,
    task_option,
)
from cissod_bench.errors import DataFault, UsageFault

if TYPE_CHECKING:
    from cissod_bench.scoring.score_thresholds import ClassThreshold
    from cissod_bench.using.loaded import LoadedRun
    from cissod_bench.using.predicting import Predicted


@click.command("predict", short_help="Detect on photographs with a trained run.")
@run_option
@click.option(
    "--images", "place", required=True, metavar="FOLDER|'GLOB'", help="Photographs: a folder, or a pattern in quotes."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write.  [default: predictions/TASK/RUN/IMAGES in --work-dir]",
)
@click.option("--pictures", is_flag=True, help="Also draw the boxes into copies of the images.")
@click.option(
    "--threshold",
    metavar="SCORE|per-class",
    help="Keep detections from this score on; per-class picks the best F1 of each class on val.  [default: all "
    "are written, those from 0.5 on are drawn]",
)
@model_option
@click.option("--strict", is_flag=True, help="End at the first image that cannot be read instead of leaving it out.")
@checkpoint_option
@method_option
@task_option
@data_root_option
@work_dir_option
@global_options
@pass_output
def command(
    output: Output,
    folder: Path,
    place: str,
    out: Path | None,
    pictures: bool,
    threshold: str | None,
    model: str,
    strict: bool,
    checkpoint: str,
    method: str | None,
    task_name: str | None,
    data_root: Path,
    work_dir: Path,
) -> None:
    """Detect on the images of a folder or pattern, which need no annotations.

    Written are detections.json.gz (COCO results), images.json (ids, names and sizes of the images, and the categories)
    and, with --threshold per-class, thresholds.json, which are picked on the run's saved predictions on val.

    Images that cannot be read are named and left out, unless --strict is given; if none can be read, nothing is
    written. Files with other suffixes than those of images are passed over. Photographs are turned as their EXIF
    orientation says, unless the run's own images were not.
    """
    from cissod_bench.extras import require_training

    require_training("predict")
    from cissod_bench.using.photographs import Skipped, photographs
    from cissod_bench.using.predicting import Prediction, limits_of, thresholds_record

    def skip(image: Skipped) -> None:
        if strict:
            raise DataFault(image.reason, remedy="mend or remove the image, or leave --strict out")
        output.warn(f"Left out: {image.reason}")

    fixed = _score(threshold, checkpoint)
    run = loaded(folder, checkpoint, task_name, method, data_root, work_dir)
    picked = _picked(run, model, data_root, work_dir) if threshold == "per-class" else None
    images = photographs(place, run.reading, skip)
    target = out or work_dir / "predictions" / run.record.task / folder_name(folder) / _name(place)
    from cissod_bench.running.progress import Bar

    with Bar("predict", len(images.source), stream=sys.stderr, quiet=output.verbosity < 0) as bar:
        limits = limits_of(run, picked[0] if picked else fixed)
        prediction = Prediction(run, images, teacher=model == "teacher", limits=limits, skip=skip, progress=bar.advance)
        thresholds = thresholds_record(*picked) if picked else None
        done = prediction.write(target, pictures=pictures, thresholds=thresholds)
    _tell(output, done, images.passed_over, picked[0] if picked else None)


def _score(threshold: str | None, checkpoint: str) -> float | None:
    """Return the number that --threshold names, None where it names none.

    Raises:
        UsageFault: it is neither a score nor per-class, or it is per-class for a checkpoint that was not scored.
    """
    from cissod_bench.scoring.score_thresholds import require_score

    if threshold == "per-class" and checkpoint != "last":
        raise UsageFault(
            "Thresholds per class are picked on the saved predictions, which are those of the last checkpoint.",
            remedy="leave --checkpoint out, or give one --threshold for all classes",
        )
    if threshold is None or threshold == "per-class":
        return None
    value: float | str = threshold
    with suppress(ValueError):
        value = float(threshold)
    require_score(value, remedy="--threshold 0.5, or --threshold per-class")
    return float(value)


def _picked(run: LoadedRun, model: str, data_root: Path, work_dir: Path) -> tuple[dict[str, ClassThreshold], Path]:
    """Return class name -> threshold, and the file that they were picked on.

    Raises:
        DataFault: the saved predictions or the validation file are not there.
    """
    from cissod_bench.records import run_folder as runs
    from cissod_bench.scoring.score_thresholds import pick_thresholds
    from cissod_bench.split_folders.listing import scored_file

    saved = run.plan.folder / (runs.PREDICTIONS if model == "teacher" else runs.STUDENT_PREDICTIONS)
    if not saved.is_file():
        raise DataFault(
            f"{saved} is missing: the run has not been scored yet.",
            remedy="repeat the run's own command, or give one --threshold for all classes",
        )
    _, val = scored_file(run.plan.split, data_root, work_dir)
    if val is None:
        raise DataFault(
            f"The validation file {run.plan.val}, on which thresholds are picked, is not at hand.",
            remedy="pass the --data-root that the run was started with, or give one --threshold for all classes",
        )
    return pick_thresholds(val, saved, metric=run.plan.task.metric), val


def _name(place: str) -> str:
    """Return a folder's name for predictions on a place."""
    parts = [part for part in Path(place).resolve().parts if not set(part) & set("*?[")]
    return parts[-1].strip("/.") or "images"


def _tell(output: Output, done: Predicted, passed_over: int, picked: dict[str, ClassThreshold] | None) -> None:
    output.result(
        {
            "dir": str(done.folder),
            "images": done.images,
            "boxes": dict(done.boxes),
            "skipped": [{"name": image.name, "reason": image.reason} for image in done.skipped],
            "thresholds": None if picked is None else {name: own.threshold for name, own in picked.items()},
        }
    )
    if not output.shows:
        return
    from rich.table import Table

    from cissod_bench.terminal import Console, name_text

    table = Table("class", "detections", *(("kept from score", "F1 on val") if picked else ()))
    for name, number in done.boxes.items():
        own = picked[name] if picked else None
        f1 = "-" if own is None or own.f1 is None else f"{own.f1:.2f}"
        table.add_row(name_text(name), f"{number:,}", *((f"{own.threshold:.2f}", f1) if own else ()))
    Console().print(table)
    skipped = f", {len(done.skipped)} left out because they cannot be read" if done.skipped else ""
    others = f", {passed_over} other files passed over" if passed_over else ""
    output.tell(f"{done.images:,} images{skipped}{others}")
    output.tell(f"Written: {done.folder}")
