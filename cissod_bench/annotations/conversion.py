"""Labelled sources of any format written as COCO files, one a part, with the same classes in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cissod_bench.annotations.class_names import ClassReport, join_classes
from cissod_bench.annotations.label_content import Labelled
from cissod_bench.annotations.label_files import format_of, part_of, read_labels
from cissod_bench.annotations.yolo_data import PARTS, read_data_yaml
from cissod_bench.errors import UsageFault
from cissod_bench.files.images import broken_name_rule
from cissod_bench.files.json_objects import Progress
from cissod_bench.files.whole_files import write_bytes


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written.

    Attributes:
        files: part -> the COCO file.
        parts: part -> what was read.
        report: which part names which class.
    """

    files: Mapping[str, Path]
    parts: Mapping[str, Labelled]
    report: ClassReport


def named_sources(given: Iterable[str]) -> dict[str, Path]:
    """Return part -> source of arguments ``NAME=PATH`` or ``PATH``.

    A ``data.yaml`` without a name stands for all of its parts, any other path for the part that is called as it is.

    Raises:
        UsageFault: a name is no file's name or stands twice.
        DataFault: a source is of no format that is read.
    """
    sources: dict[str, Path] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        path = Path(rest if equals else text)
        if equals:
            names = [name]
        elif format_of(path) == "yolo":
            data = read_data_yaml(path)
            names = [part for part in PARTS if part in data.parts]
        else:
            names = [path.name.partition(".")[0]]
        for part in names:
            if broken_name_rule(part) is not None or "/" in part:
                remedy = "write NAME=PATH, such as train=labels/train.json"
                raise UsageFault(f"{part!r} cannot be the name of a part: it becomes a file's.", remedy=remedy)
            if part in sources:
                remedy = "write NAME=PATH with a name of its own for each source"
                raise UsageFault(f"There are two parts {part!r}: {sources[part]} and {path}.", remedy=remedy)
            sources[part] = path
    return sources


def convert(
    sources: Mapping[str, Path], images: Mapping[str, Path], out: Path, *, progress: Progress | None = None
) -> Converted:
    """Read labelled sources and write ``out/<part>.json`` for each.

    Args:
        sources: part -> COCO file, ``data.yaml`` or folder of XML files. Of a ``data.yaml`` the part of that name is
            read; where it has only one, that one.
        images: part -> the folder its images are named from; for a part that is not there what ``read_labels`` takes.
        out: the folder to write into; a file that is there is replaced.
        progress: called now and then.

    Raises:
        DataFault: a source breaks a rule of its format.
        EnvironmentFault: a file cannot be written.
    """
    parts = {
        part: read_labels(path, images.get(part), part=part_of(path, part), progress=progress)
        for part, path in sources.items()
    }
    contents, report = join_classes(parts)
    files = {}
    for part, content in contents.items():
        files[part] = out / f"{part}.json"
        write_bytes(files[part], msgspec.json.encode(content))
    return Converted(files=files, parts=parts, report=report)
