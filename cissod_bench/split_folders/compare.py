"""What differs between two splits: options, inputs, groups, counts, and which images and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cissod_bench.annotations.columns import Ints, Spans
from cissod_bench.annotations.reading import Annotations, Bools, read_annotations
from cissod_bench.files.json_objects import Progress
from cissod_bench.split_folders.listing import read_split
from cissod_bench.splitting.data_files import LABELLED
from cissod_bench.splitting.manifest import Manifest
from cissod_bench.splitting.parts import stated_parts
from cissod_bench.splitting.statements import OPTIONS

FIRST = 5
"""How many of the differing ids are named."""

_FACTS = ("task", "split_seed", *OPTIONS, "algorithm", "naming", "metric", "max_dets", "imported")


@dataclass(frozen=True)
class IdsDiffer:
    """How the ids of two lists differ.

    Attributes:
        both: ids in both.
        only_a, only_b: ids in one alone.
        first_a, first_b: the first ``FIRST`` of those, ascending.
        changed: ids in both whose records differ.
        first_changed: the first ``FIRST`` of those.
    """

    both: int
    only_a: int
    only_b: int
    first_a: tuple[int, ...]
    first_b: tuple[int, ...]
    changed: int = 0
    first_changed: tuple[int, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether no id and no record differs."""
        return not (self.only_a or self.only_b or self.changed)


@dataclass(frozen=True)
class SplitsDiffer:
    """How two splits differ; a mapping holds only what differs.

    Attributes:
        facts: task, seed, options and the like -> (of A, of B).
        inputs: role -> (sha256 of A, of B).
        files: data file -> (sha256 of A, of B).
        groups: group -> (classes of A alone, of B alone).
        counts: "counts.labelled" and the like -> (of A, of B).
        images: data file -> its ids; "labelled.json, D_s" and the like -> those of a part. Files with the same hash are
            not read.
        boxes: data file -> its ids.
    """

    facts: Mapping[str, tuple[Any, Any]]
    inputs: Mapping[str, tuple[str | None, str | None]]
    files: Mapping[str, tuple[str, str]]
    groups: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    counts: Mapping[str, tuple[int, int]]
    images: Mapping[str, IdsDiffer]
    boxes: Mapping[str, IdsDiffer]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.facts or self.inputs or self.files or self.groups or self.counts or self.images or self.boxes)


def compare(a: Path, b: Path, progress: Progress | None = None) -> SplitsDiffer:
    """Return how two splits differ.

    Args:
        a: folder of one.
        b: folder of the other.
        progress: called while data files are read.

    Raises:
        DataFault: a folder holds no split, or a data file that must be read is missing or broken.
    """
    one, other = read_split(a), read_split(b)
    images: dict[str, IdsDiffer] = {}
    boxes: dict[str, IdsDiffer] = {}
    files = _differing(one["files"], other["files"])
    for name in files:
        of_images, of_boxes = _compare_file(a / name, one, b / name, other, progress)
        images |= {f"{name}{part}": ids for part, ids in of_images.items() if not ids.equal}
        boxes |= {} if of_boxes.equal else {name: of_boxes}
    return SplitsDiffer(
        facts=_differing({key: _fact(one, key) for key in _FACTS}, {key: _fact(other, key) for key in _FACTS}),
        inputs=_differing(*({role: one["sha256"] for role, one in m["inputs"].items()} for m in (one, other))),
        files=files,
        groups=dict(_groups(one["groups"], other["groups"])),
        counts=_differing(*(_counts(manifest) for manifest in (one, other))),
        images=images,
        boxes=boxes,
    )


_OLD = {"unlabelled_percent": 100.0, "naming": "file_name", "imported": False}
"""What manifests that lack a key mean."""


def _fact(manifest: Manifest, key: str) -> Any:
    value = manifest.get(key, _OLD.get(key))
    return sorted(value) if isinstance(value, list) else value


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _groups(
    a: Mapping[str, list[str]], b: Mapping[str, list[str]]
) -> Iterator[tuple[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    for group in {**a, **b}:
        one, other = a.get(group, []), b.get(group, [])
        alone = tuple(name for name in one if name not in other), tuple(name for name in other if name not in one)
        if any(alone):
            yield group, alone


def _counts(manifest: Manifest) -> dict[str, int]:
    keys = ("counts", "boxes", "left_out")
    return {f"{key}.{name}": count for key in keys for name, count in manifest.get(key, {}).items()}


@dataclass(frozen=True)
class _Records:
    """Ids in ascending order and where their records stand."""

    data: Annotations
    ids: Ints
    spans: Spans

    def text(self, place: int) -> bytes:
        """Return the record of the id at a place."""
        start = int(self.spans.offsets[place])
        return self.data.file.read(start, start + int(self.spans.lengths[place]))


def _sorted(data: Annotations, ids: Ints, spans: Spans, only: Bools | slice = slice(None)) -> _Records:
    ids, spans = ids[only], spans.only(only)
    order = np.argsort(ids, kind="stable")
    return _Records(data, ids[order], Spans(spans.offsets[order], spans.lengths[order]))


def _compare_file(
    a: Path, one: Manifest, b: Path, other: Manifest, progress: Progress | None
) -> tuple[dict[str, IdsDiffer], IdsDiffer]:
    """Return how the images of a data file differ, "" -> all and ", D_s" -> those of a part, and how its boxes do."""
    with ExitStack() as stack:
        read = [
            stack.enter_context(read_annotations(path, naming=manifest.get("naming", "file_name"), progress=progress))
            for path, manifest in ((a, one), (b, other))
        ]
        images = {"": _compare_ids(*(_sorted(data, data.image_ids, data.image_spans) for data in read))}
        if a.name == LABELLED:
            parts = [np.array(stated_parts(data), dtype=object) for data in read]
            for part in sorted({*parts[0].tolist(), *parts[1].tolist()} - {""}):
                chosen = zip(read, parts, strict=True)
                records = (_sorted(data, data.image_ids, data.image_spans, of == part) for data, of in chosen)
                images[f", {part}"] = _compare_ids(*records)
        return images, _compare_ids(*(_sorted(data, data.box_ids, data.box_spans) for data in read))


def _compare_ids(a: _Records, b: _Records) -> IdsDiffer:
    only_a, only_b = np.setdiff1d(a.ids, b.ids, assume_unique=True), np.setdiff1d(b.ids, a.ids, assume_unique=True)
    both, in_a, in_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    pairs = zip(both.tolist(), in_a.tolist(), in_b.tolist(), strict=True)
    changed = [number for number, one, other in pairs if not _same(a.text(one), b.text(other))]
    return IdsDiffer(
        both=len(both),
        only_a=len(only_a),
        only_b=len(only_b),
        first_a=tuple(only_a[:FIRST].tolist()),
        first_b=tuple(only_b[:FIRST].tolist()),
        changed=len(changed),
        first_changed=tuple(changed[:FIRST]),
    )


def _same(a: bytes, b: bytes) -> bool:
    """Return whether two records say the same, whatever their white space and the order of their keys."""
    return a == b or msgspec.json.decode(a) == msgspec.json.decode(b)
