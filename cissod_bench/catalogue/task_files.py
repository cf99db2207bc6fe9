"""A user's own data set as a task: one TOML file names its annotation files, image folders and minority classes."""

from __future__ import annotations

import difflib
import importlib
import json
import os
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec

from cissod_bench.catalogue import command_name, list_tasks, load_task
from cissod_bench.catalogue.own_files import (
    SLASHES,
    WHOLE,
    WRITTEN,
    Bounds,
    GroupsKey,
    Orientation,
    OwnFile,
    Photographs,
    Source,
    groups_of,
    names_parts,
    own_task,
)
from cissod_bench.catalogue.python_files import ENDING, Declared, stem_of
from cissod_bench.controls import has_control
from cissod_bench.errors import UsageFault, did_you_mean
from cissod_bench.files.images import broken_name_rule
from cissod_bench.files.near_names import near_names
from cissod_bench.splitting.given_parts import FREQUENCY, MINORITY
from cissod_bench.splitting.options import Cover, DmMinority, DrawOptions, Instances, Percent
from cissod_bench.splitting.own_labels import LabelledPart
from cissod_bench.splitting.own_parts import OwnParts, write_own_parts
from cissod_bench.splitting.scenarios import draw_by_frequency, draw_by_minority
from cissod_bench.splitting.task import Conversion, Task

_EXAMPLE = "examples/coco_mini.toml is a whole task file"
_DECLARED = Declared(Task, "cissod_bench/splitting/task.py", "splits/coco_split1.py is a whole task, a short one")


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    """One of [train] and [val]: paths relative to the data root; only a COCO file has to have a folder of images."""

    annotations: str
    images: str = ""

    @property
    def is_coco(self) -> bool:
        """Whether the labels are a COCO file, which is read where it lies."""
        return self.annotations.lower().endswith((".json", ".json.gz"))


