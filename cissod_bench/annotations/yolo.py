"""Labels of YOLO: a ``data.yaml`` (``yolo_data``) and beside each image's folder one of label files (``yolo_lines``).

The label file of ``images/train/a.jpg`` is ``labels/train/a.txt``; where no folder of an image is called ``images``, it
lies beside the image. An image without one shows no object. Boxes are kept in hundredths of a pixel: that is what the
six digits of most label files can tell.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cissod_bench.annotations.label_content import Labelled, LabelledImage, LabelledObject, content_of
from cissod_bench.annotations.yolo_data import YoloData, read_data_yaml
from cissod_bench.annotations.yolo_lines import YoloObject, read_line
from cissod_bench.errors import DataFault, FaultList
from cissod_bench.files.image_files import is_image_name
from cissod_bench.files.images import check_header
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.orientation import shown_size

_NO_LABELS = frozenset({"classes"})  # a list of names that some tools write among the label files
_DIGITS = 2
_TELL_EVERY = 256


def read_yolo(
    path: Path, images: Path | None = None, *, part: str = "train", progress: Progress | None = None
) -> Labelled:
    """Return the labels of one part of a YOLO data set. Class n is category n + 1.

    Image sizes are read from the images; one whose EXIF orientation turns it counts as turned, as for YOLO's tools.

    Args:
        path: the ``data.yaml``.
        images: the folder that the images' names are to be relative to; None takes the one that holds all of them.
        part: "train", "val" or "test".
        progress: called now and then.

    Raises:
        DataFault: ``data.yaml``, a list, a label file or an image is missing or breaks a rule, an image lies outside
            ``images``, or no image has a label file. The message names the file and, within it, the line.
    """
    data = read_data_yaml(path)
    listed = data.images(part)
    files = sorted({os.path.abspath(image): image for image in listed})
    folders = [os.path.dirname(file) for file in files]
    folder = Path(os.path.abspath(images) if images is not None else os.path.commonpath(folders))
    counts: Counter[str] = Counter(listed_twice=len(listed) - len(files))
    labelled, faults = list[LabelledImage](), FaultList()
    for done, file in enumerate(files):
        with faults.noted():
            labelled.append(_image(data, Path(file), folder, counts, faults))
        if progress is not None and done % _TELL_EVERY == 0:
            progress(f"Reading labels of {path}", done, len(files))
    faults.tell()
    counts["without_image"] = _strays(map(Path, files))
    if counts["without_labels"] == len(files):
        first = label_file(Path(files[0]))
        raise DataFault(
            f"{path}: none of the {len(files):,} images of {part} has a label file; {first} would be the first.",
            remedy="lay the label files into a folder labels beside the folder images, with the same folders below",
        )
    categories = {number + 1: name for number, name in data.names.items()}
    return Labelled(
        format="yolo",
        source=path,
        images=images if images is not None else folder,
        content=content_of(labelled, categories),
        counts=+counts,
    )


def label_file(image: Path) -> Path:
    """Return where the label file of an image lies: the last folder ``images`` of its path is ``labels``.

    Its ending may be in capitals, as some cameras' and systems' are.
    """
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    label = Path(*parts).with_suffix(".txt")
    capitals = label.with_suffix(".TXT")
    return capitals if not label.exists() and capitals.exists() else label


def _strays(images: Iterable[Path]) -> int:
    """Return how many label files have no image, in the folders of these images' labels.

    Where label files lie among the images, other texts may lie there, too, and none is counted.
    """
    folders = {(image.parent, label_file(image).parent) for image in images}
    strays = 0
    for folder, labels in folders:
        if folder != labels and labels.is_dir():
            there = {Path(name).stem for name in os.listdir(folder) if is_image_name(name)}
            strays += sum(
                name.lower().endswith(".txt") and name[:-4] not in there | _NO_LABELS for name in os.listdir(labels)
            )
    return strays


def _image(data: YoloData, file: Path, folder: Path, counts: Counter[str], faults: FaultList) -> LabelledImage:
    if not file.is_relative_to(folder):
        raise DataFault(
            f"{data.path}: {file} does not lie below the image folder {folder}.",
            remedy="name the folder that holds all images of this part, or name none",
        )
    header = check_header(file)
    width, height = shown_size(header[:2], header.tag)
    objects = _objects(data, label_file(file), counts, faults)
    counts["outlines"] += sum(labelled.outline for labelled in objects)
    return LabelledImage(
        file.relative_to(folder).as_posix(),
        width,
        height,
        [LabelledObject(data.names[one.number], _box(one, width, height)) for one in objects],
    )


def _box(labelled: YoloObject, width: int, height: int) -> tuple[float, float, float, float]:
    """Return x, y, width and height in pixels."""
    left, upper, right, lower = labelled.corners
    return (
        round(left * width, _DIGITS),
        round(upper * height, _DIGITS),
        round((right - left) * width, _DIGITS),
        round((lower - upper) * height, _DIGITS),
    )


def _objects(data: YoloData, path: Path, counts: Counter[str], faults: FaultList) -> Sequence[YoloObject]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        counts["without_labels"] += 1
        return ()
    except OSError as error:
        raise DataFault(f"{path} cannot be read: {error.strerror}.", remedy=f"chmod +r {path}") from None
    except UnicodeDecodeError as error:
        raise DataFault(f"{path} is not UTF-8: byte {error.start}.", remedy="write the label file again") from None
    objects = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            with faults.noted():
                objects.append(_object(data, path, number, line))
    return objects


def _object(data: YoloData, path: Path, number: int, line: str) -> YoloObject:
    try:
        labelled = read_line(line, classes=max(data.names) + 1, key_points=data.key_points)
        if labelled.number not in data.names:
            raise ValueError(f"class {labelled.number} is not in names of {data.path.name}")
    except ValueError as error:
        raise DataFault(
            f"{path}, line {number}: {error}. The line is {line.strip()[:80]!r}.",
            remedy=f"correct the line or names in {data.path}, or take the line out",
        ) from None
    return labelled
