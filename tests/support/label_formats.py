"""One small data set, written by code in the formats of MS-COCO, YOLO and PASCAL VOC."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SIZE = (200, 160)


@dataclass(frozen=True)
class Photo:
    """An image: its name without the ending, and class and box x, y, width, height in whole pixels of each object."""

    stem: str
    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]


def photos(count: int, *, seed: int = 0) -> list[Photo]:
    """Images with one to three seals or boats, and a puffin on every fourth."""
    dice = random.Random(seed)
    made = []
    for number in range(count):
        names = [dice.choice(("boat", "seal")) for _ in range(dice.randint(1, 3))] + ["puffin"] * (number % 4 == 0)
        boxes = [(dice.randint(0, 99), dice.randint(0, 79), dice.randint(5, 100), dice.randint(5, 80)) for _ in names]
        made.append(Photo(f"photo{number:03d}", tuple(zip(names, boxes, strict=True))))
    return made


CLASSES = ("boat", "puffin", "seal")


def write_images(folder: Path, shown: Sequence[Photo]) -> Path:
    """Write each photo, a grey of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for grey, photo in enumerate(shown):
        Image.new("L", SIZE, grey % 256).save(folder / f"{photo.stem}.png")
    return folder


def write_coco(path: Path, shown: Sequence[Photo]) -> Path:
    """Write a COCO file with ids from 1."""
    images, boxes = [], []
    for number, photo in enumerate(shown, 1):
        images.append({"file_name": f"{photo.stem}.png", "id": number, "height": SIZE[1], "width": SIZE[0]})
        for name, box in photo.objects:
            place = {"image_id": number, "category_id": CLASSES.index(name) + 1, "bbox": box, "iscrowd": 0}
            boxes.append({"id": len(boxes) + 1, "area": box[2] * box[3], **place})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"categories": categories, "annotations": boxes, "images": images}), encoding="utf-8")
    return path


def write_yolo(folder: Path, shown: Sequence[Photo], *, part: str = "train") -> Path:
    """Write ``data.yaml``, ``images/<part>`` and ``labels/<part>``, six digits behind each point; return data.yaml."""
    write_images(folder / "images" / part, shown)
    (folder / "labels" / part).mkdir(parents=True)
    for photo in shown:
        lines = []
        for name, (x, y, w, h) in photo.objects:
            parts = ((x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1])
            lines.append(" ".join([str(CLASSES.index(name)), *(f"{value:.6f}" for value in parts)]))
        (folder / "labels" / part / f"{photo.stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = folder / "data.yaml"
    data.write_text(f"path: .\n{part}: images/{part}\nnames: [{', '.join(CLASSES)}]\n", encoding="utf-8")
    return data


def voc_text(photo: Photo, *, difficult: Sequence[int] = (), ending: str = ".png") -> str:
    """An annotation of VOC; ``difficult`` are places of objects."""
    lines = [
        "<annotation>",
        f"  <filename>{photo.stem}{ending}</filename>",
        f"  <size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>",
    ]
    for place, (name, (x, y, w, h)) in enumerate(photo.objects):
        sides = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        flag = int(place in difficult)
        lines += [
            f"  <object><name>{name}</name><difficult>{flag}</difficult>",
            f"    <bndbox>{sides}</bndbox></object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def write_voc(folder: Path, shown: Sequence[Photo]) -> Path:
    """Write ``Annotations`` and ``JPEGImages``; return the former."""
    write_images(folder / "JPEGImages", shown)
    (folder / "Annotations").mkdir()
    for photo in shown:
        (folder / "Annotations" / f"{photo.stem}.xml").write_text(voc_text(photo), encoding="utf-8")
    return folder / "Annotations"
