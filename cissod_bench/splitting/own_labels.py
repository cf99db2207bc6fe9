"""Labelled sources of a user's own task, read and joined: names, sizes and classes are those that are written."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from cissod_bench.annotations.class_names import ClassReport, join_classes
from cissod_bench.annotations.file_names import ImageFolder, NamesBelow
from cissod_bench.annotations.label_content import Content, Labelled
from cissod_bench.annotations.label_files import read_labelled_source
from cissod_bench.annotations.photographs import sizes_of
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.errors import DataFault, first_of
from cissod_bench.files.images import broken_name_rule
from cissod_bench.files.orientation import Exif, reading_of

MOST_TOLD = 3  # names that a message gives


@dataclass(frozen=True, kw_only=True)
class LabelledPart:
    """A labelled source of any format, and the folder of its images ("" where the source tells)."""

    annotations: str
    images: str = ""


def read_part(hidden: Path, data_root: Path, part: LabelledPart, role: str, exif: Exif) -> Labelled:
    """Return a labelled source with a size in every image record.

    Raises:
        DataFault: it breaks a rule of annotation files; told as a fault of the source.
    """
    path = data_root / part.annotations
    if not path.exists():
        remedy = f"correct annotations in the task file, or say with --data-root (now {data_root}) where data lies"
        raise DataFault(f"{path} does not exist.", remedy=remedy)
    source = read_labelled_source(path, data_root / part.images if part.images else None, role)
    records = [
        {key: value for key, value in record.items() if key not in ("root", "part")}
        for record in source.content["images"]
    ]
    _make_names_plain(records, ImageFolder(source.images, part.images or source.images.name))
    _refuse_twice(path, records)
    _measure(path, source.images, records, exif)
    content = {**source.content, "images": records}
    _check(content, hidden / "checked.json", path)
    return replace(source, content=content)


def _make_names_plain(records: Sequence[dict[str, Any]], folder: ImageFolder) -> None:
    rows = [row for row, record in enumerate(records) if isinstance(record.get("file_name"), str)]
    for place, plain in NamesBelow(folder).changed([records[row]["file_name"] for row in rows]).items():
        records[rows[place]]["file_name"] = plain


def _refuse_twice(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Refuse an image file in two records, by the name and the places that its user knows."""
    first: dict[str, int] = {}
    for row, name in enumerate(record.get("file_name") for record in records):
        plain = os.path.normpath(name) if isinstance(name, str) else ""
        if plain and first.setdefault(plain, row) != row:
            both = " and ".join(f"images[{place}] (id {records[place].get('id')})" for place in (first[plain], row))
            raise DataFault(
                f"{path}: {both} are both {plain!r}; an image file belongs to one record.",
                remedy="keep one record of each file and give its boxes that record's id",
            )


def _measure(path: Path, folder: Path, records: Sequence[dict[str, Any]], exif: Exif) -> None:
    """Give records without a size that of their image."""
    open_records = [
        record
        for record in records
        if not (record.get("width") and record.get("height"))
        and isinstance(record.get("file_name"), str)
        and broken_name_rule(record["file_name"]) is None
    ]
    sizes = sizes_of([folder / record["file_name"] for record in open_records], reading_of(exif))
    for record, size in zip(open_records, sizes, strict=True):
        if isinstance(size, DataFault):
            raise DataFault(f"{path} states no size of an image, and {size.message}", remedy=size.remedy)
        record["width"], record["height"] = size


