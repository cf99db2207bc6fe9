"""A run before it starts: every name and setting checked, its split on disk, its folder named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cissod_bench.annotations.naming import Naming
from cissod_bench.contract.method import Method
from cissod_bench.contract.presets import preset_name_of, require_profile, resolved
from cissod_bench.contract.seeds import require_seed
from cissod_bench.contract.settings import Settings
from cissod_bench.errors import DataFault, UsageFault, unknown_name
from cissod_bench.files.orientation import Reading, exif_of_role, reading_of
from cissod_bench.records.older_records import as_first_written
from cissod_bench.records.record import FREE_SETTINGS
from cissod_bench.records.run_folder import folder_in_use, run_folder
from cissod_bench.records.run_names import check_name, name_of_settings
from cissod_bench.running.trackers import check_installed
from cissod_bench.split_folders import ensure as tasks
from cissod_bench.splitting.manifest import Manifest
from cissod_bench.splitting.task import Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run before it starts: everything it depends on.

    Attributes:
        task, method, variant, preset, profile, split_seed, seed: as in `RunRecord`.
        settings: resolved.
        split: the split's folder.
        manifest: its manifest.
        val: the annotation file that is scored.
        images: role -> image folder: "train" of D_l and D_u, "val" of the scored images, others by an image's ``root``.
        folder: the run's folder.
        command: the command line.
        data_root: where data sets lie; links of images may lead anywhere within it.
        name: as in `RunRecord`.
    """

    task: Task
    method: Method
    variant: str
    preset: str
    profile: str
    split_seed: int
    seed: int
    settings: Settings
    split: Path
    manifest: Manifest
    val: Path
    images: Mapping[str, Path]
    folder: Path
    command: tuple[str, ...] = ()
    data_root: Path | None = None
    name: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes in channel order."""
        return tuple(self.manifest.classes)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group -> names of its classes."""
        return {group: list(names) for group, names in self.manifest.groups.items()}

    @property
    def naming(self) -> Naming:
        """How image records name their files; a split from before there was a choice says nothing of it."""
        return self.manifest.naming

    @property
    def readings(self) -> dict[str, Reading]:
        """Role of an image folder -> how its images are turned, as far as the task says."""
        return {role: reading_of(exif_of_role(self.task.exif, role)) for role in self.images}

    @property
    def split_sha256(self) -> str:
        """Hash over the split's three data files."""
        return self.manifest.split_sha256

    def identity(self) -> dict[str, str]:
        """Return what a checkpoint must agree with to be continued."""
        names = (self.task.name, self.method.name, self.variant, self.profile, str(self.seed))
        written = as_first_written(asdict(self.settings))
        kept = {name: value for name, value in written.items() if name not in FREE_SETTINGS}
        text = json.dumps([names, kept], sort_keys=True)
        return {"split": self.split_sha256, "settings": sha256(text.encode()).hexdigest()}


def variant_fields(method: Method, variant: str) -> Mapping[str, Any]:
    """Return the fields a variant changes, empty for the method as it stands.

    Raises:
        UsageFault: the method has no such variant.
    """
    if not variant:
        return {}
    if variant not in method.variants:
        raise unknown_name(f"variant of {method.name}", variant, method.variants)
    return method.variants[variant]


def images_per_rank(plan: Plan) -> tuple[int, int]:
    """Return the images of each source per iteration and rank."""
    return images_of(plan.method, plan.settings)


def images_of(method: Method, settings: Settings) -> tuple[int, int]:
    """Return the images of each source that a method draws per iteration and rank."""
    return {
        "semi": (settings.labelled_per_gpu, settings.unlabelled_per_gpu),
        "promoted": (settings.labelled_per_gpu, settings.unlabelled_per_gpu),
        "labelled": (settings.labelled_per_gpu, 0),
        "oracle": (settings.images_per_gpu, 0),
    }[method.images]


