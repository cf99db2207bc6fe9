"""Annotations of PASCAL VOC: a folder of XML files, one an image, beside the folder of the photographs.

VOC counts pixels from 1 and its corners lie inside the box: xmin 1 and xmax 500 is the whole width of an image of 500
pixels. So x = xmin - 1 and width = xmax - xmin + 1; fractions of pixels occur. An object that is ``difficult`` is
scored neither as found nor as missed: an ignore region. The parts of a person (``part``: head, hand, foot) are no
objects.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cissod_bench.errors import DataFault
from cissod_bench.files.xml_trees import Element, read_xml

ANNOTATIONS, PHOTOGRAPHS = "Annotations", "JPEGImages"

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes in its own order, the alphabet's; a class's number counts from 1."""

MOST_OBJECTS = 999
"""Objects of an image, at most."""

_NAME = re.compile(r"(\d{4})_(\d{6})\.jpg")
_AGAIN = "unpack VOCtrainval_11-May-2012.tar again, whose files lie in VOCdevkit/VOC2012"
_MEND = f"{_AGAIN}; or write the annotation as VOC does"


@dataclass(frozen=True, slots=True)
class VocObject:
    """One annotated object.

    Attributes:
        name: its class; in VOC itself one of ``CLASSES``.
        box: x, y, width, height in pixels from the image's upper left corner; both sides > 0.
        difficult: whether it is an ignore region.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True, slots=True)
class VocImage:
    """One annotated photograph.

    Attributes:
        file_name: of the photograph, "2008_000001.jpg".
        number: made of the digits of its name, 2008000001; the same in every copy.
        width, height: pixels, >= 1.
        objects: in the order of the annotation.
    """

    file_name: str
    number: int
    width: int
    height: int
    objects: tuple[VocObject, ...]

    @property
    def shown(self) -> frozenset[str]:
        """The classes of its objects that are not difficult."""
        return frozenset(named.name for named in self.objects if not named.difficult)


@dataclass(frozen=True, slots=True)
class VocFolder:
    """What stands in a folder of VOC.

    Attributes:
        path: the folder, ``VOCdevkit/VOC2012``.
        images: those that were asked for and whose photograph is there, by their number.
        lost: names of photographs that are annotated and asked for, but not there.
        unnamed: names of annotations that are not there for a photograph; what it shows is not known.
    """

    path: Path
    images: tuple[VocImage, ...]
    lost: tuple[str, ...]
    unnamed: tuple[str, ...]


def read_voc(folder: Path, *, showing: Collection[str]) -> VocFolder:
    """Return the images whose annotation names an object of some classes that is not difficult.

    Boxes and sizes of other images are not looked at.

    Args:
        folder: ``VOCdevkit/VOC2012``, with ``Annotations`` and ``JPEGImages``; it is only read.
        showing: the classes.

    Raises:
        DataFault: a folder is missing; an annotation is no XML, lacks a part, names another file or an unknown class,
            or has a size below one pixel or a box without area or outside its image.
    """
    names = sorted(_listed(folder / ANNOTATIONS, ".xml"))
    there = set(_listed(folder / PHOTOGRAPHS, ".jpg"))
    images, lost = [], []
    for name in names:
        path = folder / ANNOTATIONS / name
        root = read_xml(path)
        if _names(path, root) & frozenset(showing):
            image = _image(path, root)
            if image.file_name in there:
                images.append(image)
            else:
                lost.append(image.file_name)
    annotated = {Path(name).stem for name in names}
    unnamed = sorted(f"{Path(name).stem}.xml" for name in there if Path(name).stem not in annotated)
    return VocFolder(folder, tuple(sorted(images, key=lambda image: image.number)), tuple(lost), tuple(unnamed))


def _listed(folder: Path, ending: str) -> list[str]:
    """Return the names of the files in a folder that end so.

    Raises:
        DataFault: it is missing, cannot be read or holds none.
    """
    try:
        names = [name for name in os.listdir(folder) if name.endswith(ending)]
    except (FileNotFoundError, NotADirectoryError):
        remedy = f"{_AGAIN}, or say with --data-root which folder holds VOCdevkit"
        raise DataFault(f"The folder {folder} is missing.", remedy=remedy) from None
    except OSError as error:
        raise DataFault(f"{folder} cannot be read: {error.strerror}.", remedy=f"chmod +rx {folder}") from None
    if not names:
        raise DataFault(f"{folder} holds no file whose name ends in {ending}.", remedy=_AGAIN)
    return names


def _names(path: Path, root: Element) -> frozenset[str]:
    """Return the classes of the objects that are not difficult.

    Raises:
        DataFault: this is no annotation of VOC, or a class is unknown.
    """
    if root.tag != "annotation":
        raise broken(path, root, f"the outermost element must be annotation, and is {root.tag!r}")
    return frozenset(_class(path, entry) for entry in root.all("object") if not _is_difficult(path, entry))


def _class(path: Path, entry: Element, known: Collection[str] = CLASSES) -> str:
    name = text_at(path, entry, "name")
    if known and name not in known:
        raise broken(path, entry, f"object.name must be a class of VOC ({', '.join(CLASSES)}), and is {name!r}")
    return name


def _is_difficult(path: Path, entry: Element) -> bool:
    """Return whether an object is difficult; some files do not say so, which means that it is not."""
    text = entry.text_of("difficult") or "0"
    if text not in ("0", "1"):
        raise broken(path, entry, f"object.difficult must be 0 or 1, and is {text!r}")
    return text == "1"


def _image(path: Path, root: Element) -> VocImage:
    """Return the image that an annotation describes.

    Raises:
        DataFault: it breaks a rule.
    """
    name = text_at(path, root, "filename")
    match = _NAME.fullmatch(name)
    if match is None or Path(name).stem != path.stem:
        raise broken(path, root, f"filename must be {path.stem}.jpg, four digits, '_', six digits; it is {name!r}")
    width, height = size_of(path, root)
    objects = tuple(object_of(path, entry, width, height) for entry in root.all("object"))
    if len(objects) > MOST_OBJECTS:
        raise broken(path, root, f"an image has at most {MOST_OBJECTS} objects, and this has {len(objects):,}")
    return VocImage(name, int(match[1] + match[2]), width, height, objects)


def size_of(path: Path, root: Element) -> tuple[int, int]:
    """Return width and height of the photograph as its annotation states them, pixels, >= 1.

    Raises:
        DataFault: one is missing or no such number.
    """
    return _side(path, root, "width"), _side(path, root, "height")


def _side(path: Path, root: Element, side: str) -> int:
    value = _number(path, root, "size", side)
    if value < 1 or value != int(value):
        raise broken(path, root, f"size.{side} must be a whole number of pixels, at least 1, and is {value:g}")
    return int(value)


def object_of(path: Path, entry: Element, width: int, height: int, *, known: Collection[str] = CLASSES) -> VocObject:
    """Return the object that an element describes, in pixels from 0.

    Args:
        path: the file, for messages.
        entry: an element "object".
        width: of the image, pixels.
        height: likewise.
        known: the names that a class may have; empty allows any.

    Raises:
        DataFault: a part is missing, no number or out of its range, the class is unknown, or the box has no area or
            lies outside its image.
    """
    xmin, ymin, xmax, ymax = (_number(path, entry, "bndbox", key) for key in ("xmin", "ymin", "xmax", "ymax"))
    box = (round(xmin - 1, 4), round(ymin - 1, 4), round(xmax - xmin + 1, 4), round(ymax - ymin + 1, 4))
    words = f"object.bndbox {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}"
    if box[2] <= 0 or box[3] <= 0:
        raise broken(path, entry, f"{words} has no area; xmax and ymax lie right of and below xmin and ymin")
    if xmin > width or ymin > height or xmax < 1 or ymax < 1:
        raise broken(path, entry, f"{words} lies outside its image of {width} x {height} pixels")
    return VocObject(_class(path, entry, known), box, _is_difficult(path, entry))


def text_at(path: Path, element: Element, *keys: str) -> str:
    """Return the text at a path of names below an element.

    Raises:
        DataFault: there is none, or it is empty.
    """
    text = element.text_of(*keys)
    if not text:
        raise broken(path, element, f"{element.tag}.{'.'.join(keys)} is missing or empty")
    return text


def _number(path: Path, element: Element, *keys: str) -> float:
    text = text_at(path, element, *keys)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise broken(path, element, f"{element.tag}.{'.'.join(keys)} must be a number, and is {text!r}")
    return value


def broken(path: Path, element: Element, rule: str) -> DataFault:
    """Return the fault for an element that breaks a rule; the message names the line on which it begins."""
    return DataFault(f"{path}, line {element.line}: {rule}.", remedy=_MEND)
