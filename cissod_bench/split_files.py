"""The three data files of a split: records copied from the input, sorted by id, one a line.

Sorting by id makes the bytes independent of the input's order; copying makes them the input's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.annotations import Annotations, Bools, Ints, Spans
from cissod_bench.drawing import Source

LABELLED, UNLABELLED, HIDDEN = "labelled.json", "unlabelled.json", "hidden.json"
FILES = (LABELLED, UNLABELLED, HIDDEN)

Progress = Callable[[str, int, int], None]
"""Called with the file's name, the records written and all records."""

_BATCH = 4096
_RELEASE_BYTES = 64 << 20


def hidden_boxes(source: Source) -> Bools:
    """Return the boxes on images of D_u, bool (N,)."""
    on_unlabelled = np.zeros(len(source.annotations.image_ids), np.bool_)
    on_unlabelled[source.unlabelled] = True
    return on_unlabelled[source.annotations.box_image]


def write_data_files(folder: Path, source: Source, progress: Progress | None = None) -> dict[str, str]:
    """Write ``labelled.json``, ``unlabelled.json`` and ``hidden.json`` and return file name -> sha256.

    Args:
        folder: where to; not yet the split's final place.
        source: the images and boxes.
        progress: called every few thousand records.
    """
    data = source.annotations
    labelled = np.concatenate(list(source.labelled.values()))
    part = {int(row): name for name, rows in source.labelled.items() for row in rows}
    labelled = labelled[np.argsort(data.image_ids[labelled])]

    def image_with_part(row: int, record: bytes) -> bytes:
        return add_part(record, part[row])

    contents: dict[str, tuple[Ints, Bools, Callable[[int, bytes], bytes] | None]] = {
        LABELLED: (labelled, source.shown, image_with_part),
        UNLABELLED: (source.unlabelled, np.zeros(len(data.box_ids), np.bool_), None),
        HIDDEN: (source.unlabelled, hidden_boxes(source), None),
    }
    hashes = {}
    for name, (images, boxes, change) in contents.items():
        rows = np.flatnonzero(boxes)
        rows = rows[np.argsort(data.box_ids[rows], kind="stable")]
        total = len(images) + len(rows)

        def told(done: int, name: str = name, total: int = total) -> None:
            if progress is not None:
                progress(name, done, total)

        hashes[name] = _write(folder / name, data, images, rows, change, source.ignored, told)
    return hashes


def _write(
    path: Path, data: Annotations, images: Ints, boxes: Ints, change: Callable[[int, bytes], bytes] | None, ignored: Bools, told: Callable[[int], None]
) -> str:
    rewritten = data.clipped | ignored

    def box_record(row: int, record: bytes) -> bytes:
        return rewrite_box(record, data.boxes[row] if data.clipped[row] else None, ignore=bool(ignored[row])) if rewritten[row] else record

    with _HashedFile(path) as out:
        out.write(b"{")
        for key, text in data.extras.items():
            out.write(f'"{key}":'.encode() + text + b",\n")
        out.write(b'"images":[')
        done = 0
        for count, block in _blocks(data, data.image_spans, images, change):
            out.write(block)
            told(done := done + count)
        out.write(b'],\n"annotations":[')
        for count, block in _blocks(data, data.box_spans, boxes, box_record if rewritten.any() else None):
            out.write(block)
            told(done := done + count)
        out.write(b'],\n"categories":[\n' + b",\n".join(data.categories) + b"\n]}\n")
    return out.sha256


def _blocks(data: Annotations, spans: Spans, rows: Ints, change: Callable[[int, bytes], bytes] | None) -> Iterator[tuple[int, bytes]]:
    """Yield (records, text) of a few thousand records each, with the commas and line ends between them."""
    read, unreleased = data.file.read, 0
    for at in range(0, len(rows), _BATCH):
        batch = rows[at : at + _BATCH]
        starts = spans.offsets[batch]
        stops = starts + spans.lengths[batch]
        records: Iterable[bytes] = map(read, starts.tolist(), stops.tolist())
        if change is not None:
            records = map(change, batch.tolist(), records)
        text = (b",\n" if at else b"\n") + b",\n".join(records)
        unreleased += len(text)
        if unreleased > _RELEASE_BYTES:
            data.file.release()
            unreleased = 0
        yield len(batch), text
    if len(rows):
        yield 0, b"\n"


def add_part(record: bytes, part: str) -> bytes:
    """Return an image record with its part ("D_m", "D_s") as the first key; the rest stays as it is."""
    if b'"part"' in record:
        return msgspec.json.encode({"part": part, **{k: v for k, v in _members(record).items() if k != "part"}})
    return b'{"part":"' + part.encode() + b'",' + record[1:].lstrip()


def rewrite_box(record: bytes, box: npt.NDArray[np.float64] | None, *, ignore: bool) -> bytes:
    """Return a box record with another box, or as an ignore region (iscrowd 1); the other values keep their bytes.

    ``area`` follows the box only where it was the box's area; else it is the area of a mask, which stays.
    """
    members = _members(record)
    if box is not None:
        _, _, width, height = msgspec.json.decode(members["bbox"], type=tuple[float, float, float, float])
        area = msgspec.json.decode(members["area"]) if "area" in members else None
        if isinstance(area, (int, float)) and abs(area - width * height) <= 0.01 * max(abs(area), 1.0):
            members["area"] = msgspec.Raw(msgspec.json.encode(round(float(box[2] * box[3]), 4)))
        members["bbox"] = msgspec.Raw(msgspec.json.encode(box.tolist()))
    if ignore:
        members["iscrowd"] = msgspec.Raw(b"1")
    return msgspec.json.encode(members)


def _members(record: bytes) -> dict[str, Any]:
    return msgspec.json.decode(record, type=dict[str, msgspec.Raw])


class _HashedFile:
    """A file whose hash is counted in a thread while the next block is gathered; synced when it closes."""

    def __init__(self, path: Path) -> None:
        self._stream = open(path, "xb")  # noqa: SIM115 - closed by __exit__
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self.sha256 = ""

    def __enter__(self) -> _HashedFile:
        return self

    def write(self, block: bytes) -> None:
        if self._pending is not None:
            self._pending.result()  # one block waits at most: memory stays bounded
        self._pending = self._pool.submit(self._digest.update, block)
        self._stream.write(block)

    def __exit__(self, *failed: object) -> None:
        self._pool.shutdown()
        self.sha256 = self._digest.hexdigest()
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())
