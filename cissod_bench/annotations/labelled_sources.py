"""Labelled images as somebody has them: a source is read into the content of one COCO-style annotation file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import JsonFile

Content: TypeAlias = dict[str, Any]
"""What a COCO-style annotation file holds: "images", "annotations", "categories" and perhaps more."""

ARRAYS = ("images", "annotations", "categories")


@dataclass(frozen=True, kw_only=True)
class LabelledSource:
    """What was read from one labelled source.

    Attributes:
        content: as a COCO-style annotation file; its categories are all classes that the source names.
        images: the folder that the images' names are relative to.
        counts: what was done in reading -> how often.
    """

    content: Content
    images: Path
    counts: Mapping[str, int] = field(default_factory=dict)


def read_labelled_source(path: Path, images: Path | None) -> LabelledSource:
    """Return what a labelled source holds.

    Args:
        path: an annotation file in COCO's format, ``.json`` or gzipped.
        images: the folder of its images.

    Raises:
        DataFault: the source is missing or broken, or needs a folder of images that is not named. What is wrong in
            its records is told where they are read as numbers (``read_annotations``).
    """
    if images is None:
        raise DataFault(f"{path}: the folder of its images is not named.", remedy='add images = "FOLDER" below it')
    with JsonFile(path) as file:
        texts = {member.key: member.value() for member in file.members()}
    if missing := [key for key in ARRAYS if key not in texts]:
        raise DataFault(
            f"{path}: the key {missing[0]!r} is missing; an annotation file has images, annotations and categories.",
            remedy=f'write "{missing[0]}": [...] beside the others, or export the file as COCO instances',
        )
    try:
        content = {key: msgspec.json.decode(text) for key, text in texts.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataFault(f"{path} is no JSON: {error}.", remedy="export the file again") from None
    for key in ARRAYS:
        records = content[key]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise DataFault(f"{path}: {key} must be a list of objects.", remedy="export the file as COCO instances")
    return LabelledSource(content=content, images=images)
