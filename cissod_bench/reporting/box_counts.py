"""The numbers of Fig. 4: how many boxes each class has in the data set a task is named after, in D_l and in D_u."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cissod_bench.errors import DataFault
from cissod_bench.reporting.paper_tables import TABLES
from cissod_bench.splitting.manifest import Manifest

Manifests = Sequence[Manifest]

PARTS: Mapping[str, str] = MappingProxyType(
    {"original": "original_boxes", "labelled": "boxes", "unlabelled": "unlabelled_boxes"}
)
"""Part of the data -> its field in ``ClassCounts``, a class's counts in manifest.json."""

COLUMNS = ["task", "title", "split_seed", "split_sha256", "class", "group", "index", "part", "boxes", "log10"]


def log10(boxes: Sequence[int] | pd.Series) -> npt.NDArray[np.float64]:
    """Return the logarithm of counts; NaN for 0, which has none."""
    counts = np.asarray(boxes, np.float64)
    return np.log10(counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def distribution_frame(manifests: Manifests) -> pd.DataFrame:
    """Return a tidy line per split, class and part of the data.

    Args:
        manifests: of the splits.

    Returns:
        A frame with ``COLUMNS``: "index" is the class's place by boxes in the original data set, 1 for the most;
        "part" is of ``PARTS``; "log10" is NaN where there is no box.

    Raises:
        DataFault: a manifest lacks the counts, because an older version drew the split.
    """
    lines = [line for manifest in manifests for line in _lines(manifest)]
    frame = pd.DataFrame(lines, columns=COLUMNS[:-1])
    return frame.assign(log10=log10(frame["boxes"]))


def _lines(manifest: Manifest) -> list[dict[str, Any]]:
    counts = {name: _counts(manifest, name) for name in manifest.per_class}
    shared = {key: getattr(manifest, key) for key in ("task", "title", "split_seed", "split_sha256")}
    group_of = manifest.group_of
    order = sorted(counts, key=lambda name: -counts[name]["original"])  # stable: ties as in the manifest
    return [
        {**shared, "class": name, "group": group_of[name], "index": place, "part": part, "boxes": boxes}
        for place, name in enumerate(order, start=1)
        for part, boxes in counts[name].items()
    ]


def _counts(manifest: Manifest, name: str) -> dict[str, int]:
    """Return part of the data -> boxes of a class.

    Raises:
        DataFault: the manifest does not say.
    """
    counts = {}
    for part, key in PARTS.items():
        boxes: int | None = getattr(manifest.per_class[name], key)
        if boxes is None or boxes < 0:
            raise _fault(manifest, name, key)
        counts[part] = boxes
    return counts


def _fault(manifest: Manifest, name: str, key: str) -> DataFault:
    task, seed = manifest.task, manifest.split_seed
    who, remedy = (
        "an older version wrote it",
        f"cissod-bench make-splits --task {task} --split-seed {seed} --force  (the same split, with the counts)",
    )
    if manifest.imported:
        who = "it was imported without the task's own training file, which tells"
        remedy = "cissod-bench splits import ... --force  (with that file below --data-root)"
    elif not manifest.hidden_known:
        return DataFault(
            f"Fig. 4 counts the boxes of unlabelled images, too; nobody knows those of {task}, split seed {seed}.",
            remedy=f"cissod-bench splits show {task}  (the boxes of D_l)",
        )
    return DataFault(
        f"The manifest of {task}, split seed {seed}, has no count per_class[{name!r}].{key}, which Fig. 4 shows: "
        f"{who}.",
        remedy=remedy,
    )


def paper_order(manifests: Manifests) -> list[Manifest]:
    """Return manifests in the order of the figure: the paper's tasks first, as it has them, then others by name."""
    tasks = [task for table in TABLES for task in table.tasks]

    def place(manifest: Manifest) -> tuple[int, str, int]:
        task = manifest.task
        return (tasks.index(task) if task in tasks else len(tasks)), task, manifest.split_seed

    return sorted(manifests, key=place)
