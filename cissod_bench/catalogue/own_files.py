"""A task file that names parts: what is labelled, what is not and what is scored. Nothing is drawn from them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from cissod_bench.annotations.class_names import plain_name
from cissod_bench.controls import has_control
from cissod_bench.errors import DataFault, UsageFault, did_you_mean
from cissod_bench.files.near_names import near_names
from cissod_bench.files.orientation import Exif
from cissod_bench.splitting.given_parts import FREQUENCY, GIVEN, MINORITY, ONE, take_given
from cissod_bench.splitting.own_labels import LabelledPart
from cissod_bench.splitting.own_parts import OwnParts, write_own_parts
from cissod_bench.splitting.task import Conversion, Task

Images: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Bounds: TypeAlias = tuple[Images, Images]
GroupsKey: TypeAlias = Literal["minority", "frequency", "one"]
Orientation: TypeAlias = Literal["apply", "ignore", "auto"]

WRITTEN: Mapping[str, str] = MappingProxyType({"train": "annotations/train.json", "val": "annotations/val.json"})
"""Role -> the annotation file that ``write_own_parts`` writes."""

WHOLE = "docs/own-data.md shows whole task files"
SLASHES = "write paths with '/', or in single quotes, where a backslash is a backslash"
_NEAR = 0.75  # "labeled" and "labelled" are .93 alike


class Source(msgspec.Struct, forbid_unknown_fields=True):
    """One of [labelled] and [val]: an annotation file and the folder of its images."""

    annotations: str
    images: str = ""


class Photographs(msgspec.Struct, forbid_unknown_fields=True):
    """[unlabelled]: a folder of photographs or several, or of one folder those that a list or a JSON file names."""

    images: str | list[str]
    files: str = ""


class OwnFile(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of a task file with [labelled].

    Attributes:
        title: as reports print it.
        labelled: all its boxes are used.
        unlabelled: photographs without labels.
        val: what is scored.
        minority: names of the minority classes.
        classes: names of the classes that count, boxes of others are left out; empty takes all.
        groups: "frequency" divides classes by the images that show them.
        bounds: the greatest number of such images of a rare and of a common class.
        source: where the data is described.
        iterations: optimiser steps of the ``full`` preset.
        repeat_threshold: t of repeat factor sampling.
        crs_gamma: gamma of Eq. 10.
        exif: whether images are turned as their EXIF orientation says.
    """

    title: str
    labelled: Source
    unlabelled: Photographs
    val: Source
    minority: list[str] = []
    classes: list[str] = []
    groups: GroupsKey | None = None
    bounds: Bounds | None = None
    source: str = "user's data"
    iterations: Annotated[int, msgspec.Meta(ge=1)] = 180_000
    repeat_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    crs_gamma: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    exif: Orientation = "auto"


def own_task(path: Path, name: str, described: OwnFile) -> Task:
    """Return the task of a file that names parts.

    Args:
        path: the file; what lies beside it is found without a data root.
        name: the task's.
        described: the file's content.

    Raises:
        UsageFault: the groups are named in two ways, a path is empty or holds a control character, or a list of
            photographs belongs to several folders.
    """
    groups = groups_of(path, described.groups, described.minority, described.bounds)
    parts = _parts(path, described)
    sources = {
        "annotations": parts.labelled.annotations,
        "images": parts.labelled.images or parts.labelled.annotations,
        **dict(zip(parts.roles, parts.unlabelled, strict=True)),
        "val": parts.val.annotations,
    }
    roles = ("train", "val", *parts.roles)
    return Task(
        name=name,
        file=str(path),
        title=described.title,
        source=described.source,
        inputs=WRITTEN,
        images={role: f"images/{role}" for role in roles},
        groups=groups,
        draw=take_given,
        iterations=described.iterations,
        repeat_threshold=described.repeat_threshold,
        crs_gamma=described.crs_gamma,
        exif=_exif(described.exif, parts),
        minority=tuple(map(plain_name, described.minority)),
        cover=None,
        frequency_bounds=described.bounds or Task.frequency_bounds,
        draw_defaults=GIVEN,
        crowd_ignored=True,  # objects marked as difficult
        conversion=Conversion(
            sources, partial(_write, path=path, parts=parts), absent=partial(_absent, path=path, parts=parts)
        ),
        preset="photo",
    )


def _write(data_root: Path, folder: Path, *, path: Path, parts: OwnParts) -> tuple[str, ...]:
    """Write the parts, see ``write_own_parts``, after all that is missing of them was told at once.

    Raises:
        DataFault: something that the task file names is not there.
    """
    if gone := _absent(data_root, path=path, parts=parts):
        listed = "".join(f"\n  {line}" for line in gone)
        raise DataFault(
            f"{path} names what is neither beside it nor below the data root ({data_root}):{listed}",
            remedy=f"correct the names in {path}, or say with --data-root where data lies",
        )
    return write_own_parts(data_root, folder, parts)


