"""What differs between two splits: options, inputs, groups, counts, and which images and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import asdict

from cissod_bench.annotations.columns import Ints, Spans
from cissod_bench.annotations.reading import Annotations, Bools, read_annotations
from cissod_bench.files.json_objects import Progress
from cissod_bench.splitting.data_files import LABELLED
from cissod_bench.splitting.manifest import Manifest, read_manifest
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
    of_a, of_b = read_manifest(a), read_manifest(b)
    images: dict[str, IdsDiffer] = {}
    boxes: dict[str, IdsDiffer] = {}
    files = _differing(of_a.files, of_b.files)
    for name in files:
        of_images, of_boxes = _compare_file(a / name, of_a, b / name, of_b, progress)
        images |= {f"{name}{part}": ids for part, ids in of_images.items() if not ids.equal}
        boxes |= {} if of_boxes.equal else {name: of_boxes}
    return SplitsDiffer(
        facts=_differing(_facts(of_a), _facts(of_b)),
        inputs=_differing(_input_hashes(of_a), _input_hashes(of_b)),
        files=files,
        groups=dict(_groups(of_a.groups, of_b.groups)),
        counts=_differing(_counts(of_a), _counts(of_b)),
        images=images,
        boxes=boxes,
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    values = {key: getattr(manifest, key) for key in _FACTS} | manifest.held(*_FACTS)
    return {key: sorted(value) if isinstance(value, list) else value for key, value in values.items()}


def _input_hashes(manifest: Manifest) -> dict[str, str]:
    return {role: given.sha256 for role, given in manifest.inputs.items()}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _groups(
    a: Mapping[str, list[str]], b: Mapping[str, list[str]]
) -> Iterator[tuple[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    for group in {**a, **b}:
        of_a, of_b = a.get(group, []), b.get(group, [])
        alone = tuple(name for name in of_a if name not in of_b), tuple(name for name in of_b if name not in of_a)
        if any(alone):
            yield group, alone


def _counts(manifest: Manifest) -> dict[str, int]:
    counts = {"counts": manifest.counts, "boxes": asdict(manifest.boxes), "left_out": manifest.left_out}
    return {f"{key}.{name}": count for key, named in counts.items() for name, count in named.items()}


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
    a: Path, of_a: Manifest, b: Path, of_b: Manifest, progress: Progress | None
) -> tuple[dict[str, IdsDiffer], IdsDiffer]:
    """Return how the images of a data file differ, "" -> all and ", D_s" -> those of a part, and how its boxes do."""
    with ExitStack() as stack:
        read = [
            stack.enter_context(
                read_annotations(path, naming=manifest.naming, doubtful=manifest.doubtful_sizes, progress=progress)
            )
            for path, manifest in ((a, of_a), (b, of_b))
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
    changed = [number for number, place_a, place_b in pairs if not _same(a.text(place_a), b.text(place_b))]
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
