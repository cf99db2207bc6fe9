"""Labels of any format as the content of a COCO-style annotation file.

Images and boxes are numbered from 1 in the order of the images' names, and boxes of an image in the order of its file:
two copies of the same labels, in whatever format, have the same numbers, and a draw depends on these alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Content: TypeAlias = dict[str, Any]
"""What a COCO-style annotation file holds: "images", "annotations", "categories" and perhaps more."""

WORDS = {
    "without_labels": "images without a label file, read as images without objects",
    "without_image": "label files without an image, passed over",
    "outlines": "outlines, read as the boxes around them",
    "ignored": "objects marked as difficult, read as ignore regions",
    "sizes_read": "images whose annotation states no size, measured",
    "listed_twice": "images that are listed twice, read once",
    "without_annotation": "images without an annotation, left out",
}
"""What was done in reading -> in words, behind a count."""


class LabelledObject(NamedTuple):
    """One labelled object: name of its class, box x, y, width, height in pixels, and whether it is an ignore region."""

    name: str
    box: tuple[float, float, float, float]
    ignored: bool = False


class LabelledImage(NamedTuple):
    """One labelled image: its name below the image folder, width and height in pixels, objects in their order."""

    file_name: str
    width: int
    height: int
    objects: Sequence[LabelledObject]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What was read from one labelled source.

    Attributes:
        format: "coco", "yolo" or "voc".
        source: the file or folder that was read.
        images: the folder that the images' names are relative to.
        content: as a COCO-style annotation file; its categories are all classes that the source names.
        counts: what was done in reading, a key of ``WORDS`` -> how often; what was not done is not there.
    """

    format: str
    source: Path
    images: Path
    content: Content
    counts: Mapping[str, int]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers."""
        return tuple(one["name"] for one in sorted(self.content["categories"], key=lambda one: one["id"]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done in reading, a phrase each."""
        return tuple(f"{self.counts[key]:,} {words}" for key, words in WORDS.items() if self.counts.get(key))


def content_of(images: Iterable[LabelledImage], categories: Mapping[int, str]) -> Content:
    """Return labelled images as the content of a COCO-style annotation file.

    An ignore region is written as ``iscrowd`` 1. ``area`` is that of the box.

    Args:
        images: in any order.
        categories: number -> name of every class.
    """
    numbers = {name: number for number, name in categories.items()}
    records: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, image in enumerate(sorted(images, key=lambda image: image.file_name), 1):
        records.append({"id": number, "file_name": image.file_name, "width": image.width, "height": image.height})
        boxes += [
            {
                "id": first,
                "image_id": number,
                "category_id": numbers[labelled.name],
                "bbox": list(labelled.box),
                "area": round(labelled.box[2] * labelled.box[3], 4),
                "iscrowd": int(labelled.ignored),
            }
            for first, labelled in enumerate(image.objects, len(boxes) + 1)
        ]
    classes = [{"id": number, "name": name} for number, name in sorted(categories.items())]
    return {"images": records, "annotations": boxes, "categories": classes}