def _absent(data_root: Path, *, path: Path, parts: OwnParts) -> Sequence[str]:
    """Return a line for each key whose file or folder is not there, with the name that may be meant."""
    lines = []
    for key, place in _places(parts):
        if not (data_root / place).exists():
            hint = did_you_mean(near_names(path.parent / place, data_root / place))
            lines.append(f"{key}: {place}.{hint}" if hint else f"{key}: {place}")
    return lines


def _places(parts: OwnParts) -> Iterator[tuple[str, str]]:
    """Yield the keys of a task file that name files and folders, with what they name."""
    yield "[labelled] annotations", parts.labelled.annotations
    if parts.labelled.images:
        yield "[labelled] images", parts.labelled.images
    for folder in parts.unlabelled:
        yield "[unlabelled] images", folder
    if parts.files:
        yield "[unlabelled] files", parts.files
    yield "[val] annotations", parts.val.annotations
    if parts.val.images:
        yield "[val] images", parts.val.images


def _exif(exif: Exif, parts: OwnParts) -> Exif | Mapping[str, Exif]:
    """Return how images are turned: the sizes of D_u are measured here, so they tell nothing that is not known."""
    return exif if exif != "auto" else dict.fromkeys(parts.roles, parts.measured)


def groups_of(path: Path, groups: str | None, minority: list[str], bounds: tuple[int, int] | None) -> tuple[str, ...]:
    """Return the groups that a task file asks for.

    Args:
        path: the file.
        groups: its key; None lets the minority decide.
        minority: likewise.
        bounds: likewise.

    Raises:
        UsageFault: the keys contradict each other.
    """
    kind = groups or ("minority" if minority else "one")
    if minority and kind != "minority":
        raise UsageFault(
            f'{path}: minority and groups = "{kind}" divide the classes in two ways.', remedy="leave one of them out"
        )
    if kind == "minority" and not minority:
        message = f"{path}: minority names no class; at least one is needed."
        raise UsageFault(message, remedy='write minority = ["a class", "another one"], or groups = "frequency"')
    if bounds is not None and kind != "frequency":
        raise UsageFault(
            f'{path}: bounds belong to groups = "frequency".', remedy='add groups = "frequency", or leave bounds out'
        )
    if bounds is not None and bounds[0] >= bounds[1]:
        raise UsageFault(
            f"{path}: bounds are the most images of a rare and of a common class, the first below the second. Got "
            f"{list(bounds)}.",
            remedy="write bounds = [10, 100]",
        )
    return {"minority": MINORITY, "frequency": FREQUENCY, "one": ONE}[kind]


def _parts(path: Path, described: OwnFile) -> OwnParts:
    """Return where the parts lie: what lies beside the task file by its whole path, all else below the data root."""
    photographs = described.unlabelled
    folders = [photographs.images] if isinstance(photographs.images, str) else photographs.images
    if photographs.files and len(folders) != 1:
        message = f"{path}: unlabelled.files names photographs of one folder. unlabelled.images names {len(folders)}."
        raise UsageFault(message, remedy="name one folder, above all others, or leave files out")
    if not folders:
        raise UsageFault(f"{path}: unlabelled.images names no folder.", remedy='write images = "FOLDER"')

    def place(key: str, value: str) -> str:
        if not value or has_control(value):
            raise UsageFault(
                f"{path}: {key} must be a printable path without control characters. Got {value!r}.",
                remedy=SLASHES,
            )
        slashed = value if os.path.exists(value) else value.replace("\\", "/")
        beside = Path(os.path.abspath(path.parent)) / slashed
        return str(beside) if beside.exists() else slashed

    def labelled(key: str, source: Source) -> LabelledPart:
        images = place(f"{key}.images", source.images) if source.images else ""
        return LabelledPart(annotations=place(f"{key}.annotations", source.annotations), images=images)

    return OwnParts(
        labelled=labelled("labelled", described.labelled),
        unlabelled=tuple(place("unlabelled.images", folder) for folder in folders),
        files=place("unlabelled.files", photographs.files) if photographs.files else "",
        val=labelled("val", described.val),
        exif=described.exif,
        classes=tuple(map(plain_name, described.classes)),
    )


def names_parts(content: Mapping[str, Any]) -> bool:
    """Return whether a task file names parts, perhaps misspelt, and not one set that D_l is drawn from."""
    tables = ("labelled", "unlabelled")
    return "train" not in content and any(difflib.get_close_matches(key, tables, n=1, cutoff=_NEAR) for key in content)
