"""Labelled images of a user's own task: of any format, also a COCO file without sizes, and what they are made of."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.annotations.conversion import part_of
from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.label_files import format_of, read_labels
from cissod_bench.annotations.yolo import label_file
from cissod_bench.annotations.yolo_data import read_data_yaml
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import JsonFile

_ARRAYS = ("images", "annotations", "categories")
_AGAIN = "export the file in the format of COCO instances"


def read_labelled_source(path: Path, images: Path | None, part: str) -> Labelled:
    """Return the labels of a source; records of a COCO file may lack a size, and are not checked otherwise.

    Args:
        path: a COCO file, YOLO's ``data.yaml`` or a folder of PASCAL VOC's XML files.
        images: the folder of its images; None as in ``read_labels``.
        part: of a YOLO data set that has several.

    Raises:
        DataFault: the source is missing or breaks a rule of its format. What is wrong in the records of a COCO file is
            told where they are read as numbers (``read_annotations``).
    """
    if format_of(path) != "coco":
        return read_labels(path, images, part=part_of(path, part))
    with JsonFile(path) as file:
        keys = {member.key for member in file.members() if member.value()}
    if missing := [key for key in _ARRAYS if key not in keys]:
        raise DataFault(f"{path}: the key {missing[0]!r} is missing.", remedy=_AGAIN)
    data = path.read_bytes()
    try:
        content: dict[str, Any] = msgspec.json.decode(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataFault(f"{path} is no JSON: {error}.", remedy=_AGAIN) from None
    for key in _ARRAYS:
        records = content[key]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise DataFault(f"{path}: {key} must be a list of objects.", remedy=_AGAIN)
    return Labelled(
        format="coco", source=path, images=path.parent if images is None else images, content=content, counts={}
    )


def files_of_source(path: Path, part: str) -> Iterator[Path]:
    """Yield the files and folders that a source's labels depend on, its images aside; a broken one may yield few.

    Args:
        path: as for ``read_labelled_source``.
        part: likewise.
    """
    yield path
    if path.name.lower().endswith((".yaml", ".yml")):
        try:
            images = read_data_yaml(path).images(part_of(path, part))
        except DataFault:  # reading it says why
            return
        for image in images:
            yield image
            yield label_file(image)
