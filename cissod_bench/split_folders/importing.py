"""A split made of annotation files that others published, kept to the same contract as a drawn one.

Nothing is drawn. The files are read and checked, D_u loses every box, and what a draw would have known is worked out:
parts, groups, counts, the hidden boxes. So `run` and `report` need not know where a split came from; its manifest says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import UsageFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.whole_files import folder_appearing, locked
from cissod_bench.split_folders.counts import short_line
from cissod_bench.split_folders.ensure import SplitOnDisk, at_hand, draw_options, lay_out, task_data_root
from cissod_bench.split_folders.import_files import Files, Given, read_files
from cissod_bench.splitting.data_files import write_data_files
from cissod_bench.splitting.manifest import UNKNOWN, ClassCounts, HashedFile, Manifest, split_folder
from cissod_bench.splitting.parts import parts_of, stated_parts
from cissod_bench.splitting.scenarios import (
    boxes_of_classes,
    frequency_groups,
    images_of_classes,
    minority_groups,
    official_groups,
)
from cissod_bench.splitting.split import Groups, Share, Split
from cissod_bench.splitting.task import Task
from cissod_bench.splitting.writing import Input, describe, write_manifest


@dataclass(frozen=True)
class Imported:
    """An imported split on disk, and what the user should know about it."""

    split: SplitOnDisk
    warnings: tuple[str, ...]


class _ImportedSplit(Split):
    """A split whose image ids stay those that were published; they are distinct, which has been checked."""

    def offsets(self) -> list[tuple[int, int]]:
        """Lift the ids of hidden boxes above those of D_l if an id stands in both: some who publish count anew."""
        labelled, hidden = (share.annotations.box_ids for share in self.shares)
        if not len(np.intersect1d(labelled, hidden)):
            return [(0, 0), (0, 0)]
        return [(0, 0), (0, 10 ** len(str(int(labelled.max()) - min(int(hidden.min()), 0))))]


def import_split(
    task: Task,
    given: Given,
    data_root: Path,
    work_dir: Path,
    *,
    split_seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Imported:
    """Check published annotation files and write them as the task's split.

    Args:
        task: from ``find_task``.
        given: the files.
        data_root: where data sets lie; the task's val file must be there.
        work_dir: the split lies below ``splits/``.
        split_seed: under which seed it is kept.
        force: write it in place of a split that is there.
        progress: called while files are read and written.
        say: gets a line before a task's images are drawn or its data is converted.

    Raises:
        DataFault: a file is missing or invalid, its classes are not the task's, an image is in two of D_l, D_u and
            val or, where the task's training file is at hand, not in that; a minority box is shown in D_m.
        UsageFault: a split is there and ``force`` is not given.
    """
    started = time.perf_counter()
    folder = split_folder(work_dir, task.name, split_seed)
    root = task_data_root(task, data_root, work_dir)
    lay_out(task, data_root, root, say)
    with locked(folder), ExitStack() as stack:
        if folder.exists() and not force:
            raise UsageFault(
                f"{folder} is there already.", remedy="add --force to replace it, or choose another --split-seed"
            )
        files = read_files(task, given, root, stack, progress)
        split = _split(task, files, split_seed)
        with folder_appearing(folder) as hidden:
            hashes = write_data_files(hidden, _unmarked(split), progress)
            manifest = _manifest(task, given, files, split, hashes, root)
            write_manifest(hidden, manifest)
    return Imported(
        SplitOnDisk(folder, manifest, True, time.perf_counter() - started), tuple(_warnings(files, manifest))
    )


def _split(task: Task, files: Files, split_seed: int) -> Split:
    """Return the split that the files hold.

    Raises:
        DataFault: it breaks the contract of ``Split``.
    """
    labelled, hidden = files.labelled, files.hidden
    options = draw_options(task, split_seed=split_seed)
    groups = _class_groups(task, labelled)
    minority = groups.get("min") if options.minority is not None else None
    official = official_groups(labelled)
    none = np.zeros(0, np.int64)
    return _ImportedSplit(
        options=replace(options, cover=None, minority=minority),
        shares=(
            Share(
                annotations=labelled,
                labelled=parts_of(task, labelled, groups.get("min", ())),
                unlabelled=none,
                shown=np.ones(len(labelled.box_ids), np.bool_),
                ignored=np.zeros(len(labelled.box_ids), np.bool_),
            ),
            Share(
                annotations=hidden,
                labelled={},
                unlabelled=np.arange(len(hidden.image_ids)),
                shown=np.zeros(len(hidden.box_ids), np.bool_),
                ignored=np.zeros(len(hidden.box_ids), np.bool_),
            ),
        ),
        groups=groups,
        views={"official": official} if official else {},
    )


def _unmarked(split: Split) -> Split:
    """Return the split with one part where the records say their parts already, so that they keep their bytes."""
    first, second = split.shares
    if not all(stated_parts(first.annotations)):
        return split
    whole = replace(first, labelled={"D_l": np.arange(len(first.annotations.image_ids))})
    return replace(split, shares=(whole, second))


def _class_groups(task: Task, labelled: Annotations) -> Groups:
    """Return the groups of D_l's classes by the task's rule: bounds of frequencies, a list, or who shows the majority.

    Raises:
        UsageFault: the task has none of these rules.
    """
    if task.groups == ("f", "c", "r"):
        images = images_of_classes(labelled, labelled.instances())
        return frequency_groups(labelled.classes, images, task.frequency_bounds)
    minority = task.minority or _minority_by_root(labelled)
    if not minority:
        raise UsageFault(
            f"Task {task.name!r} has no rule that tells the groups of classes from D_l alone.",
            remedy="name its minority classes (minority in the task file), or give images of the other data set a root",
        )
    return minority_groups(labelled.classes, minority)


def _minority_by_root(labelled: Annotations) -> tuple[str, ...]:
    """Return the classes that the images of another data set do not show; they are that data set's D_m."""
    elsewhere = np.array([root not in ("", "train") for root in labelled.roots], np.bool_)[labelled.image_root]
    shown = np.unique(labelled.box_class[elsewhere[labelled.box_image] & labelled.instances()])
    if not len(shown):
        return ()
    return tuple(name for row, name in enumerate(labelled.classes) if row not in shown)


