"""A split becomes a folder: three data files and the manifest that says what was drawn from what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cissod_bench import __version__
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.whole_files import folder_appearing, json_bytes
from cissod_bench.splitting.data_files import write_data_files
from cissod_bench.splitting.drawing import ALGORITHM
from cissod_bench.splitting.manifest import MANIFEST, SCHEMA, UNKNOWN, HashedFile, Manifest, Offset, split_sha256
from cissod_bench.splitting.manifest_counts import counts_of
from cissod_bench.splitting.split import Groups, Split
from cissod_bench.splitting.statements import stated
from cissod_bench.splitting.task import Task


@dataclass(frozen=True)
class Input:
    """An annotation file a split was drawn from.

    Attributes:
        path: relative to the data root.
        sha256: hash of its bytes.
        normalised: what was normalised when it was read (``lenient.WORDS``) -> in how many records.
    """

    path: str
    sha256: str
    normalised: Mapping[str, int] = field(default_factory=dict)


def write_split(
    folder: Path, split: Split, task: Task, inputs: Mapping[str, Input], progress: Progress | None = None
) -> Manifest:
    """Write a split's folder, whole or not at all, in place of one that is there; return its manifest.

    Args:
        folder: the split's place, ``split_folder(...)``.
        split: what was drawn.
        task: the sub-task.
        inputs: role -> annotation file.
        progress: called every few thousand records.
    """
    with folder_appearing(folder) as hidden:
        files = write_data_files(hidden, split, progress)
        manifest = describe(split, task, inputs, files)
        write_manifest(hidden, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the folder that holds a split's data files; equal manifests give equal bytes."""
    (folder / MANIFEST).write_bytes(json_bytes(manifest.document))


def describe(split: Split, task: Task, inputs: Mapping[str, Input], files: Mapping[str, str]) -> Manifest:
    """Return the manifest of a split; it holds no time and no absolute path, so equal draws give equal manifests.

    Args:
        split: what was drawn.
        task: the sub-task.
        inputs: role -> annotation file.
        files: data file -> sha256; empty for a split that is not written.
    """
    options = split.options
    hashed = {role: HashedFile(given.path, given.sha256) for role, given in inputs.items()}
    policies = [share.annotations.policy for share in split.shares]
    return Manifest(
        schema=SCHEMA,
        task=task.name,
        title=task.title,
        split_seed=options.split_seed,
        cover=options.cover,
        labelled_percent=options.labelled_percent,
        min_instances=options.min_instances,
        minority=list(options.minority or ()),
        dm_minority=options.dm_minority,
        unlabelled_percent=options.unlabelled_percent,
        stated=stated(task),
        algorithm=ALGORITHM,
        tool_version=__version__,
        **counts_of(split)._asdict(),
        groups=_listed(split.groups),
        views={view: _listed(groups) for view, groups in split.views.items()},
        classes=list(split.classes),
        images=dict(task.images),
        naming=task.naming,
        doubtful_sizes=list(task.swapped),
        metric=task.metric,
        max_dets=task.max_dets,
        inputs=hashed,
        val=hashed["val"],
        normalised={role: dict(given.normalised) for role, given in inputs.items() if given.normalised},
        box_policy={rule: sum(policy.counts()[rule] for policy in policies) for rule in policies[0].counts()},
        rewritten=_rewritten(split),
        dropped={
            "degenerate": sorted(number for policy in policies for number in policy.degenerate),
            "outside": sorted(number for policy in policies for number in policy.outside),
        },
        offsets=_offsets(split),
        ids_sha256=_hashes_of_parts(split),
        files=dict(files),
        split_sha256=split_sha256(files) if files else "",
        hidden_boxes="" if split.hidden_known else UNKNOWN,
    )


def _listed(groups: Groups) -> dict[str, list[str]]:
    return {group: list(names) for group, names in groups.items()}


def _rewritten(split: Split) -> dict[str, list[int]]:
    """Return the ids of the records that had to be changed, but for those of which the manifest says it elsewhere.

    Records of a further share are all rewritten: their ids are offset and their classes those of the first.
    """
    data = [share.annotations for share in split.shares]
    ignored = [share.annotations.box_ids[share.ignored].tolist() for share in split.shares]
    swapped = [annotations.image_ids[annotations.swapped].tolist() for annotations in data]
    return {
        "clipped": sorted(number for annotations in data for number in annotations.policy.clipped),
        "ignored": sorted(chain.from_iterable(ignored)),
        "swapped": sorted(chain.from_iterable(swapped)),
    }


def _offsets(split: Split) -> dict[str, Offset]:
    return {
        share.root: Offset(images=images, annotations=boxes)
        for share, (images, boxes) in zip(split.shares, split.offsets(), strict=True)
        if images or boxes
    }


def ids_sha256(ids: npt.NDArray[np.int64]) -> str:
    """Return the hash of ascending ids, (M,), one a line."""
    return hashlib.sha256("".join(f"{number}\n" for number in ids.tolist()).encode()).hexdigest()


def _hashes_of_parts(split: Split) -> dict[str, str]:
    """Return part -> hash of its image ids."""
    parts: dict[str, list[npt.NDArray[np.int64]]] = {}
    for share, (offset, _) in zip(split.shares, split.offsets(), strict=True):
        for name, rows in {**share.labelled, "unlabelled": share.unlabelled}.items():
            parts.setdefault(name, []).append(share.annotations.image_ids[rows] + offset)
    return {name: ids_sha256(np.sort(np.concatenate(ids))) for name, ids in parts.items()}
