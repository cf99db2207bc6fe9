"""A small data root in the formats that MS-COCO, Objects365 and LVIS are published in, drawn by code in seconds.

Category ids and names are the real ones, as are keys, folders and oddities: LVIS images have no ``file_name`` and lie
in two folders of MS-COCO; Objects365 names folders of its annotators, one image that is not in the release and one
whose width and height are exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.splitting.toy_images import OUTLINES, SIZES, Dice, Placed, background, paint
from splits.coco_o365 import MISSING, SWAPPED

# LVIS: images that show ten classes shown nowhere else, beside common and frequent ones, have to be labelled; the
# others need not be. So D_l are the first, in which "frequent" classes are in more than 100 images.
LVIS_RICH, LVIS_PLAIN, LVIS_VAL = 120, 100, 40
LVIS_FREQUENT, LVIS_COMMON = range(1, 9), range(9, 49)
# Objects365: every class has two boxes in each of seven images, 14 in all; the plain images show majority classes.
O365_ROUNDS, O365_TWICE, O365_PLAIN, O365_VAL = 7, 10, 50, 37
O365_PLAIN_CLASSES = (1, 3, 6)  # Person, Chair, Car
COCO_IMAGES = 48
SPORTS_BALL = 37  # the class of MS-COCO that Objects365 lacks

Names = Mapping[int, str]


@dataclass
class _File:
    """An annotation file in the making; numbers count up from 1."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, image: Mapping[str, Any], boxes: Sequence[Sequence[float]], classes: Sequence[int], **more: Any
    ) -> None:
        """Add an image with its boxes; ``more`` are keys of every box."""
        self.images.append(dict(image))
        for (x, y, w, h), number in zip(boxes, classes, strict=True):
            self.annotations.append({
                "id": len(self.annotations) + 1, "image_id": image["id"], "category_id": number, "bbox": [x, y, w, h],
                "area": round(w * h, 2), **more,
            })  # fmt: skip

    def write(self, path: Path, categories: list[dict[str, Any]], **more: Any) -> None:
        """Write the file; ``more`` are its other keys."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"images": self.images, "annotations": self.annotations, "categories": categories, **more}
        path.write_bytes(msgspec.json.encode(content))


def draw(key: str, classes: Sequence[int]) -> tuple[npt.NDArray[np.uint8], list[list[float]]]:
    """Return an image, uint8 BGR, with a shape in a cell of its own for every class, and the shapes' boxes, xywh."""
    dice = Dice(key)
    width, height = SIZES[dice.pick([2, 2, 1, 1, 1])]
    columns = max(1, int(np.ceil(np.sqrt(len(classes) * width / height))))
    rows = max(1, -(-len(classes) // columns))
    cell = np.array([width / columns, height / rows])
    pixels, boxes, names = background(dice, width, height), [], list(OUTLINES)
    for place, number in enumerate(classes):
        centre = (np.array([place % columns, place // columns]) + 0.5) * cell
        scale = np.minimum(cell, 48) * dice.number(0.35, 0.45)
        outlines = tuple(points * scale + centre for points in OUTLINES[names[number % len(names)]])
        (x1, y1), (x2, y2) = outlines[0].min(axis=0), outlines[0].max(axis=0)
        x1, y1, x2, y2 = (round(float(value), 2) for value in (x1, y1, x2, y2))
        paint(pixels, Placed("", outlines, (x1, y1, x2, y2)), dice)
        boxes.append([x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)])
    return np.clip(pixels, 0, 255).astype(np.uint8), boxes


def _shown(path: Path | None, key: str, classes: Sequence[int]) -> tuple[dict[str, int], list[list[float]]]:
    """Draw an image into a file; return its width and height, and its boxes."""
    import cv2

    pixels, boxes = draw(key, classes)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    return {"height": pixels.shape[0], "width": pixels.shape[1]}, boxes


def _some(dice: Dice, of: Sequence[int], count: int) -> list[int]:
    """Return ``count`` different ones in a drawn order."""
    return [of[row] for row in np.argsort(dice.many(len(of)), kind="stable")[:count]]


def coco_names() -> Names:
    """Return MS-COCO's 80 classes by their ids, which leave ten numbers out."""
    from mmdet.datasets import CocoDataset

    unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    return dict(zip((n for n in range(1, 91) if n not in unused), CocoDataset.METAINFO["classes"], strict=True))


def objects365_names() -> Names:
    """Return Objects365's 365 classes by their ids, with the blanks at the end of three names."""
    from mmdet.datasets import Objects365V2Dataset

    return dict(enumerate(Objects365V2Dataset.METAINFO["classes"], 1))


def lvis_names() -> Names:
    """Return LVIS's 1203 classes by their ids."""
    from mmdet.datasets import LVISV1Dataset

    return dict(enumerate(LVISV1Dataset.METAINFO["classes"], 1))


def write_coco(root: Path) -> None:
    """Write ``coco/annotations/instances_train2017.json`` and its images.

    Every class is there; one image shows sports balls alone, one nothing, one a crowd region beside a person.
    """
    file, names = _File(), coco_names()
    stream = [number for number in names if number != SPORTS_BALL]
    for row in range(COCO_IMAGES):
        classes = (stream * 2)[row * 5 % len(stream) :][:5]
        classes = {0: [SPORTS_BALL] * 2, 1: [], 2: [1, 1]}.get(row, classes)
        number = 9 + 41 * row
        size, boxes = _shown(root / f"coco/train2017/{number:012d}.jpg", f"coco/{number}", classes)
        image = {"license": 3, "file_name": f"{number:012d}.jpg", "coco_url": _url("train2017", number), **size,
                 "date_captured": "2013-11-14 11:18:45", "flickr_url": "", "id": number}  # fmt: skip
        file.add(image, boxes, classes, segmentation=[], iscrowd=0)
        if row == 2:
            file.annotations[-1]["iscrowd"] = 1
    categories = [{"supercategory": "any", "id": number, "name": name} for number, name in names.items()]
    file.write(root / "coco/annotations/instances_train2017.json", categories, info={"year": 2017}, licenses=[])


def _url(folder: str, number: int) -> str:
    return f"http://images.cocodataset.org/{folder}/{number:012d}.jpg"


def write_objects365(root: Path) -> None:
    """Write ``objects365/annotations/zhiyuan_objv2_{train,val}.json`` and the images of both."""
    names, dice = objects365_names(), Dice("objects365")
    stream = [number for _ in range(O365_ROUNDS) for number in _some(dice, list(names), len(names))]
    train = [stream[at : at + O365_TWICE] * 2 for at in range(0, len(stream), O365_TWICE)]
    train += [list(O365_PLAIN_CLASSES)] * O365_PLAIN
    places = [_objects365_name(row) for row in range(len(train))]
    places[3], places[-1] = SWAPPED[0], MISSING[0]
    _write_objects365(root, "train", names, train, places)
    order = _some(dice, list(names), len(names))
    val = [order[row::O365_VAL] for row in range(O365_VAL)]
    _write_objects365(root, "val", names, val, [_objects365_name(5_000 + row) for row in range(len(val))])


def _objects365_name(number: int) -> str:
    patch = 7 * (number % 4)  # patches 0 to 15 are of version 1
    return f"patch{patch}/objects365_v{1 + (patch > 15)}_{number:08d}.jpg"


def _write_objects365(root: Path, role: str, names: Names, shown: list[list[int]], places: list[str]) -> None:
    file = _File()
    for row, (classes, place) in enumerate(zip(shown, places, strict=True)):
        path = None if place in MISSING else root / "objects365" / role / place
        size, boxes = _shown(path, f"objects365/{role}/{row}", classes)
        if place in SWAPPED:
            assert size["width"] != size["height"], "a square image shows no exchange"
            size = {"height": size["width"], "width": size["height"]}
        version = place.split("_")[1]
        image = {**size, "id": 900_000 + 3 * row, "license": 5, "file_name": f"images/{version}/{place}", "url": ""}
        file.add(image, boxes, classes, iscrowd=0, isfake=0, isreflected=0)
    categories = [{"name": name, "id": number} for number, name in names.items()]
    file.write(root / f"objects365/annotations/zhiyuan_objv2_{role}.json", categories, licenses=[])


def write_lvis(root: Path) -> None:
    """Write ``lvis/annotations/lvis_v1_{train,val}.json`` and their images below ``coco/``."""
    names, dice = lvis_names(), Dice("lvis")
    every = list(names)
    train = [
        every[row::LVIS_RICH] + _some(dice, LVIS_FREQUENT, 8) + _some(dice, LVIS_COMMON, 6) for row in range(LVIS_RICH)
    ]
    train += [
        _some(dice, LVIS_FREQUENT, 4) + _some(dice, LVIS_COMMON, 2) + _some(dice, every, 1) for _ in range(LVIS_PLAIN)
    ]
    val = [_some(dice, LVIS_FREQUENT, 3) + _some(dice, LVIS_COMMON, 3) + _some(dice, every, 4) for _ in range(LVIS_VAL)]
    train_file = _lvis_file(root, dice, train, [("train2017", 100_000 + row) for row in range(len(train))])
    folders = [("train2017", 300_000 + row) if row % 4 else ("val2017", 500_000 + row) for row in range(len(val))]
    val_file = _lvis_file(root, dice, val, folders)
    categories = _lvis_categories(names, train)
    for role, file in (("train", train_file), ("val", val_file)):
        file.write(root / f"lvis/annotations/lvis_v1_{role}.json", categories, info={"version": "v1.0"}, licenses=[])


def _lvis_file(root: Path, dice: Dice, shown: list[list[int]], places: list[tuple[str, int]]) -> _File:
    file = _File()
    for classes, (folder, number) in zip(shown, places, strict=True):
        classes = list(dict.fromkeys(classes))
        size, boxes = _shown(root / f"coco/{folder}/{number:012d}.jpg", f"lvis/{number}", classes)
        absent = [one for one in _some(dice, range(1, 1204), 12) if one not in classes]
        image = {"id": number, "license": 1, **size, "date_captured": "2013-11-16 21:07:12", "flickr_url": "",
                 "coco_url": _url(folder, number), "neg_category_ids": absent,
                 "not_exhaustive_category_ids": classes[:1]}  # fmt: skip
        file.add(image, boxes, classes)
    for box in file.annotations:
        x, y, w, h = box["bbox"]
        box["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return file


def _lvis_categories(names: Names, shown: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the categories with their counts and frequencies in the training set."""
    images = np.bincount([number for classes in shown for number in set(classes)], minlength=len(names) + 1).tolist()
    return [
        {"id": number, "name": name, "synset": f"{name}.n.01", "synonyms": [name], "def": "",
         "image_count": images[number], "instance_count": images[number],
         "frequency": "r" if images[number] <= 10 else "c" if images[number] <= 100 else "f"}
        for number, name in names.items()
    ]  # fmt: skip
