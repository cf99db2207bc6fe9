"""The three data files of a split: records copied from the input, sorted by id, one a line.

Sorting by id makes the bytes independent of the input's order; copying makes them the input's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.columns import Ints, Spans
from cissod_bench.annotations.lenient import ABSOLUTE_NAMES, BACKSLASHES, is_hashed
from cissod_bench.annotations.reading import Annotations
from cissod_bench.files.json_objects import Progress
from cissod_bench.splitting.split import Share, Split

LABELLED, UNLABELLED, HIDDEN = "labelled.json", "unlabelled.json", "hidden.json"
FILES = (LABELLED, UNLABELLED, HIDDEN)

Change: TypeAlias = Callable[[int, bytes], bytes]
"""Takes a record's row and bytes and returns the bytes to write."""

_BATCH = 4096
_RELEASE_BYTES = 32 << 20
_PAGES_AROUND = 64 << 10  # what the system maps around a byte that is read


class _Rows(NamedTuple):
    """Rows of the images and of the boxes of one share, each in ascending order of ids."""

    images: Ints
    boxes: Ints


_NONE = np.empty(0, np.int64)


def write_data_files(folder: Path, split: Split, progress: Progress | None = None) -> dict[str, str]:
    """Write ``labelled.json``, ``unlabelled.json`` and ``hidden.json`` and return file name -> sha256.

    Args:
        folder: where to; not yet the split's final place.
        split: the images and boxes.
        progress: called every few thousand records.
    """
    return {
        name: _write(folder / name, split, [_rows(share, name) for share in split.shares], progress) for name in FILES
    }


def _rows(share: Share, name: str) -> _Rows:
    """Return what a share gives to one of the files."""
    data = share.annotations
    if name == LABELLED:
        images = np.concatenate([_NONE, *share.labelled.values()])
        return _Rows(_by_id(data.image_ids, images), _by_id(data.box_ids, np.flatnonzero(share.shown)))
    images = _by_id(data.image_ids, share.unlabelled)
    boxes = np.flatnonzero(share.hidden) if name == HIDDEN and len(images) else _NONE
    return _Rows(images, _by_id(data.box_ids, boxes))


def _by_id(ids: Ints, rows: Ints) -> Ints:
    return rows[np.argsort(ids[rows])]


def _write(path: Path, split: Split, rows: Sequence[_Rows], progress: Progress | None) -> str:
    base = split.shares[0].annotations
    total, done = sum(len(of_share.images) + len(of_share.boxes) for of_share in rows), 0
    offsets = split.offsets()

    def write(kind: str, blocks: Iterable[Iterable[tuple[int, bytes]]]) -> None:
        nonlocal done
        out.write(b'"%s":[' % kind.encode())
        begun = False
        for count, block in chain.from_iterable(blocks):
            out.write(b",\n" if begun else b"\n")
            out.write(block)
            begun = True
            done += count
            if progress is not None:
                progress(f"Writing {path.name}", done, total)
        out.write(b"\n],\n" if begun else b"],\n")

    with _HashedFile(path) as out:
        extras = b"".join(b'"%s":%s,\n' % (key.encode(), text) for key, text in base.extras.items())
        out.write(b"{" + extras)
        together = list(zip(split.shares, rows, offsets, strict=True))
        write("images", (_images(split, share, of_share.images, by) for share, of_share, by in together))
        write("annotations", (_boxes(split, share, of_share.boxes, by) for share, of_share, by in together))
        out.write(b'"categories":[\n' + b",\n".join(base.categories) + b"\n]}\n")
    return out.sha256


