"""cissod-bench export: a run's detector as files of other programs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
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
from cissod_bench.errors import DataFault, EnvironmentFault

if TYPE_CHECKING:
    from cissod_bench.using.exporting import Exported
    from cissod_bench.using.loaded import LoadedRun
    from cissod_bench.using.photographs import Photographs

_LOOKED_AT = 8  # images on which an export is compared, if none are named


@click.command("export", short_help="Write a run's detector for other programs.")
@run_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["mmdet", "onnx", "torchscript", "safetensors"]),
    required=True,
    help="mmdet: a config and a checkpoint for init_detector.",
)
@click.option(
    "--images",
    "place",
    metavar="FOLDER|'GLOB'",
    help=f"Images on which the export is compared with the run.  [default: the first {_LOOKED_AT} of val, if at hand]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write.  [default: exports/TASK/RUN/FORMAT in --work-dir]",
)
@model_option
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
    form: str,
    place: str | None,
    out: Path | None,
    model: str,
    checkpoint: str,
    method: str | None,
    task_name: str | None,
    data_root: Path,
    work_dir: Path,
) -> None:
    """Write a run's detector as files that work without cissod-bench, and compare what they find.

    mmdet: detector.py and detector.pth, which stock mmdet's init_detector loads; a backbone of timm and the scores of
    EQLv2 come as plugin modules beside them. onnx and torchscript: one file that takes a resized image of any size and
    gives boxes, labels and scores; safetensors: the weights under mmdet's names, with settings and classes in the
    header. The last three have detector.json beside them, which says what goes in and comes out.

    What was written is run on a few images and has to find what the run's own detector finds: mmdet in a process that
    cannot import cissod-bench, onnx by onnxruntime. Weights alone (safetensors) are not compared.
    """
    from cissod_bench.extras import require_training

    require_training("export")
    from cissod_bench.using.exporting import FORMATS, export

    run = loaded(folder, checkpoint, task_name, method, data_root, work_dir, on_cpu=True)
    images = _images(run, place)
    target = out or work_dir / "exports" / run.record.task / folder_name(folder) / form
    chosen = next(name for name in FORMATS if name == form)
    done = export(run, chosen, target, images, teacher=model == "teacher")
    _tell(output, done, form)


def _images(run: LoadedRun, place: str | None) -> Photographs | None:
    """Return the images that the export is compared on, None where there are none."""
    from cissod_bench.using.photographs import photographs

    if place is not None:
        return photographs(place, run.reading)
    with suppress(DataFault):
        return photographs(str(run.plan.images["val"]), run.reading, most=_LOOKED_AT, within=run.plan.data_root)
    return None


def _tell(output: Output, done: Exported, form: str) -> None:
    """Print what was written and how near it is.

    Raises:
        EnvironmentFault: it does not find what the run finds.
    """
    agreement = done.agreement
    value = None if agreement is None else {**asdict(agreement), "holds": agreement.holds}
    output.result({"files": [str(path) for path in done.paths], "agreement": value})
    if output.shows:
        for path in done.paths:
            output.tell(f"Written: {path}")
        if agreement is not None and not (agreement.boxes or agreement.more):
            told = f"neither finds anything on the {agreement.images} images"
            output.tell(f"Not compared: {told}; --images FOLDER names others.")
        elif agreement is not None:
            output.tell(f"Compared: {agreement.words}.")
        elif form != "safetensors":
            output.tell("Not compared: there are no images of val at hand; --images FOLDER names others.")
    if agreement is not None and not agreement.holds:
        raise EnvironmentFault(
            f"What was exported does not find what the run finds: {agreement.words}.",
            remedy="do not use these files; --images FOLDER shows whether it is so on other images, too",
        )
