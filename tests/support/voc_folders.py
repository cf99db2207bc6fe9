"""Small copies of VOC2012, written by code: XML annotations as VOC writes them, and photographs of one colour."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from cissod_bench.splitting.task import Conversion, Task
from cissod_bench.splitting.voc_files import VOC2012, Photographs, write_voc
from splits.voc_animals import ANIMALS, SOURCES, TASK, divided

Object = tuple[str, tuple[float, float, float, float]]
"""Class, and xmin, ymin, xmax, ymax as VOC writes them."""

YEAR = "2008"


def name_of(number: int) -> str:
    """The file name of a photograph of 2008."""
    return f"{YEAR}_{number:06d}.jpg"


def object_text(found: Object, difficult: str = "0") -> str:
    """An object as VOC2012 writes it, with a part and the odd order of corners that occurs there."""
    name, (xmin, ymin, xmax, ymax) = found
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
    )


def annotation_text(name: str, objects: str, size: tuple[object, object] = (40, 30)) -> str:
    """An annotation as VOC2012 writes it."""
    return (
        f"<annotation>\n<folder>VOC2012</folder>\n<filename>{name}</filename>\n<source><image>flickr</image></source>\n"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n{objects}</annotation>\n"
    )


def add(root: Path, name: str, text: str, *, photograph: bool = True) -> Path:
    """Write the annotation and the photograph of an image; return the annotation's path."""
    for folder in ("Annotations", "JPEGImages"):
        (root / VOC2012 / folder).mkdir(parents=True, exist_ok=True)
    path = root / VOC2012 / "Annotations" / f"{Path(name).stem}.xml"
    path.write_text(text, encoding="utf-8")
    if photograph:
        grey = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 200
        cv2.imwrite(str(root / VOC2012 / "JPEGImages" / name), np.full((30, 40, 3), grey, np.uint8))
    return path


def add_image(root: Path, number: int, *objects: Object, difficult: Sequence[Object] = ()) -> Path:
    """Write an image with these objects; return the annotation's path."""
    texts = [*(object_text(found) for found in objects), *(object_text(found, "1") for found in difficult)]
    return add(root, name_of(number), annotation_text(name_of(number), "".join(texts)))


BOX = (3.0, 2.0, 20.5, 19.0)


def small_copy(root: Path, images: int = 80, difficult: Sequence[str] = ("dog",)) -> Task:
    """Write a copy with animals, people and difficult objects; return the task of voc-animals that counts these.

    Every fourth image shows a minority class; every fifth a person beside, every tenth ``difficult`` objects.
    """
    boxes = dict.fromkeys(("person", "dog", "cat", "sheep", "horse", "cow"), 0)
    for number in range(1, images + 1):
        rare = ("sheep", "horse", "cow")[number // 4 % 3]
        shown = [rare if number % 4 == 0 else ("dog", "cat")[number % 2], *["person"] * (number % 5 == 0)]
        for name in shown:
            boxes[name] += 1
        objects = [(name, BOX) for name in shown]
        add_image(root, number, *objects, difficult=[(name, (1, 1, 9, 9)) for name in difficult if number % 10 == 0])
    counted = replace(ANIMALS, years={YEAR: images}, boxes=boxes, all_boxes=sum(boxes.values()))
    return counting(counted)


def counting(photographs: Photographs) -> Task:
    """The task of voc-animals that expects so many photographs."""

    def write(data_root: Path, folder: Path) -> None:
        write_voc(folder, data_root, photographs, ("person", "dog", "cat", "sheep", "horse", "cow"), divided)

    return replace(
        TASK,
        name="voc-animals",
        conversion=Conversion(SOURCES, write),
        draw_defaults={"labelled_percent": 20.0, "min_instances": 2},
    )
