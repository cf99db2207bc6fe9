"""Labels of any format: a COCO file, YOLO's ``data.yaml``, a folder of PASCAL VOC's XML files.

``read_labels`` reads a whole source and refuses what breaks a rule. A user's own task may also name a COCO file without
sizes of its images (``read_labelled_source``), and is made again when one of ``files_of_source`` changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.annotations.xml_folders import read_xml_folder
from cissod_bench.annotations.yolo import label_file, read_yolo
from cissod_bench.annotations.yolo_data import read_data_yaml
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import JsonFile, Progress, unpacked

_FORMATS = "name a COCO file that ends in .json or .json.gz, YOLO's data.yaml, or the folder of PASCAL VOC's XML files"
_ARRAYS = ("images", "annotations", "categories")
_AGAIN = "export the file in the format of COCO instances"


def format_of(source: Path) -> str:
    """Return "coco", "yolo" or "voc" by a source's name; nothing but whether it is a folder is looked up.

    Raises:
        DataFault: it is none of these; the remedy names what would be.
    """
    name = source.name.lower()
    if source.is_dir():
        return "voc"
    if name.endswith((".yaml", ".yml")):
        return "yolo"
    if name.endswith((".json", ".json.gz")):
        return "coco"
    what = "is of no format that is read" if source.exists() else "does not exist"
    raise DataFault(f"{source} {what}.", remedy=_FORMATS)


def read_labels(
    source: Path, images: Path | None = None, *, part: str = "train", progress: Progress | None = None
) -> Labelled:
    """Return the labels of a source of any format as the content of a COCO-style annotation file.

    YOLO's and PASCAL VOC's images and boxes are numbered from 1 by the images' names; a COCO file keeps its ids and
    all of its content.

    Args:
        source: a COCO file (``.json``, ``.json.gz``), YOLO's ``data.yaml``, or a folder of PASCAL VOC's XML files.
        images: the folder that images are named from. None: the COCO file's own folder; the one that holds all images
            of YOLO's part; ``JPEGImages`` or ``images`` beside the XML files, or the folder of these.
        part: of a YOLO data set, "train", "val" or "test"; the others have one part only.
        progress: called now and then.

    Raises:
        DataFault: the source is missing, of no format that is read or breaks a rule of its format; the message names
            the file and the line or place in it.
    """
    kind = format_of(source)
    if kind == "yolo":
        return read_yolo(source, images, part=part, progress=progress)
    if kind == "voc":
        return read_xml_folder(source, images, progress=progress)
    folder = images if images is not None else source.parent
    with read_annotations(source, folder=ImageFolder(folder, folder.as_posix()), progress=progress):
        pass  # refused here is what breaks a rule
    content = msgspec.json.decode(unpacked(source.read_bytes()))
    return Labelled(format=kind, source=source, images=folder, content=content, counts={})


def part_of(path: Path, part: str) -> str:
    """Return the part of a source that is read for a part of that name: the only one of a ``data.yaml`` with one."""
    if format_of(path) != "yolo":
        return part
    known = tuple(read_data_yaml(path).parts)
    return known[0] if part not in known and len(known) == 1 else part


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
    try:
        content: dict[str, Any] = msgspec.json.decode(unpacked(path.read_bytes()))
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