class TaskFile(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of a task file that names one labelled set, from which D_l is drawn.

    Attributes:
        title: as reports print it.
        train, val: labels and image folder of each, relative to the data root.
        minority: names of the minority classes.
        groups: "frequency" divides classes by the images of D_l that show them, and D_l is drawn from all classes.
        bounds: the greatest number of such images of a rare and of a common class.
        source: where the data is described.
        labelled_percent: share of the images with a majority box that enters D_m, in (0, 100]; by frequency, of the
            images with a box that enters D_l.
        min_instances: boxes every minority class has in D_s at least, 10 where it is not said; by frequency every class
            in D_l, and 1.
        cover: how D_s is selected, see ``DrawOptions``.
        dm_minority: what becomes of minority boxes in D_m.
        iterations: optimiser steps of the ``full`` preset.
        repeat_threshold: t of repeat factor sampling.
        crs_gamma: gamma of Eq. 10.
        exif: whether images are turned as their EXIF orientation says, see ``orientation.Exif``.
    """

    title: str
    train: _Part
    val: _Part
    minority: list[str] = []
    groups: GroupsKey | None = None
    bounds: Bounds | None = None
    source: str = "user's data"
    labelled_percent: Percent = 10.0
    min_instances: Instances = 0  # not said; no file can say it
    cover: Cover = "useful"
    dm_minority: DmMinority = "drop"
    iterations: Annotated[int, msgspec.Meta(ge=1)] = 180_000
    repeat_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    crs_gamma: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    exif: Orientation = "auto"


_PARTS: Mapping[type[msgspec.Struct], Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {
        TaskFile: {"train": _Part, "val": _Part},
        OwnFile: {"labelled": Source, "unlabelled": Photographs, "val": Source},
    }
)
"""Kind of a task file -> its tables."""


def _choices(kind: type[msgspec.Struct], key: str) -> str:
    """Return what a key may be, where only certain texts are allowed, as the end of a message; else nothing."""
    hint = typing.get_type_hints(kind).get(key)
    nested = [text for part in typing.get_args(hint) for text in (part, *typing.get_args(part))]
    texts = [repr(text) for text in nested if isinstance(text, str)]
    return f"; it must be one of {', '.join(texts)}" if texts else ""


def read_task_file(path: Path) -> Task:
    """Return the task a TOML file describes; its name is the file's stem.

    A file with [labelled] and [unlabelled] names parts that are there, one with [train] a set that D_l is drawn from.

    Raises:
        UsageFault: the file is missing or no TOML, a key is unknown (near matches are shown), missing or of the wrong
            type, a path of [train] leaves the data root, or the name is taken or unfit for a folder.
    """
    name = _task_name(path, ".toml")
    content = _parsed(path)
    if names_parts(content):
        return own_task(path, name, _described(path, content, OwnFile))
    if both := [part for part in ("labelled", "unlabelled") if part in content]:
        raise UsageFault(
            f"{path}: [train] is a set that D_l and D_u are drawn from, so [{both[0]}] has no place beside it.",
            remedy=f"leave [train] out, or [{both[0]}]; {WHOLE}",
        )
    return _drawn_task(path, name, _described(path, content, TaskFile), content)


T = TypeVar("T", bound=msgspec.Struct)


def _described(path: Path, content: Mapping[str, Any], kind: type[T]) -> T:
    """Return the content of a task file of one kind, after its keys were checked."""
    tables = {part: of_part for part, of_part in _PARTS[kind].items() if isinstance(content.get(part), Mapping)}
    unknown = _unknown(content, kind, "")
    for part, of_part in tables.items():
        _check_place(path, content[part], part, kind, of_part)
        unknown += _unknown(content[part], of_part, f"{part}.")
    whole = WHOLE if kind is OwnFile else _EXAMPLE
    if unknown:
        message = f"{path}: t{' '.join(unknown)[1:]}"
        raise UsageFault(message, remedy=f"take the key out or correct its name; {whole}")
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        rule, _, place = str(error).removeprefix("Object ").partition(" - at `$")
        key = place.rstrip("`").lstrip(".")
        message = f"{path}: {key + ': ' if key else ''}{rule}{_choices(kind, key)}."
        if "`array`" in rule and isinstance(value := content.get(key), str):
            whole = f"write {key} = [{json.dumps(value)}]"
        raise UsageFault(message, remedy="; ".join([*_lacking(content, kind), whole])) from None


def _lacking(content: Mapping[str, Any], kind: type[msgspec.Struct]) -> list[str]:
    """Return what to add to a task file, for each key and each table that it must have."""

    def needed(struct: type[msgspec.Struct], there: Mapping[str, Any]) -> list[str]:
        return [field.name for field in msgspec.structs.fields(struct) if field.required and field.name not in there]

    tables = {name: f"add [{name}]" for name in _PARTS[kind]}
    tables |= {"train": "add [train], or [labelled] and [unlabelled]"} if kind is TaskFile else {}
    told = [tables.get(name, f'add {name} = "..." at the top') for name in needed(kind, content)]
    for part, of_part in _PARTS[kind].items():
        if isinstance(there := content.get(part), Mapping):
            told += [f'add {name} = "..." below [{part}]' for name in needed(of_part, there)]
    return told


def _drawn_task(path: Path, name: str, described: TaskFile, content: Mapping[str, Any]) -> Task:
    """Return the task of a file that names a set that D_l is drawn from."""
    _check_paths(path, described)
    train, val = _with_slashes(described.train), _with_slashes(described.val)
    groups = groups_of(path, described.groups or "minority", described.minority, described.bounds)
    by_frequency = groups == FREQUENCY
    if not by_frequency and groups != MINORITY:
        message = f'{path}: groups must be "minority" or "frequency": what D_l is drawn by. Got {described.groups!r}.'
        raise UsageFault(message, remedy=f"choose one of them, or name [labelled] and [unlabelled]; {WHOLE}")
    if by_frequency and (odd := [key for key in ("cover", "dm_minority") if key in content]):
        message = f'{path}: {odd[0]} is of draws by a minority; groups = "frequency" has none.'
        raise UsageFault(message, remedy=f"leave {odd[0]} out")
    conversion = None if train.is_coco and val.is_coco else _conversion(train, val, described)
    inputs = {"train": train.annotations, "val": val.annotations}
    images = {"train": train.images, "val": val.images}
    least = described.min_instances or (1 if by_frequency else DrawOptions.min_instances)
    defaults = {"labelled_percent": described.labelled_percent, "min_instances": least}
    return Task(
        name=name,
        file=str(path),
        title=described.title,
        source=described.source,
        inputs=inputs if conversion is None else WRITTEN,
        images=images if conversion is None else {role: f"images/{role}" for role in images},
        groups=groups,
        draw=draw_by_frequency if by_frequency else draw_by_minority,
        iterations=described.iterations,
        repeat_threshold=described.repeat_threshold,
        crs_gamma=described.crs_gamma,
        exif=described.exif,
        minority=tuple(described.minority),
        cover=None if by_frequency else described.cover,
        frequency_bounds=described.bounds or Task.frequency_bounds,
        draw_defaults=defaults if by_frequency else {**defaults, "dm_minority": described.dm_minority},
        crowd_ignored=conversion is not None,  # objects marked as difficult
        conversion=conversion,
    )


def _conversion(train: _Part, val: _Part, described: TaskFile) -> Conversion:
    """Return what writes labels of another format as the files that D_l is drawn from, and scored on."""
    labelled, scored = (LabelledPart(annotations=part.annotations, images=part.images) for part in (train, val))
    parts = OwnParts(labelled=labelled, unlabelled=(), val=scored, exif=described.exif)
    sources = {"annotations": labelled.annotations, "val": scored.annotations}
    images = {f"{role} images": part.images for role, part in (("train", train), ("val", val)) if part.images}
    return Conversion({**sources, **images}, partial(write_own_parts, parts=parts))


def read_python_task(path: Path) -> Task:
    """Return the task that a Python file declares with ``TASK = Task(...)``; its name is the file's stem.

    Raises:
        UsageFault: the file is missing, declares no task, cannot be imported (the message names the line), or its name
            is taken or unfit for a folder.
    """
    if not path.is_file():
        raise UsageFault(f"There is no file {path}.", remedy="cissod-bench tasks lists the tasks that have a name")
    name = command_name(_task_name(path, ENDING))
    return replace(_DECLARED.read(path), name=name, file=str(path))


def _task_name(path: Path, ending: str) -> str:
    name = stem_of(path, ending, "task")
    if command_name(name) in list_tasks():
        message = f"{path}: {command_name(name)!r} is the name of a built-in task."
        raise UsageFault(message, remedy="give the file another name")
    return name


def _parsed(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, with or without the byte order mark that Windows' editors write."""
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    text = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: dict[str, Any] = toml.loads(text)
    except OSError as error:
        remedy = f"name a file that is there, or write it; {WHOLE}"
        hint = did_you_mean(near_names(path)) if isinstance(error, FileNotFoundError) else ""
        raise UsageFault(f"{path} cannot be read: {error.strerror}.{hint}", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"{path} is not UTF-8: byte {error.start}.", remedy="save the file as UTF-8") from None
    except toml.TOMLDecodeError as error:
        raise UsageFault(f"{path} is no TOML: {error}.", remedy=_toml_remedy(text)) from None
    return content


_ESCAPING = re.compile(r'"[^"\n]*\\[^"\n]*"')


def _toml_remedy(text: str) -> str:
    if _ESCAPING.search(text):
        return f"a backslash in double quotes begins a special character in TOML; {SLASHES}"
    return f'write texts and paths in quotes, as in title = "Harbour"; {WHOLE}'


def _check_place(
    path: Path, part: Mapping[str, Any], name: str, kind: type[msgspec.Struct], of_part: type[msgspec.Struct]
) -> None:
    """Refuse a key of the whole file below the header of a table, which TOML takes for one of the table's.

    Raises:
        UsageFault: there is one.
    """
    known = {field.name for field in msgspec.structs.fields(of_part)}
    whole = {field.name for field in msgspec.structs.fields(kind)} - known
    if strayed := [key for key in part if key in whole]:
        listed = ", ".join(map(repr, strayed))
        tables = " and ".join(f"[{table}]" for table in _PARTS[kind])
        raise UsageFault(
            f"{path}: {listed} stands below the header of a table, so TOML reads it as {name}.{strayed[0]}; it belongs "
            "to the whole file, above the first line in brackets.",
            remedy=f"move {listed} to the top of the file, above {tables}",
        )


def _unknown(content: Mapping[str, Any], kind: type[msgspec.Struct], prefix: str) -> list[str]:
    """Return a sentence for every key that a file or one of its tables cannot have, and then those that it can."""
    known = [field.name for field in msgspec.structs.fields(kind)]
    told = []
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
            told.append(f"There is no key {prefix + key!r}.{did_you_mean(prefix + name for name in near)}")
    return [*told, f"Known: {', '.join(prefix + name for name in known)}."] if told else []


def _check_paths(path: Path, described: TaskFile) -> None:
    for part, values in (("train", described.train), ("val", described.val)):
        for key in ("annotations", "images"):
            value = getattr(values, key)
            if key == "images" and not value and not values.is_coco:
                continue
            if has_control(value):
                raise UsageFault(
                    f"{path}: {part}.{key} holds a control character: {value!r}. In double quotes TOML reads \\t as a "
                    "tab, \\n as a line end and so on.",
                    remedy=SLASHES,
                )
            rule = broken_name_rule(value)
            if rule is not None:
                raise UsageFault(
                    f"{path}: {part}.{key} is a path below the data root and {rule}. Got {value!r}.",
                    remedy="move the data below one folder and name that with --data-root",
                )


def _with_slashes(part: _Part) -> _Part:
    """Return paths as every system reads them: a backslash parts folders on Windows alone."""
    return _Part(part.annotations.replace("\\", "/"), part.images.replace("\\", "/"))


def find_task(name: str) -> Task:
    """Return the task of that name, or the one of a file whose name ends in ".toml" or ".py".

    Raises:
        UsageFault: there is no such task or file, or the file breaks its rules.
    """
    if os.path.exists(name) and not name.endswith((".toml", ENDING)) and command_name(name) not in list_tasks():
        message = f"{name} is no task file: the name of one ends in .toml or {ENDING}."
        raise UsageFault(message, remedy=f"write a task file that names what is there; {WHOLE}")
    if name.endswith(".toml"):
        return read_task_file(Path(name))
    return read_python_task(Path(name)) if name.endswith(ENDING) else load_task(name)


def name_in(place: str) -> str:
    """Return the task's name where a file of it may be named: the file's stem, or the name itself."""
    return Path(place).stem if place.endswith((".toml", ENDING)) else place
