"""From a task's name or file to its split on disk: find it, find its inputs, draw, write."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.reading import Annotations, read_annotations
from cissod_bench.annotations.same_files import Shared, fault_of, listed, shared_files
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.whole_files import locked
from cissod_bench.splitting.drawing import ALGORITHM, minority_rows
from cissod_bench.splitting.manifest import MANIFEST, Manifest, read_manifest, split_folder, verify
from cissod_bench.splitting.options import DrawOptions, check_options
from cissod_bench.splitting.statements import OPTIONS, check_described, default_options, make_again
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.writing import Input, describe, write_split


@dataclass(frozen=True)
class SplitOnDisk:
    """A split's folder.

    Attributes:
        folder: where its four files lie.
        manifest: what its manifest.json says.
        fresh: whether this call drew it, rather than finding it there.
        seconds: time to read, draw and write, or to verify.
        differing: option -> (of the split found there, asked for), where nobody insisted on the latter.
    """

    folder: Path
    manifest: Manifest
    fresh: bool
    seconds: float
    differing: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def task_data_root(task: Task, data_root: Path, work_dir: Path) -> Path:
    """Return the folder the task's inputs and images are relative to; drawn or converted ones lie in ``work_dir``."""
    return work_dir / "data" / task.name if task.lies_in_work else data_root


