"""What the commands that use a trained run share: options that name it, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cissod_bench.using.loaded import LoadedRun

run_option = click.option(
    "--run", "folder", type=click.Path(path_type=Path), required=True, help="Run folder; its split must be at hand."
)
checkpoint_option = click.option(
    "--checkpoint", default="last", show_default=True, metavar="last|best|FILE", help="Which one of the run."
)
method_option = click.option("--method", metavar="NAME|FILE.py", help="Of the run.  [default: as its own command says]")
task_option = click.option(
    "--task", "task_name", metavar="NAME|FILE", help="Of the run.  [default: as its own command says]"
)
model_option = click.option(
    "--model",
    type=click.Choice(["teacher", "student"]),
    default="teacher",
    show_default=True,
    help="Whose detections.",
)


def loaded(
    folder: Path,
    checkpoint: str,
    task: str | None,
    method: str | None,
    data_root: Path,
    work_dir: Path,
    *,
    on_cpu: bool = False,
) -> LoadedRun:
    """Return a run with its detector, on the GPU where there is one.

    Args:
        folder: of the run.
        checkpoint: "last", "best" or a file.
        task: a name or file; None takes that of the run's own command.
        method: likewise.
        data_root: where data sets lie.
        work_dir: where the split lies, unless it lies beside the run.
        on_cpu: take the CPU all the same.
    """
    from cissod_bench.running.assembly import pick_device
    from cissod_bench.using.loaded import load_named_run

    return load_named_run(
        folder,
        task=task,
        method=method,
        name=checkpoint,
        data_root=data_root,
        work_dir=work_dir,
        device=None if on_cpu else pick_device(),
    )


def folder_name(folder: Path) -> str:
    """Return a name for what is made of a run: method, scale and seed, as its folders say them."""
    return "-".join(folder.resolve().parts[-3:]).strip("/")
