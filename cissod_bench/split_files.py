"""The three data files of a split: records copied from the input, sorted by id, one a line.

Sorting by id makes the bytes independent of the input's order; copying makes them the input's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.annotations import Annotations, Bools
from cissod_bench.columns import Ints, Spans
from cissod_bench.json_files import Progress
from cissod_bench.split import Source

LABELLED, UNLABELLED, HIDDEN = "labelled.json", "unlabelled.json", "hidden.json"
FILES = (LABELLED, UNLABELLED, HIDDEN)

Change: TypeAlias = Callable[[int, bytes], bytes]
"""Takes a record's row and bytes and returns the bytes to write."""

_BATCH = 4096
_RELEASE_BYTES = 64 << 20
_PAGES_AROUND = 64 << 10  # what the system maps around a byte that is read


def hidden_boxes(source: Source) -> Bools:
    """Return the boxes on images of D_u, bool (N,)."""
    on_unlabelled = np.zeros(len(source.annotations.image_ids), np.bool_)
    on_unlabelled[source.unlabelled] = True
    return on_unlabelled[source.annotations.box_image]


class _Rows(NamedTuple):
    """Rows of the images and of the boxes of one file, each in ascending order of ids."""

    images: Ints
    boxes: Ints


def write_data_files(folder: Path, source: Source, progress: Progress | None = None) -> dict[str, str]:
    """Write ``labelled.json``, ``unlabelled.json`` and ``hidden.json`` and return file name -> sha256.

    Args:
        folder: where to; not yet the split's final place.
        source: the images and boxes.
        progress: called every few thousand records.
    """
    data = source.annotations
    shown, hidden = np.flatnonzero(source.shown), np.flatnonzero(hidden_boxes(source))
    labelled = np.concatenate(list(source.labelled.values()))
    contents = {
        LABELLED: _Rows(_by_id(data.image_ids, labelled), _by_id(data.box_ids, shown)),
        UNLABELLED: _Rows(_by_id(data.image_ids, source.unlabelled), np.empty(0, np.int64)),
        HIDDEN: _Rows(_by_id(data.image_ids, source.unlabelled), _by_id(data.box_ids, hidden)),
    }
    return {name: _write(folder / name, source, rows, progress) for name, rows in contents.items()}


def _by_id(ids: Ints, rows: Ints) -> Ints:
    return rows[np.argsort(ids[rows], kind="stable")]


def _write(path: Path, source: Source, rows: _Rows, progress: Progress | None) -> str:
    data = source.annotations
    part = {int(row): name for name, images in source.labelled.items() for row in images}
    rewritten = data.clipped | source.ignored
    total, done = len(rows.images) + len(rows.boxes), 0

    def image_record(row: int, record: bytes) -> bytes:
        return add_part(record, part[row]) if row in part else record

    def box_record(row: int, record: bytes) -> bytes:
        if not rewritten[row]:
            return record
        return rewrite_box(record, data.boxes[row] if data.clipped[row] else None, ignore=bool(source.ignored[row]))

    def write(blocks: Iterable[tuple[int, bytes]]) -> None:
        nonlocal done
        for count, block in blocks:
            out.write(block)
            done += count
            if progress is not None:
                progress(f"Writing {path.name}", done, total)

    with _HashedFile(path) as out:
        extras = b"".join(b'"%s":%s,\n' % (key.encode(), text) for key, text in data.extras.items())
        out.write(b"{" + extras + b'"images":[')
        write(_blocks(data, data.image_spans, rows.images, image_record))
        out.write(b'],\n"annotations":[')
        write(_blocks(data, data.box_spans, rows.boxes, box_record if rewritten.any() else None))
        out.write(b'],\n"categories":[\n' + b",\n".join(data.categories) + b"\n]}\n")
    return out.sha256


def _blocks(data: Annotations, spans: Spans, rows: Ints, change: Change | None) -> Iterator[tuple[int, bytes]]:
    """Yield (records, text) of a few thousand records each, with the commas and line ends between them."""
    mapped = 0
    for at in range(0, len(rows), _BATCH):
        batch = rows[at : at + _BATCH]
        starts = spans.offsets[batch]
        stops = starts + spans.lengths[batch]
        records: Iterable[bytes] = map(data.file.read, starts.tolist(), stops.tolist())
        if change is not None:
            records = map(change, batch.tolist(), records)
        yield len(batch), (b",\n" if at else b"\n") + b",\n".join(records)
        mapped += min(int(stops.max() - starts.min()), int((stops - starts).sum()) + _PAGES_AROUND * len(batch))
        if mapped > _RELEASE_BYTES:
            data.file.release()
            mapped = 0
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