def lay_out(task: Task, data_root: Path, root: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """Write the files of a task that draws its images, or whose data is of another format, unless they are there.

    Args:
        task: any task; of the others nothing is written.
        data_root: where data sets lie, only read.
        root: where to, ``task_data_root``.
        say: gets a line before.

    Raises:
        DataFault: the data that is to be converted is missing or breaks a rule.
    """
    if task.prepare is not None:
        if not root.exists():
            say(f"Drawing the images of {task.name} into {root}")
        task.prepare(root)
    if task.conversion is not None:
        if not root.exists() and not task.conversion.missing(data_root):
            say(f"Reading {data_root / task.conversion.sources['annotations']} into {root}")
        for note in task.conversion.write(data_root, root) or ():
            say(f"Note: {note}")


def draw_options(task: Task, *, split_seed: int = 0, **given: Any) -> DrawOptions:
    """Return how a split of the task is drawn: what is given and not None, else the task's defaults.

    Raises:
        UsageFault: a value is out of its range.
    """
    chosen = {key: value for key, value in given.items() if value is not None}
    options = DrawOptions(**{**default_options(task), **chosen, "split_seed": split_seed})
    check_options(options)
    return options


def input_path(task: Task, role: str, root: Path) -> Path:
    """Return the annotation file of a role, or the one with ".gz" behind its name.

    Raises:
        DataFault: neither is there; the message says where it officially comes from. Or it is of another format.
    """
    path = root / task.inputs[role]
    if path.is_dir() or path.suffix in (".yaml", ".yml"):
        raise DataFault(
            f"Task {task.named!r}: {path} is no COCO file, and what a split is drawn from or scored on must be one.",
            remedy=f"cissod-bench data convert {role}={path} --out annotations, then name the file it writes",
        )
    if path.is_file():
        return path
    packed = path.with_name(path.name + ".gz")
    if packed.is_file():
        return packed
    fetch = f"fetch {task.official[role]}, or " if role in task.official else ""
    raise DataFault(
        f"Task {task.name!r} needs {path} (or {packed.name}); it does not exist.",
        remedy=f"{fetch}say with --data-root (now {root}) where data lies",
    )


def image_folder(task: Task, role: str, root: Path) -> ImageFolder:
    """Return where the images of a role lie that name no root."""
    return ImageFolder(root / task.images[role], task.images[role])


def missing_inputs(task: Task, root: Path) -> list[str]:
    """Return a line for every annotation file of the task that is not there: its path and official source."""
    lines = []
    for line in task.conversion.missing(root) if task.conversion is not None else ():
        lines.append(": ".join([line, *([task.official["train"]] if task.official else [])]))
    for role in task.inputs if not task.lies_in_work else ():
        try:
            input_path(task, role, root)
        except DataFault:
            lines.append(str(root / task.inputs[role]) + (f": {task.official[role]}" if role in task.official else ""))
    return lines


def ensure_split(
    task: Task,
    data_root: Path,
    work_dir: Path,
    options: DrawOptions,
    *,
    given: Collection[str] = OPTIONS,
    any_options: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> SplitOnDisk:
    """Return the task's split, drawn and written if it is not there.

    Args:
        task: from ``find_task``.
        data_root: where data sets lie, only read.
        work_dir: the split lies below ``splits/``, what a task draws or converts below ``data/``.
        options: from ``draw_options``.
        given: names of the options that a split found there must have been drawn with, those the user chose.
        any_options: take a split found there whatever options the user chose for it, as if nothing were ``given``.
        force: draw again, in place of what is there.
        progress: called while files are read and written.
        say: gets a line before a task's images are drawn or its data is converted.

    Raises:
        DataFault: an input is missing or invalid; the split there has been changed, or was drawn from other inputs.
        UsageFault: the task states something else than when the split there was drawn, or that was drawn with other
            options than those ``given``; ``force`` is needed.
    """
    started = time.perf_counter()
    folder = split_folder(work_dir, task.name, options.split_seed)
    root = task_data_root(task, data_root, work_dir)
    lay_out(task, data_root, root, say)
    with locked(folder), ExitStack() as stack:
        if folder.exists() and not force:
            manifest = verify(folder)
            differing = {} if any_options else _differing(manifest, options)
            remedy = make_again(task, manifest, data_root, work_dir)
            _check_same(folder, manifest, task, options, root, remedy)
            _check_options(folder, {name: both for name, both in differing.items() if name in given})
            return SplitOnDisk(folder, manifest, False, time.perf_counter() - started, differing)
        annotations, inputs = read_inputs(task, root, stack, progress)
        split = task.draw(task, annotations, options)
        manifest = write_split(folder, split, task, inputs, progress)
    return SplitOnDisk(folder, manifest, True, time.perf_counter() - started)


def dry_split(
    task: Task, data_root: Path, work_dir: Path, options: DrawOptions, *, progress: Progress | None = None
) -> SplitOnDisk:
    """Return what ``ensure_split`` would draw, without hashes of files; nothing is written below ``work_dir``.

    Raises:
        DataFault: as ``ensure_split``.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        root = task_data_root(task, data_root, work_dir)
        if task.lies_in_work:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory())) / task.name
            lay_out(task, data_root, root)
        annotations, inputs = read_inputs(task, root, stack, progress)
        manifest = describe(task.draw(task, annotations, options), task, inputs, {})
    folder = split_folder(work_dir, task.name, options.split_seed)
    return SplitOnDisk(folder, manifest, True, time.perf_counter() - started)


def read_inputs(
    task: Task, root: Path, stack: ExitStack, progress: Progress | None = None
) -> tuple[dict[str, Annotations], dict[str, Input]]:
    """Read and check every annotation file of a task; the stack closes them.

    Raises:
        DataFault: one is missing or invalid, they disagree about a class, or an image file stands in two records.
    """
    # All paths first: a missing file is told before minutes go into reading another one.
    paths = {role: input_path(task, role, root) for role in task.inputs}
    annotations = {
        role: stack.enter_context(
            read_annotations(
                path,
                naming=task.naming,
                swapped=task.swapped,
                folder=image_folder(task, role, root),
                progress=progress,
            )
        )
        for role, path in paths.items()
    }
    check_classes(annotations["train"], annotations["val"])
    if shared := shared_inputs(task, annotations, root):
        raise fault_of(shared, task.named)
    inputs = {
        role: Input(paths[role].relative_to(root).as_posix(), data.sha256, data.normalised)
        for role, data in annotations.items()
    }
    return annotations, inputs


def shared_inputs(task: Task, annotations: Mapping[str, Annotations], root: Path) -> list[Shared]:
    """Return the image files that stand in two records of a task's annotation files.

    Args:
        task: names the image folders.
        annotations: role -> file, as many as there are.
        root: what the folders are relative to.
    """
    roles = sorted(annotations, key=lambda role: role == "val")  # a share of the scored images is told, not of others
    return shared_files([listed(annotations[role], task.images, role, root) for role in roles])


def check_classes(train: Annotations, val: Annotations) -> None:
    """Refuse a val file whose classes are not those of train: its AP would belong to other columns.

    Raises:
        DataFault: a class id has another name in the two files, or stands in one of them only.
    """
    names = dict(zip(train.category_ids, train.classes, strict=True))
    for number, name in zip(val.category_ids, val.classes, strict=True):
        if names.get(number) != name:
            other = f"it is {names[number]!r} in" if number in names else "there is none of that id in"
            raise DataFault(
                f"{val.path}: category {number} is {name!r}, but {other} {train.path}; both must agree.",
                remedy="give a class the same id and name in the categories of both files",
            )
    missing = [(number, name) for number, name in names.items() if number not in val.category_ids]
    if missing:
        number, name = missing[0]
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataFault(
            f"{val.path}: {name!r}, category {number} of {train.path}, is missing{others}; both must agree.",
            remedy="name every class in both files, also one without a box",
        )


_REMEDY = "add --force to draw it again, or choose another --split-seed or --work-dir"


def _differing(manifest: Manifest, options: DrawOptions) -> dict[str, tuple[Any, Any]]:
    """Return option -> (of the split, asked for) where the two are not the same."""
    wanted = {name: getattr(options, name) for name in OPTIONS}
    there = {**vars(DrawOptions()), **manifest.held(*OPTIONS)}  # older ones lack the newest
    rows = minority_rows(options.minority, manifest.classes) if options.minority else ()
    wanted["minority"] = [manifest.classes[row] for row in rows]
    return {name: (there[name], value) for name, value in wanted.items() if there[name] != value}


def _check_options(folder: Path, refused: Mapping[str, tuple[Any, Any]], remedy: str = _REMEDY) -> None:
    """Refuse a split drawn with other options than the user chose."""
    for name, (there, asked) in refused.items():
        if isinstance(there, list):  # a list of 40 classes hides the two that differ
            there, asked = [name for name in there if name not in asked], [name for name in asked if name not in there]
        raise UsageFault(f"{folder} holds a split with {name} {there!r}; asked for is {asked!r}.", remedy=remedy)


def _check_same(folder: Path, manifest: Manifest, task: Task, options: DrawOptions, root: Path, remedy: str) -> None:
    """Refuse a split that is not of this task, seed and data."""
    facts: list[tuple[str, object, object]] = [
        ("task", manifest.task, task.name),
        ("split_seed", manifest.split_seed, options.split_seed),
    ]
    if not manifest.imported:
        facts.append(("algorithm", manifest.algorithm, ALGORITHM))
    for name, there, wanted in facts:
        if there != wanted:
            raise UsageFault(f"{folder} holds a split with {name} {there!r}; asked for is {wanted!r}.", remedy=remedy)
    roles, known = manifest.inputs.keys(), task.inputs.keys()
    if not (roles <= known if manifest.imported else roles == known):  # an import may have had the val file alone
        drawn_from, asked = ", ".join(sorted(roles)), ", ".join(sorted(known))
        raise DataFault(f"{folder} was drawn from inputs {drawn_from}; the task has {asked}.", remedy=remedy)
    files = {role: input_path(task, role, root) for role in manifest.inputs}
    check_described(folder, manifest, task, options, files, remedy=remedy)


def check_existing(task: Task, data_root: Path, work_dir: Path, split_seed: int, **given: Any) -> None:
    """Refuse a split on disk that is not what its task describes now; where there is none, nothing is wrong.

    Args:
        task: from ``find_task``.
        data_root: where data sets lie; annotation files that are not there are not compared.
        work_dir: where splits lie.
        split_seed: of the draw.
        given: options of `DrawOptions` that it must have been drawn with.

    Raises:
        DataFault: it was drawn from other annotation files.
        UsageFault: the task states something else than when it was drawn, or it was drawn with other options than
            those ``given``.
    """
    folder = split_folder(work_dir, task.name, split_seed)
    if (folder / MANIFEST).exists():
        manifest, roots = read_manifest(folder), [task_data_root(task, data_root, work_dir)]
        check_still_described(folder, manifest, task, roots, data_root, work_dir)
        differing = _differing(manifest, draw_options(task, split_seed=split_seed, **given))
        remedy = "choose another split seed or --work-dir, or draw it again: cissod-bench make-splits --force"
        _check_options(folder, {name: both for name, both in differing.items() if name in given}, remedy)


def check_still_described(
    folder: Path, manifest: Manifest, task: Task, roots: Sequence[Path], data_root: Path, work_dir: Path
) -> None:
    """Refuse a split that is not what its task describes now.

    Args:
        folder: of the split.
        manifest: its manifest.
        task: as it is now.
        roots: where its annotation files may lie; those that are not there are not compared.
        data_root: as the user gave it.
        work_dir: likewise.

    Raises:
        DataFault, UsageFault: as ``check_existing``.
    """
    files = {role: path for root in reversed(roots) for role, path in at_hand(task, root).items()}
    options = draw_options(task, split_seed=manifest.split_seed)
    remedy = make_again(task, manifest, data_root, work_dir)
    check_described(folder, manifest, task, options, files, remedy=remedy)


def at_hand(task: Task, root: Path) -> dict[str, Path]:
    """Return role -> annotation file of the task's inputs that are there."""
    files = {}
    for role in task.inputs:
        try:
            files[role] = input_path(task, role, root)
        except DataFault:
            continue
    return files