def join_parts(
    labelled: Labelled, val: Labelled, classes: Collection[str], *, may_name: bool = True
) -> tuple[tuple[Content, Content], tuple[str, ...]]:
    """Return both contents with the same classes, joined by name, and what the user should know of them.

    Args:
        labelled: what is trained on.
        val: what is scored.
        classes: names of those that count; empty takes all of the labelled source.
        may_name: whether the task file may say which count, for the remedy.

    Raises:
        DataFault: the scored images show a class that the labelled source does not name, or a class that is to count
            is named by neither.
    """
    contents, report = join_classes({"labelled": labelled, "val": val})
    if classes:
        if unknown := [name for name in classes if name not in report.numbers]:
            message = f"There is no class {unknown[0]!r} in {labelled.source} or {val.source}"
            has = ", ".join(map(repr, report.numbers))
            raise DataFault(f"{message}; there is {has}.", remedy="correct classes in the task file")
        contents = {part: _only(content, classes) for part, content in contents.items()}
    else:
        _refuse_strange(labelled, val, report, may_name=may_name)
    return (contents["labelled"], contents["val"]), tuple(_notes(labelled, val, report, classes or report.numbers))


def _refuse_strange(labelled: Labelled, val: Labelled, report: ClassReport, *, may_name: bool) -> None:
    """Refuse classes that only the scored images show.

    Raises:
        DataFault: there are some.
    """
    named = report.objects["labelled"]
    strange = [name for name, count in report.objects["val"].items() if count and name not in named]
    if strange:
        alike = [f"{near!r} and {name!r}" for name in strange[:MOST_TOLD] if (near := report.near(name))]
        hint = f" Are {', '.join(alike)} one class?" if alike else ""
        counting = f"classes = [{', '.join(json.dumps(name, ensure_ascii=False) for name in named)}]"
        choice = f", or name those that count in the task file, above all tables: {counting}" if may_name else ""
        raise DataFault(
            f"{val.source}: {len(strange)} of its classes with boxes are none of {labelled.source}: "
            f"{first_of([repr(name) for name in strange], MOST_TOLD)}. That has {', '.join(map(repr, named))}.{hint}",
            remedy=f"give a class the same name in both{choice}",
        )


def _notes(labelled: Labelled, val: Labelled, report: ClassReport, counting: Collection[str]) -> Iterator[str]:
    """Yield what was done in reading each source, and classes that cannot be scored: they may be misspelt."""
    for part in (labelled, val):
        if part.notes:
            yield f"{part.source}: {'; '.join(part.notes)}."
    shown, scored = report.objects["labelled"], report.objects["val"]
    for pair in report.unlike:
        if all(name in counting and (shown.get(name) or scored.get(name)) for name in pair):
            yield f"{pair[0]!r} and {pair[1]!r} are two classes; is one meant?"
    unscored = [name for name in counting if shown.get(name) and not scored.get(name)]
    if unscored:
        alike = [f"{name!r} be {near!r}" for name in unscored if (near := report.near(name))]
        hint = f" Should {', '.join(alike[:MOST_TOLD])}?" if alike else ""
        number = "1 class" if len(unscored) == 1 else f"{len(unscored):,} classes"
        named = first_of([repr(name) for name in unscored], MOST_TOLD)
        yield f"{number} with labelled boxes and no scored one, so without an AP: {named}.{hint}"


def _only(content: Content, classes: Collection[str]) -> Content:
    """Return a content without the boxes and the names of other classes."""
    categories = [record for record in content["categories"] if record["name"] in classes]
    kept = {record["id"] for record in categories}
    boxes = [box for box in content["annotations"] if box["category_id"] in kept]
    return {**content, "categories": categories, "annotations": boxes}


def names_of(content: Content) -> list[str]:
    """Return the images' names that stay in their folder; others are refused when the file is read."""
    names = (record.get("file_name") for record in content["images"])
    return [name for name in names if isinstance(name, str) and broken_name_rule(name) is None]


def _check(content: Content, path: Path, source: Path) -> None:
    """Read the content of an annotation file as it will be read, and tell what is wrong as a fault of its source."""
    path.write_bytes(msgspec.json.encode(content))
    try:
        read_annotations(path).close()
    except DataFault as fault:
        raise DataFault(fault.message.replace(str(path), str(source)), remedy=fault.remedy) from None
    finally:
        path.unlink()
