"""Detections as COCO result files, gzipped: the same detections give the same bytes, in whatever pieces they come.

They become packed text image by image, 25 bytes per detection. As a list of Python's dicts, 100 detections on each of
the 80,000 images of Objects365 would take 4.6 GB (measured on 8,000).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from cissod_bench.contract.parts import Detections
from cissod_bench.files.whole_files import replacing

_PIECE = 1_000_000  # bytes of text that are packed at once
_GZIP = 16 + zlib.MAX_WBITS  # zlib's word for a gzip header, which it writes without a time


def text_of(found: Detections, category_ids: Sequence[int]) -> str:
    """Return an image's detections in COCO's result format, as the inside of a JSON array.

    Args:
        found: in pixels of the image.
        category_ids: category id of every channel.
    """
    return msgspec.json.encode(_records(found, category_ids))[1:-1].decode("ascii")


def _records(found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return detections in COCO's result format."""
    corners = found.boxes.double().cpu()
    xywh = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    return [
        {
            "image_id": found.image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 6),
        }
        for box, label, score in zip(xywh, found.labels.tolist(), found.scores.double().tolist(), strict=True)
    ]


class _Packed:
    """One file in the making: what is held of it is packed text."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(6, wbits=_GZIP)
        self._packed: list[bytes] = []
        self._waiting: list[str] = []
        self._size = 0
        self._before = "["

    def add(self, text: str) -> None:
        """Take the text of the next image."""
        if not text:
            return
        self._waiting += [self._before, text]
        self._before = ","
        self._size += len(text)
        if self._size >= _PIECE:
            self._pack()

    def _pack(self) -> None:
        self._packed.append(self._packer.compress("".join(self._waiting).encode("ascii")))
        self._waiting, self._size = [], 0

    def write(self, path: Path) -> None:
        """Write the file."""
        self._waiting.append("[]" if self._before == "[" else "]")
        self._pack()
        with replacing(path) as stream:
            stream.writelines([*self._packed, self._packer.flush()])


def write_texts(paths: Sequence[Path], texts: Iterator[Sequence[str]]) -> None:
    """Write COCO result files side by side.

    What is held meanwhile is the packed text: a file is opened when all are complete, so that a run that is killed
    while it predicts leaves nothing behind.

    Args:
        paths: the files.
        texts: of every image one text per file, as `text_of` gives it.
    """
    files = [_Packed() for _ in paths]
    for of_image in texts:
        for file, text in zip(files, of_image, strict=True):
            file.add(text)
    for file, path in zip(files, paths, strict=True):
        file.write(path)


def write_predictions(path: Path, found: Iterable[Detections], category_ids: Sequence[int]) -> None:
    """Write one COCO result file, gzipped.

    Args:
        path: the file.
        found: detections, image by image.
        category_ids: category id of every channel.
    """
    write_texts([path], ([text_of(of_image, category_ids)] for of_image in found))