def _images(split: Split, share: Share, rows: Ints, offsets: tuple[int, int]) -> Iterator[tuple[int, bytes]]:
    """Yield (records, text) of the image records, with the part and folder each belongs to."""
    data = share.annotations
    part = {int(row): name for name, images in share.labelled.items() for row in images} if split.parted else {}
    swapped = frozenset(data.swapped.tolist())
    odd = data.odd_images

    def record(row: int, text: bytes) -> bytes:
        if odd is not None and odd[row]:
            text = _plain_image(data, row, text)
        if row in swapped:
            text = _replaced(text, width=int(data.widths[row]), height=int(data.heights[row]))
        if offsets[0]:
            text = _replaced(text, id=int(data.image_ids[row]) + offsets[0])
        named = {"part": part.get(row), "root": share.root or None}
        return add_keys(text, {key: value for key, value in named.items() if value is not None})

    changes = bool(offsets[0] or share.root) or odd is not None or not (part.keys() | swapped).isdisjoint(rows.tolist())
    return _blocks(data, data.image_spans, rows, record if changes else None)


def _boxes(split: Split, share: Share, rows: Ints, offsets: tuple[int, int]) -> Iterator[tuple[int, bytes]]:
    """Yield (records, text) of the box records, rewritten where the policy, the classes or the ids ask for it."""
    data = share.annotations
    rewritten = data.clipped | share.ignored
    category_ids = split.shares[0].annotations.category_ids
    renumbered = share.channels is not None or any(offsets)
    odd = data.odd_boxes

    def record(row: int, text: bytes) -> bytes:
        if odd is not None and odd[row]:
            text = _plain_box(data, row, text)
        if rewritten[row]:
            text = rewrite_box(text, data.boxes[row] if data.clipped[row] else None, ignore=bool(share.ignored[row]))
        if not renumbered:
            return text
        return _replaced(
            text,
            id=int(data.box_ids[row]) + offsets[1],
            image_id=int(data.image_ids[data.box_image[row]]) + offsets[0],
            category_id=category_ids[share.box_class[row]],
        )

    changes = bool(rewritten.any()) or renumbered or odd is not None
    return _blocks(data, data.box_spans, rows, record if changes else None)


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
        yield len(batch), b",\n".join(records)
        mapped += int((stops - starts).sum()) + _PAGES_AROUND * len(np.unique(starts // _PAGES_AROUND))
        if mapped > _RELEASE_BYTES:
            data.file.release()
            mapped = 0


def add_keys(record: bytes, keys: Mapping[str, str]) -> bytes:
    """Return a record with these keys first ("part": "D_m", "root": "coco"); the rest stays as it is."""
    if not keys:
        return record
    if any(b'"%s"' % key.encode() in record for key in keys):
        others = {key: value for key, value in _members(record).items() if key not in keys}
        return msgspec.json.encode({**keys, **others})
    return msgspec.json.encode(keys)[:-1] + b"," + record[1:].lstrip()


def _plain_image(data: Annotations, row: int, record: bytes) -> bytes:
    """Return an image record with plain numbers and name; an id that is numbered by its hash stays as "original_id"."""
    members = _members(record)
    if is_hashed(msgspec.json.decode(members["id"])):
        members["original_id"] = members["id"]
    if "file_name" in members and not data.normalised.keys().isdisjoint((ABSOLUTE_NAMES, BACKSLASHES)):
        members["file_name"] = msgspec.Raw(msgspec.json.encode(data.file_names[row]))
    numbers = {"id": data.image_ids[row], "width": data.widths[row], "height": data.heights[row]}
    return msgspec.json.encode({**members, **{key: int(value) for key, value in numbers.items()}})


def _plain_box(data: Annotations, row: int, record: bytes) -> bytes:
    """Return a box record with plain numbers."""
    numbers = {
        "id": data.box_ids[row],
        "image_id": data.image_ids[data.box_image[row]],
        "category_id": data.category_ids[data.box_class[row]],
        "iscrowd": data.crowd[row],
    }
    members = _members(record)
    return msgspec.json.encode({**members, **{key: int(number) for key, number in numbers.items() if key in members}})


def _replaced(record: bytes, **values: int) -> bytes:
    """Return a record with other whole numbers; the other values keep their bytes."""
    numbers = {key: msgspec.Raw(b"%d" % value) for key, value in values.items()}
    return msgspec.json.encode({**_members(record), **numbers})


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
