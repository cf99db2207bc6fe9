"""Fig. 4: how many boxes each class has in the data set a task is named after, in D_l and, hidden, in D_u."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.whole_files import make_folder, write_bytes
from cissod_bench.reporting.groups import WORDS, roles
from cissod_bench.reporting.paper_tables import TABLES

Manifests = Sequence[Mapping[str, Any]]

PARTS: Mapping[str, str] = MappingProxyType(
    {"original": "original_boxes", "labelled": "boxes", "unlabelled": "unlabelled_boxes"}
)
"""Part of the data -> its key among a class's counts in manifest.json."""

NONE = -0.6
"""Where a count of 0, which has no logarithm, is shown: below log10(1) = 0, with a label of its own."""

COLUMNS = ["task", "title", "split_seed", "split_sha256", "class", "group", "index", "part", "boxes", "log10"]


@dataclass(frozen=True)
class Panel:
    """One split's share of the figure.

    Attributes:
        title: the task's; with the split seed where the task is shown more than once.
        groups: the class groups, most frequent first.
        frame: the split's lines of ``distribution_frame``.
    """

    title: str
    groups: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def classes(self) -> pd.DataFrame:
        """A line a class, by its place: index from 1, columns "class", "group" and one a part with its boxes."""
        parts = {part: own.set_index("index")["boxes"] for part, own in self.frame.groupby("part")}
        names = self.frame[self.frame["part"] == "original"].set_index("index")[["class", "group"]]
        return names.assign(**parts)


def log10(boxes: Sequence[int] | pd.Series) -> npt.NDArray[np.float64]:
    """Return the logarithm of counts; NaN for 0, which has none."""
    counts = np.asarray(boxes, np.float64)
    return np.log10(counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def distribution_frame(manifests: Manifests) -> pd.DataFrame:
    """Return a tidy line a split, class and part of the data.

    Args:
        manifests: of the splits (``manifest.json``).

    Returns:
        A frame with ``COLUMNS``: "index" is the class's place by boxes in the original data set, 1 for the most;
        "part" is of ``PARTS``; "log10" is NaN where there is no box.

    Raises:
        DataFault: a manifest lacks the counts, because an older version drew the split.
    """
    lines = [line for manifest in manifests for line in _lines(manifest)]
    frame = pd.DataFrame(lines, columns=COLUMNS[:-1])
    return frame.assign(log10=log10(frame["boxes"]))


def _lines(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts = manifest["per_class"]
    for name, own in counts.items():
        for key in PARTS.values():
            if not isinstance(own.get(key), int) or own[key] < 0:
                raise _fault(manifest, name, key)
    group_of = {name: group for group, names in manifest["groups"].items() for name in names}
    shared = {key: manifest[key] for key in ("task", "title", "split_seed", "split_sha256")}
    order = sorted(counts, key=lambda name: -int(counts[name][PARTS["original"]]))  # stable: ties as in the manifest
    return [
        {**shared, "class": name, "group": group_of[name], "index": place, "part": part, "boxes": counts[name][key]}
        for place, name in enumerate(order, start=1)
        for part, key in PARTS.items()
    ]


def _fault(manifest: Mapping[str, Any], name: str, key: str) -> DataFault:
    task, seed = manifest["task"], manifest["split_seed"]
    who, remedy = (
        "an older version wrote it",
        f"cissod-bench make-splits --task {task} --split-seed {seed} --force  (the same split, with the counts)",
    )
    if manifest.get("imported"):
        who = "it was imported without the task's own training file, which tells"
        remedy = "cissod-bench splits import ... --force  (with that file below --data-root)"
    return DataFault(
        f"The manifest of {task}, split seed {seed}, has no count per_class[{name!r}].{key}, which Fig. 4 shows: "
        f"{who}.",
        remedy=remedy,
    )


def paper_order(manifests: Manifests) -> list[Mapping[str, Any]]:
    """Return manifests in the order of the figure: the paper's tasks first, as it has them, then others by name."""
    tasks = [task for table in TABLES for task in table.tasks]

    def place(manifest: Mapping[str, Any]) -> tuple[int, str, int]:
        task = manifest["task"]
        return (tasks.index(task) if task in tasks else len(tasks)), task, manifest["split_seed"]

    return sorted(manifests, key=place)


def panels(manifests: Manifests) -> list[Panel]:
    """Return a panel a split, in the same order.

    Raises:
        DataFault: a manifest lacks the counts.
    """
    tasks = [manifest["task"] for manifest in manifests]
    return [
        Panel(
            manifest["title"] + (f", split seed {manifest['split_seed']}" if tasks.count(manifest["task"]) > 1 else ""),
            tuple(group for group, names in manifest["groups"].items() if names),
            distribution_frame([manifest]),
        )
        for manifest in manifests
    ]


def stretches(places: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first, length) of each stretch of successive places, of places that ascend."""
    cuts = np.flatnonzero(np.diff(places) > 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(np.asarray(places), cuts) if len(part)]


def class_ticks(count: int) -> list[int]:
    """Return a few round places on an axis of classes, the first and the last among them."""
    steps = (10**power * digit for power in range(9) for digit in (1, 2, 4, 5))
    step = next(step for step in steps if count / step <= 5)
    return sorted({1, count, *(place for place in range(step, count, step) if count - place > 0.7 * step)})


def group_words(panels: Sequence[Sequence[str]]) -> dict[int, str]:
    """Return role (see ``groups.roles``) -> the words for all groups that play it, for the one legend of all panels."""
    words: dict[int, dict[str, None]] = {}
    for groups in panels:
        for group, role in roles(groups).items():
            words.setdefault(role, {})[WORDS.get(group, group)] = None
    order = sorted(words, key=lambda role: (role == 1, role))  # the least frequent last
    return {role: " / ".join(words[role]) for role in order}


def distribution_files(manifests: Manifests, kind: str) -> dict[str, bytes]:
    """Return Fig. 4 in one format, file name -> bytes: for the text's width and, "_column", for one column.

    Args:
        manifests: of the splits, a panel each, from left to right.
        kind: "png", "svg", "pdf", or "csv" for the numbers. Equal manifests give equal bytes.

    Raises:
        DataFault: a manifest lacks the counts.
    """
    if kind == "csv":
        text = distribution_frame(manifests).to_csv(index=False, lineterminator="\n")
        return {"distributions.csv": text.encode()}
    from cissod_bench.rendering.distribution_figure import draw
    from cissod_bench.rendering.print_style import WIDTHS, figure_bytes, print_style

    files = {}
    with print_style():
        for suffix, width in WIDTHS.items():
            files[f"distributions{suffix}.{kind}"] = figure_bytes(draw(panels(manifests), width), kind)
    return files


def plot_distributions(manifests: Manifests, out: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write Fig. 4 of the splits into a folder and return the files: two widths a format, one file for "csv".

    Args:
        manifests: of the splits, a panel each, from left to right.
        out: the folder; made where it lacks.
        formats: of "png", "svg", "pdf", "csv".

    Raises:
        UsageFault: there is no split, or a format is not known.
        DataFault: a manifest lacks the counts.
        EnvironmentFault: the folder cannot be written.
    """
    from cissod_bench.rendering.print_style import KINDS, check_kinds

    if not manifests:
        raise UsageFault("There is no split to draw.", remedy="cissod-bench make-splits")
    check_kinds(formats, (*KINDS, "csv"))
    files: dict[str, bytes] = {}
    for kind in dict.fromkeys(formats):
        files |= distribution_files(manifests, kind)
    for name, data in files.items():
        write_bytes(make_folder(out) / name, data)
    return [out / name for name in files]
