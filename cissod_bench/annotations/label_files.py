"""One function for labels of any format: a COCO file, YOLO's ``data.yaml``, a folder of PASCAL VOC's XML files."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec

from cissod_bench.annotations.file_names import ImageFolder
from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.annotations.xml_folders import read_xml_folder
from cissod_bench.annotations.yolo import read_yolo
from cissod_bench.errors import DataFault
from cissod_bench.files.json_objects import Progress

_FORMATS = "name a COCO file that ends in .json or .json.gz, YOLO's data.yaml, or the folder of PASCAL VOC's XML files"


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
    data = source.read_bytes()
    content = msgspec.json.decode(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    return Labelled(format=kind, source=source, images=folder, content=content, counts={})