def _manifest(task: Task, given: Given, files: Files, split: Split, hashes: Mapping[str, str], root: Path) -> Manifest:
    """Return the manifest of an imported split: that of a drawn one, and where it comes from.

    What nobody told is left out rather than counted as nothing: the boxes of D_u, those of the whole data set.
    """
    inputs = {
        role: Input(path.relative_to(root).as_posix(), file_sha256(path)) for role, path in at_hand(task, root).items()
    }
    manifest = describe(split, task, inputs, hashes)
    paths = given.paths()
    data = {"val": files.val, "labelled": files.labelled, "unlabelled": files.unlabelled, "hidden": files.hidden}
    read = {role: dict(annotations.normalised) for role, annotations in data.items() if role in ("val", *paths)}
    return msgspec.structs.replace(
        manifest,
        per_class=_known_counts(manifest.per_class, files),
        normalised={role: tally for role, tally in read.items() if tally},
        left_out={"in neither of the imported files": files.neither} if files.neither else {},
        imported=True,
        imported_files={role: HashedFile(path.name, data[role].sha256) for role, path in paths.items()},
        hidden_boxes="given" if given.hidden else "from train" if files.hidden_known else UNKNOWN,
    )


def _known_counts(per_class: Mapping[str, ClassCounts], files: Files) -> dict[str, ClassCounts]:
    """Return the counts of every class with None for those that the files do not tell."""
    unknown: dict[str, None] = {} if files.hidden_known else {"unlabelled_images": None, "unlabelled_boxes": None}
    none = [None] * len(per_class)
    original, dropped, ignored = none, none, none
    if files.train is not None:
        original = boxes_of_classes(files.train).tolist()
        dropped, ignored = (counts.tolist() for counts in _not_shown(files.labelled, files.train))
    return {
        name: msgspec.structs.replace(
            counts, original_boxes=original[row], dropped_boxes=dropped[row], ignored_boxes=ignored[row], **unknown
        )
        for row, (name, counts) in enumerate(per_class.items())
    }


def _not_shown(labelled: Annotations, train: Annotations) -> tuple[Ints, Ints]:
    """Return the boxes of each class that the training file has on images of D_l and D_l does not show, (C,) each.

    As in the manifest of a draw: those that are dropped, and those that became ignore regions.
    """
    ours = np.array([root in ("", "train") for root in labelled.roots], np.bool_)[labelled.image_root]
    there = np.isin(train.image_ids, labelled.image_ids[ours])
    num = len(labelled.classes)
    counts: dict[bool, Ints] = {}
    for data, images, sign in ((train, there, 1), (labelled, ours, -1)):
        for crowd in (False, True):
            rows = data.box_class[images[data.box_image] & (data.crowd == crowd)]
            counts[crowd] = counts.get(crowd, np.zeros(num, np.int64)) + sign * np.bincount(rows, minlength=num)
    ignored = np.maximum(-counts[True], 0)
    return np.maximum(counts[False] - ignored, 0), ignored


def _warnings(files: Files, manifest: Manifest) -> list[str]:
    """Return what is allowed, but may not be meant."""
    warnings = []
    if count := len(files.unlabelled.box_ids):
        warnings.append(f"{files.unlabelled.path} holds {count:,} boxes. None is used: D_u must show none.")
    if not files.hidden_known:
        warnings.append(
            "The boxes of D_u are not known, so pseudo labels cannot be judged and the method oracle cannot be run; "
            "give them with --hidden, or the task's training file below --data-root."
        )
    if files.train is None:
        warnings.append("The task's training file is not at hand, so it was not checked that the images are its own.")
    if manifest.below_minimum:
        warnings.append(f"D_l: {short_line(manifest)}.")
    return warnings
