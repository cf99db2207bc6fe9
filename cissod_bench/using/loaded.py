"""The detector of a recorded run, without the images that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cissod_bench.annotations.reading import read_annotations
from cissod_bench.contract.method import Method, parts_of
from cissod_bench.contract.parts import Context
from cissod_bench.contract.presets import resolved
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import DataFault
from cissod_bench.files.orientation import AS_STORED, Reading
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import read_record
from cissod_bench.running.assembly import facts_of, sources
from cissod_bench.running.plan import Plan
from cissod_bench.running.rescoring import check_named, checkpoint_of, named_parts, read_for_use, recorded_settings
from cissod_bench.split_folders.ensure import task_data_root
from cissod_bench.splitting.data_files import LABELLED
from cissod_bench.splitting.manifest import read_manifest, split_folder
from cissod_bench.splitting.task import Task
from cissod_bench.training import checkpoint
from cissod_bench.training.predict import labelled_images


@dataclass(frozen=True)
class LoadedRun:
    """A run whose detector is ready to predict.

    Attributes:
        plan: of the run; its settings are those of the run, in full precision.
        record: its run.json.
        file: the checkpoint.
        iteration: of the checkpoint.
        detector: student and teacher, with the method's parts.
        model: mmdet settings that the detector was built from, before a method changed them.
        category_ids: of every channel, in the split's files.
    """

    plan: Plan
    record: RunRecord
    file: Path
    iteration: int
    detector: SemiSupervisedDetector
    model: dict[str, Any]
    category_ids: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes in channel order."""
        return self.plan.classes

    @property
    def reading(self) -> Reading:
        """How images are turned: stored as they are where the run read its scored images so, else as viewers do."""
        return AS_STORED if self.record.exif.get("val") == "ignore" else Reading(apply=True)


def work_dirs(folder: Path, work_dir: Path) -> list[Path]:
    """Return the work folders that a run's split may lie in: the one named, and that which holds the run.

    Args:
        folder: of the run.
        work_dir: as the user gave it.
    """
    return [work_dir, *folder.resolve().parents[5:6]]


def recorded_plan(
    record: RunRecord, folder: Path, task: Task, method: Method, *, data_root: Path, work_dir: Path
) -> Plan:
    """Return the plan of a recorded run from its split's folder; no image and no annotation file need be there.

    Args:
        record: of the run.
        folder: of the run.
        task: of the run.
        method: of the run.
        data_root: where data sets would lie.
        work_dir: where the split lies, unless it lies beside the run.

    Raises:
        UsageFault: task or method are not those of the run.
        DataFault: the split of the run is not there.
    """
    check_named(record, folder, task, method)
    for work in work_dirs(folder, work_dir):
        split = split_folder(work, task.name, record.split_seed)
        if split.is_dir() and (manifest := read_manifest(split)).split_sha256 == record.split_sha256:
            break
    else:
        raise DataFault(
            f"The split of {folder} ({record.task}, split seed {record.split_seed}) lies in none of "
            f"{', '.join(str(work) for work in work_dirs(folder, work_dir))}.",
            remedy="pass the --work-dir that the run was started with, or copy the split's folder from there, too",
        )
    root = task_data_root(task, data_root, work)
    return Plan(
        task=task,
        method=method,
        variant=record.variant,
        preset=record.preset,
        profile=record.profile,
        split_seed=record.split_seed,
        seed=record.seed,
        settings=recorded_settings(record, resolved(task, record.preset)),
        split=split,
        manifest=manifest,
        val=root / manifest.val.path,
        images={role: root / path for role, path in task.images.items()},
        folder=folder,
        data_root=data_root,
    )


def load_run(
    folder: Path,
    task: Task,
    method: Method,
    *,
    name: str = "last",
    data_root: Path,
    work_dir: Path,
    device: torch.device | None = None,
) -> LoadedRun:
    """Return a run with its detector, as a checkpoint holds it.

    Args:
        folder: of the run.
        task: of the run.
        method: of the run.
        name: of the checkpoint: "last", "best" or a file.
        data_root: where data sets would lie.
        work_dir: where the split lies, unless it lies beside the run.
        device: of the detector; None is the CPU.

    Raises:
        UsageFault: task, method or checkpoint are not those of the run.
        DataFault: record, checkpoint or split are missing or not sound.
    """
    record = read_record(folder)
    plan = recorded_plan(record, folder, task, method, data_root=data_root, work_dir=work_dir)
    file = checkpoint_of(folder, name)
    with read_for_use(folder):
        state = checkpoint.read_own(file, plan.identity())
    plan = replace(plan, settings=replace(plan.settings, amp="off"))
    model = built_from(plan.settings, plan.classes, record.backbone)
    labelled, unlabelled = sources(plan, at_hand=False)
    parts = parts_of(plan.method, facts_of(plan, labelled, unlabelled))
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and then overwritten
        detector = SemiSupervisedDetector(model, parts, plan.settings, plan.groups, plan.classes)
    parts.begin_run(partial(labelled_images, labelled, plan.settings))
    _fill(detector, plan, state)
    detector.to_device(device or torch.device("cpu")).eval()
    with read_annotations(plan.split / LABELLED, naming=plan.naming) as file_of_split:
        ids = file_of_split.category_ids
    return LoadedRun(plan, record, file, int(state["iteration"]), detector, model, ids)


def load_named_run(
    folder: Path,
    *,
    task: str | None,
    method: str | None,
    name: str = "last",
    data_root: Path,
    work_dir: Path,
    device: torch.device | None = None,
) -> LoadedRun:
    """Return a run with its detector, its task and method found by name.

    Args:
        folder: of the run.
        task: a name or file; None takes that of the run's own command.
        method: likewise.
        name: as for `load_run`, and so are the rest.
        data_root: where data sets would lie.
        work_dir: where the split lies, unless it lies beside the run.
        device: of the detector; None is the CPU.

    Raises:
        UsageFault: task, method or checkpoint are not those of the run.
        DataFault: record, checkpoint or split are missing or not sound.
    """
    its_task, its_method = named_parts(read_record(folder), task, method)
    return load_run(folder, its_task, its_method, name=name, data_root=data_root, work_dir=work_dir, device=device)


def built_from(settings: Settings, classes: Sequence[str], backbone: dict[str, Any]) -> dict[str, Any]:
    """Return mmdet settings of a run's detector; without pretrained weights, which a checkpoint holds.

    Args:
        settings: of the run.
        classes: names of the foreground classes.
        backbone: what the record says of the pretrained backbone, {} where there was none.
    """
    model = faster_rcnn(settings, len(classes), kind=backbone.get("kind"))
    model["backbone"].pop("init_cfg", None)
    return model


def _fill(detector: SemiSupervisedDetector, plan: Plan, state: dict[str, Any]) -> None:
    """Put a checkpoint's weights and the method's state into a detector."""
    place = checkpoint.position_of(state)
    settings = plan.settings
    context = Context(place.iteration, settings.iterations, place.generation, settings.generations, place.stage)
    for model, name in ((detector.student, "student"), (detector.teacher, "teacher")):
        detector.parts.enter_stage(model, context)
        model.load_state_dict(state[name])
    detector.requires_grad_(False)
    detector.parts.load_state_dict(state["parts"])
    detector.parts.after_load_checkpoint(state["parts_extra"])