def make_plan(
    task: Task,
    method: Method,
    *,
    data_root: Path,
    work_dir: Path,
    variant: str = "",
    preset_name: str | None = None,
    profile: str = "default",
    split_seed: int = 0,
    seed: int = 0,
    changes: Sequence[str] = (),
    name: str = "",
    command: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Return a run's plan; a split that is not there yet is drawn.

    Args:
        task: the sub-task.
        method: the method.
        data_root: where data sets lie.
        work_dir: where splits and runs are written.
        variant: of the method, "" for the method as it stands.
        preset_name: scale; None takes the task's own.
        profile: where constants come from.
        split_seed: seed of the draw.
        seed: seed of the training.
        changes: ``key=value`` changes of settings.
        name: what the user calls the run; "" takes the settings that differ from the preset.
        command: the command line, for the record.
        say: takes lines for the user.

    Raises:
        UsageFault: a name or setting does not exist or has no such value, or a seed is none.
        DataFault: an input, an image folder or the split on disk breaks its contract.
        EnvironmentFault: the settings' tracker is not installed.
    """
    require_seed("seed", seed)
    variant_fields(method, variant)
    preset_name = preset_name_of(task, preset_name)
    require_profile(profile)
    settings = resolved(task, preset_name, changes)
    names = (task.name, split_seed, method.name, variant, preset_name, profile, seed)
    folder, name = _place(work_dir, names, name or run_name(task, preset_name, settings), settings, given=bool(name))
    check_installed(settings.tracker)
    root = tasks.task_data_root(task, data_root, work_dir)
    if not task.lies_in_work:  # before a large split is drawn for nothing
        image_folders(task, root)
    options = tasks.draw_options(task, split_seed=split_seed)
    drawn = tasks.ensure_split(task, data_root, work_dir, options, any_options=True, say=say)
    _require_hidden(method, drawn.manifest)
    return Plan(
        task=task,
        method=method,
        variant=variant,
        preset=preset_name,
        profile=profile,
        split_seed=split_seed,
        seed=seed,
        settings=settings,
        split=drawn.folder,
        manifest=drawn.manifest,
        val=tasks.input_path(task, "val", root),
        images=image_folders(task, root),
        folder=folder,
        name=name,
        command=tuple(command),
        data_root=data_root,
    )


def run_name(task: Task, preset_name: str, settings: Settings) -> str:
    """Return what a run is called by the settings in which it differs from its preset, "" where it does in none."""
    return name_of_settings(asdict(settings), asdict(resolved(task, preset_name)))


def _place(
    work_dir: Path, names: tuple[str, int, str, str, str, str, int], name: str, settings: Settings, *, given: bool
) -> tuple[Path, str]:
    """Return a run's folder and its name, "" where it was begun before settings were part of the folder's name.

    Raises:
        UsageFault: a name could be no folder's.
    """
    if given:
        check_name(name)
    folder, older = run_folder(work_dir, *names, name), run_folder(work_dir, *names)
    if given or folder_in_use(folder, older, json.loads(json.dumps(asdict(settings)))) == folder:
        return folder, name
    return older, ""


def _require_hidden(method: Method, manifest: Manifest) -> None:
    """Refuse a method that trains on the boxes of D_u where nobody knows them.

    Raises:
        UsageFault: it does.
    """
    if method.images == "oracle" and not manifest.hidden_known:
        raise UsageFault(
            f"{method.title} trains on the boxes of D_u, and those of {manifest.title} are unknown.",
            remedy="choose another method; supervised is the row that trains on D_l alone",
        )


def image_folders(task: Task, root: Path) -> dict[str, Path]:
    """Return role -> image folder.

    Args:
        task: the sub-task.
        root: what its folders are relative to.

    Raises:
        DataFault: one is missing; the message says where its images officially come from.
    """
    folders = {role: root / path for role, path in task.images.items()}
    for role, folder in folders.items():
        if not folder.is_dir():
            origin = task.official.get(f"{role}_images") or task.official.get(role)
            raise DataFault(
                f"The folder of the {role} images is missing: {folder}.",
                remedy=f"get it from {origin}" if origin else "pass the folder that holds it as --data-root",
            )
    return folders
