"""The splits below a work folder: find them, name one, and say what is in its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from cissod_bench.catalogue import command_name, list_tasks, load_task
from cissod_bench.catalogue.task_files import find_task, name_in
from cissod_bench.errors import DataFault, UsageFault, unknown_name
from cissod_bench.files.hashing import file_sha256
from cissod_bench.split_folders.ensure import draw_options
from cissod_bench.splitting.manifest import MANIFEST, Manifest, read_manifest, split_folder
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.statements import OPTIONS
from cissod_bench.splitting.task import Task

_DRAW = "cissod-bench make-splits"


@dataclass(frozen=True)
class FoundSplit:
    """A split's folder and its manifest, or what is wrong with that.

    Attributes:
        folder: where it lies.
        manifest: None where it cannot be read.
        fault: "" where it can.
    """

    folder: Path
    manifest: Manifest | None
    fault: str = ""


def find_splits(work_dir: Path) -> list[FoundSplit]:
    """Return every split below ``work_dir/splits``, by task and seed; broken ones too.

    Hidden folders are those of a writer that is at work or was killed; nothing reads them.
    """
    return [_found(folder) for task in _folders(work_dir / "splits") for folder in _folders(task)]


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    folders = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(
        folders, key=lambda path: (len(path.name), path.name) if path.name.startswith("seed") else (0, path.name)
    )


def _found(folder: Path) -> FoundSplit:
    try:
        return FoundSplit(folder, read_manifest(folder))
    except DataFault as fault:
        return FoundSplit(folder, None, fault.message)


def find_split(place: str, split_seed: int, work_dir: Path) -> Path:
    """Return the folder of one split.

    Args:
        place: a split's folder, a task's name or its file.
        split_seed: of the task's split.
        work_dir: the task's splits lie below it.

    Raises:
        UsageFault: no split is known by that name.
        DataFault: the task has no split of that seed.
    """
    if (Path(place) / MANIFEST).exists():
        return Path(place)
    task = _task_folder(place, work_dir)
    folder = split_folder(work_dir, task, split_seed)
    if not folder.is_dir():
        seeds = [path.name.removeprefix("seed") for path in _folders(folder.parent)]
        there = f"; there are seeds {', '.join(seeds)}" if seeds else ""
        raise DataFault(
            f"There is no split of {task} with split seed {split_seed} below {work_dir}{there}.",
            remedy=f"{_DRAW} --task {place} --split-seed {split_seed}",
        )
    return folder


def data_roots(split: Path, manifest: Manifest, data_root: Path, work_dir: Path) -> list[Path]:
    """Return the folders that the paths in a split's manifest may be relative to, the likeliest first.

    Args:
        split: its folder, <work>/splits/<task>/seed<k>; data that a task draws or converts lies in <work>/data/<task>.
        manifest: its manifest.
        data_root: as the user gave it.
        work_dir: likewise.
    """
    name = manifest.task
    in_work = [work_dir / "data" / name, *(up / "data" / name for up in split.resolve().parents[2:3])]
    if name in list_tasks():
        return in_work if load_task(name).lies_in_work else [data_root]
    # A user's task does not say here whether its labels were written there: those of own parts and other formats are.
    return [*(root for root in in_work if root.is_dir() or not manifest.hidden_known), data_root]


def scored_file(split: Path, data_root: Path, work_dir: Path) -> tuple[Path, Path | None]:
    """Return the folder that a split's paths are relative to and its validation file, None where that is not at hand.

    A file of that name with another content is not the split's.

    Args:
        split: its folder.
        data_root: as the user gave it.
        work_dir: likewise.
    """
    try:
        manifest = read_manifest(split)
    except DataFault:
        return data_root, None
    roots = data_roots(split, manifest, data_root, work_dir)
    for root in roots:
        val = root / manifest.val.path
        if val.is_file() and file_sha256(val) == manifest.val.sha256:
            return root, val
    return roots[0], None


def task_of(manifest: Manifest, data_root: Path, named: str | None = None) -> Task | None:
    """Return the task a split belongs to, as it is now; None where it is described by a file that is not at hand.

    Args:
        manifest: of the split.
        data_root: where its task file is looked for, as in the current folder.
        named: name or file of the task, if the user gives it.

    Raises:
        UsageFault: the task or its file breaks a rule.
    """
    if named is not None or manifest.task in list_tasks():
        return find_task(named or manifest.task)
    files = (folder / f"{manifest.task}.toml" for folder in (Path(), data_root))
    task_file = next((file for file in files if file.is_file()), None)
    return None if task_file is None else find_task(str(task_file))


def splits_of(place: str, work_dir: Path) -> list[Path]:
    """Return the folder that ``place`` is, or those of all seeds of the task it names.

    Raises:
        UsageFault: no split is known by that name.
        DataFault: the task has no split.
    """
    if (Path(place) / MANIFEST).exists():
        return [Path(place)]
    folders = _folders(work_dir / "splits" / _task_folder(place, work_dir))
    return folders or [find_split(place, 0, work_dir)]


def _task_folder(place: str, work_dir: Path) -> str:
    """Return the name of the folder of a task's splits."""
    there = [path.name for path in _folders(work_dir / "splits")]
    name = name_in(place)
    for spelling in (name, command_name(name)):
        if spelling in there or spelling in list_tasks():
            return spelling
    if Path(place).is_dir():
        raise DataFault(f"{place} holds no split: {MANIFEST} is missing.", remedy=f"{_DRAW} draws one")
    if "/" in place or "\\" in place:
        raise UsageFault(f"There is no split folder {place}.", remedy="cissod-bench splits list")
    raise unknown_name("split or task", place, {*there, *list_tasks()}, remedy="cissod-bench splits list")


def other_options(manifest: Manifest) -> dict[str, Any]:
    """Return the options of a draw that are not its task's defaults; none of a split that was not drawn.

    A user's own task is described by a file that is not at hand here; then they are compared with the general defaults,
    as far as there are any.
    """
    if not manifest.was_drawn:
        return {}
    known = manifest.task in list_tasks()
    defaults = draw_options(load_task(manifest.task)) if known else DrawOptions()
    others = {}
    held = {**vars(DrawOptions()), **manifest.held(*OPTIONS)}  # older manifests lack the newest
    for option in OPTIONS:
        usual, there = getattr(defaults, option), held[option]
        if not known and usual is None:
            continue
        if option == "minority":
            usual, there = sorted(usual or ()), sorted(there)
        if there != usual:
            others[option] = there
    return others


def row(split: FoundSplit) -> dict[str, Any]:
    """Return what ``splits list`` says of a split."""
    manifest = split.manifest
    if manifest is None:
        return {"dir": str(split.folder), "fault": split.fault}
    return {
        "dir": str(split.folder),
        "task": manifest.task,
        "split_seed": manifest.split_seed,
        "labelled": manifest.counts["labelled"],
        "unlabelled": manifest.counts["unlabelled"],
        "split_sha256": manifest.split_sha256,
        "options": other_options(manifest),
        "imported": manifest.imported,
        "fault": "",
    }


def class_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield name, group and counts of every class in channel order; None for what an older manifest does not say."""
    group_of = manifest.group_of
    for name in manifest.classes:
        yield {"class": name, "group": group_of[name], **asdict(manifest.per_class[name])}
