"""The package from Python: what ``import cissod_bench`` offers.

Each function does what the command of its name does and returns it, instead of printing. Nothing heavy is imported
before it is needed: ``draw_split``, ``load_split`` and ``score`` do without torch. A user's mistake raises a fault of
``cissod_bench.errors`` with its remedy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cissod_bench.extras import require_training
from cissod_bench.scoring.evaluate import Scores as Scores
from cissod_bench.scoring.evaluate import score as score
from cissod_bench.scoring.score_thresholds import require_score
from cissod_bench.splitting.data_files import HIDDEN, LABELLED, UNLABELLED
from cissod_bench.splitting.manifest import Manifest, verify

if TYPE_CHECKING:
    from cissod_bench.records.record import RunRecord
    from cissod_bench.using.predicting import Predicted

Place: TypeAlias = str | Path
"""A file or folder."""

FORMULAS = ("gbr", "gbt", "crs")
"""Modules of the paper's equations: weights per class, thresholds per class, copies of images."""


@dataclass(frozen=True)
class DrawnSplit:
    """A split on disk whose files have the hashes of its manifest.

    Attributes:
        folder: where its four files lie.
        manifest: options, counts, groups and hashes.
    """

    folder: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """The hash over its files, to cite it by."""
        return self.manifest.split_sha256

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in channel order."""
        return tuple(self.manifest.classes)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group ("maj", "min", or "f", "c", "r") -> names of its classes."""
        return dict(self.manifest.groups)

    def content(self, part: Literal["labelled", "unlabelled", "hidden"]) -> dict[str, Any]:
        """Return D_l with its boxes, D_u without any, or D_u with its hidden boxes, as COCO's files have them."""
        import msgspec

        names = {"labelled": LABELLED, "unlabelled": UNLABELLED, "hidden": HIDDEN}
        content: dict[str, Any] = msgspec.json.decode((self.folder / names[part]).read_bytes())
        return content


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        folder: where its checkpoint, predictions and log lie.
        record: what its ``run.json`` says.
    """

    folder: Path
    record: RunRecord

    @property
    def ap(self) -> dict[str, float | None]:
        """AP of the teacher in points: "all" and every group; None where it is not defined."""
        return dict(self.record.ap["teacher"])


def draw_split(
    task: Place, *, split_seed: int = 0, data_root: Place = "data", work_dir: Place = "work", **options: Any
) -> DrawnSplit:
    """Draw the split of a task, or return the one that is there; as ``cissod-bench make-splits``.

    Args:
        task: name of a sub-task, or a task file (".toml" or ".py").
        split_seed: the same seed gives the same bytes, on every machine.
        data_root: where data sets lie; only read.
        work_dir: the split is written below ``splits/``.
        options: fields of ``DrawOptions``: ``labelled_percent``, ``min_instances``, ``cover``, ``minority``,
            ``dm_minority``, ``unlabelled_percent``; the others are the task's.

    Raises:
        DataFault: a file is missing or broken, or a split of other data is there.
        UsageFault: there is no such task or option, or a split with other options is there.
        EnvironmentFault: the work folder cannot be written.
    """
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.errors import unknown_name
    from cissod_bench.split_folders.ensure import draw_options, ensure_split
    from cissod_bench.splitting.statements import OPTIONS

    for name in options:
        if name not in OPTIONS:
            raise unknown_name("option of a draw", name, OPTIONS)
    drawn_task = find_task(str(task))
    chosen = draw_options(drawn_task, split_seed=split_seed, **options)
    made = ensure_split(drawn_task, Path(data_root), Path(work_dir), chosen, given=tuple(options))
    return DrawnSplit(made.folder, made.manifest)


def load_split(folder: Place) -> DrawnSplit:
    """Return a split from its folder, after comparing every file with its hash.

    Raises:
        DataFault: a file is missing, or differs from what was drawn.
    """
    return DrawnSplit(Path(folder), verify(Path(folder)))


def train(
    task: Place,
    method: Place = "ours",
    *,
    preset: str | None = None,
    profile: str = "default",
    variant: str = "",
    split_seed: int = 0,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    name: str = "",
    data_root: Place = "data",
    work_dir: Place = "work",
    restart: bool = False,
    quiet: bool = True,
) -> TrainedRun:
    """Train a method in this process and score it; as ``cissod-bench run``, which is for several GPUs, too.

    A finished run is returned as it is, one that was stopped continues. A split that is not there is drawn.

    Args:
        task: name of a sub-task, or a task file (".toml" or ".py").
        method: name of a method, or a file (".py") with METHOD.
        preset: scale ("smoke", "mini", "photo", "fine-tune", "full"); None takes the task's.
        profile: where constants come from: "default", "paper" or "official".
        variant: of the method, "" for the method as it stands.
        split_seed: seed of the draw.
        seed: seed of the training.
        settings: changes, such as ``{"iterations": 500}``; ``cissod-bench presets`` lists all.
        name: of the run, part of its folder; "" takes the settings that differ from the preset's.
        data_root: where data sets lie; only read.
        work_dir: where splits and runs are written.
        restart: forget what an earlier start of the run left.
        quiet: show no progress.

    Raises:
        EnvironmentFault: the packages of the extra ``train`` are missing, or the disk is full.
        UsageFault: a name or setting does not exist, or a seed is out of its range.
        DataFault: the data breaks a rule.
        Interrupted: the run was asked to stop (Ctrl-C); the same call continues it.
    """
    require_training("train")
    from cissod_bench import distributed
    from cissod_bench.catalogue.method_files import find_method
    from cissod_bench.catalogue.task_files import find_task
    from cissod_bench.running.assembly import pick_device
    from cissod_bench.running.plan import make_plan
    from cissod_bench.running.run import execute

    plan = make_plan(
        find_task(str(task)),
        find_method(str(method)),
        data_root=Path(data_root),
        work_dir=Path(work_dir),
        variant=variant,
        preset_name=preset,
        profile=profile,
        split_seed=split_seed,
        seed=seed,
        changes=[f"{key}={value}" for key, value in (settings or {}).items()],
        name=name,
        command=("run", "--task", str(task), "--method", str(method)),
    )
    distributed.start(pick_device())
    try:
        record = execute(plan, restart=restart, say=_silent if quiet else print, quiet=quiet, warn=_warn)
    finally:
        distributed.stop()
    return TrainedRun(plan.folder, record)


def predict(
    run: Place,
    images: Place,
    out: Place,
    *,
    threshold: float | None = None,
    pictures: bool = False,
    checkpoint: str = "last",
    teacher: bool = True,
    task: Place | None = None,
    method: Place | None = None,
    data_root: Place = "data",
    work_dir: Place = "work",
) -> Predicted:
    """Detect on photographs with a trained run and write COCO results; as ``cissod-bench predict``.

    Args:
        run: its folder.
        images: a folder of photographs, a file, or a pattern such as "photos/*.jpg".
        out: ``detections.json.gz`` and ``images.json`` are written into this folder.
        threshold: keep detections from this score on, in [0, 1]; None keeps all.
        pictures: also draw the boxes into copies of the images.
        checkpoint: "last", "best" or a file.
        teacher: the teacher's detections, else the student's.
        task: of the run; None takes what the run was started with.
        method: likewise.
        data_root: where data sets lie.
        work_dir: where the split lies, unless it lies beside the run.

    Returns:
        How many images were looked at, how many boxes of each class were found, which images cannot be read.

    Raises:
        EnvironmentFault: the packages of the extra ``train`` are missing, or ``out`` cannot be written.
        UsageFault: task, method or checkpoint are not those of the run, or the threshold is no score.
        DataFault: run, split or checkpoint are missing or broken, or no image can be read.
    """
    require_training("predict")
    if threshold is not None:
        require_score(threshold, remedy="threshold=0.5; cissod-bench predict --threshold per-class picks one per class")
    from cissod_bench.running.assembly import pick_device
    from cissod_bench.using.loaded import load_named_run
    from cissod_bench.using.photographs import photographs
    from cissod_bench.using.predicting import Prediction, limits_of

    loaded = load_named_run(
        Path(run),
        task=str(task) if task else None,
        method=str(method) if method else None,
        name=checkpoint,
        data_root=Path(data_root),
        work_dir=Path(work_dir),
        device=pick_device(),
    )
    found = photographs(str(images), loaded.reading)
    prediction = Prediction(loaded, found, teacher=teacher, limits=limits_of(loaded, threshold))
    return prediction.write(Path(out), pictures=pictures)


def report(
    runs: Place = "work/runs",
    out: Place | None = None,
    *,
    formats: Collection[str] = ("html",),
    work_dir: Place = "work",
) -> list[Path]:
    """Write the tables of all runs below a folder and return the files; as ``cissod-bench report --no-pictures``.

    A table shows the methods that ran.

    Args:
        runs: any folder above run folders, such as ``results`` of a checkout.
        out: the folder to write into; None takes ``reports`` in the work folder.
        formats: "html", "md", "csv", "latex"; "svg" and "png" are the figures for print.
        work_dir: its splits are compared in the figures.

    Raises:
        DataFault: there is no run.
        UsageFault: there is no such format.
        EnvironmentFault: the folder cannot be written.
    """
    from dataclasses import replace

    from cissod_bench.catalogue import list_reports, load_report
    from cissod_bench.errors import DataFault, unknown_name
    from cissod_bench.files.whole_files import write_bytes
    from cissod_bench.records.run_folder import find_runs
    from cissod_bench.rendering.formats import DRAWN, RENDERERS, render_files
    from cissod_bench.split_folders.listing import find_splits

    for name in formats:
        if name not in (*RENDERERS, *DRAWN):
            raise unknown_name("report format", name, (*RENDERERS, *DRAWN))
    met = find_runs(Path(runs))
    if not met:
        raise DataFault(f"{runs}: there is no run to report on.", remedy="name a folder above run folders")
    splits = [split.manifest for split in find_splits(Path(work_dir)) if split.manifest is not None]
    made = sorted((load_report(name)(met, splits) for name in list_reports()), key=lambda one: one.order)
    reports = [replace(one, tables=tuple(table.with_numbers() for table in one.tables)) for one in made]
    folder = Path(out) if out is not None else Path(work_dir) / "reports"
    files = render_files(reports, met, formats)
    for file, data in files.items():
        write_bytes(folder / file, data)
    return [folder / file for file in files]


def formulas(name: str) -> ModuleType:
    """Return a module of the paper's equations as functions of tensors.

    Args:
        name: "gbr" (Eq. 1-8), "gbt" (Eq. 9) or "crs" (Eq. 10-11).

    Raises:
        UsageFault: there is no such module.
        EnvironmentFault: the packages of the extra ``train`` are missing.
    """
    from cissod_bench.catalogue import load_formulas
    from cissod_bench.errors import unknown_name

    if name not in FORMULAS:
        raise unknown_name("module of formulas", name, FORMULAS)
    require_training(f"formulas of {name}")
    return load_formulas(name)


def _silent(text: str) -> None:
    """Say nothing."""


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, stacklevel=2)
