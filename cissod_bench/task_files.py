"""A user's own data set as a task: one TOML file names its annotation files, image folders and minority classes."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cissod_bench.catalogue import command_name, list_tasks
from cissod_bench.errors import UsageFault
from cissod_bench.images import broken_name_rule
from cissod_bench.scenarios import draw_by_minority
from cissod_bench.spec import Task

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    """One of [train] and [val]: paths relative to the data root."""

    annotations: str
    images: str


class TaskFile(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of a task file.

    Attributes:
        title: as reports print it.
        minority: names of the minority classes.
        train, val: annotation file and image folder of each, relative to the data root.
        source: where the data is described.
        labelled_percent: share of the images with a majority box that enters D_m, in (0, 100].
        min_instances: boxes every minority class has in D_s at least.
        cover: how D_s is selected, see ``DrawOptions``.
        dm_minority: what becomes of minority boxes in D_m.
        iterations: optimiser steps of the ``full`` preset.
        repeat_threshold: t of repeat factor sampling.
        crs_gamma: gamma of Eq. 10.
    """

    title: str
    minority: list[str]
    train: _Part
    val: _Part
    source: str = "user's data"
    labelled_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 10.0
    min_instances: Annotated[int, msgspec.Meta(ge=1)] = 10
    cover: Literal["uniform", "useful"] = "useful"
    dm_minority: Literal["drop", "ignore"] = "drop"
    iterations: Annotated[int, msgspec.Meta(ge=1)] = 180_000
    repeat_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    crs_gamma: Annotated[float, msgspec.Meta(ge=0)] = 0.5


def read_task_file(path: Path) -> Task:
    """Return the task a TOML file describes; its name is the file's stem.

    Raises:
        UsageFault: the file is missing or no TOML, a key is unknown (near matches are shown), missing or of the wrong
            type, a path leaves the data root, or the name is taken or unfit for a folder.
    """
    name = _task_name(path)
    content = _parsed(path)
    _check_keys(path, content, TaskFile, "")
    for part in ("train", "val"):
        if isinstance(content.get(part), Mapping):
            _check_keys(path, content[part], _Part, f"{part}.")
    try:
        described = msgspec.convert(content, TaskFile)
    except msgspec.ValidationError as error:
        rule, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".")
        raise UsageFault(f"{path}: {key + ': ' if key else ''}{rule}.") from None
    _check_paths(path, described)
    if not described.minority:
        raise UsageFault(f"{path}: minority names no class; at least one is needed.")
    return Task(
        name=name,
        title=described.title,
        source=described.source,
        inputs={"train": described.train.annotations, "val": described.val.annotations},
        images={"train": described.train.images, "val": described.val.images},
        groups=("maj", "min"),
        draw=draw_by_minority,
        iterations=described.iterations,
        repeat_threshold=described.repeat_threshold,
        crs_gamma=described.crs_gamma,
        minority=tuple(described.minority),
        cover=described.cover,
        draw_defaults={key: getattr(described, key) for key in ("labelled_percent", "min_instances", "dm_minority")},
    )


def _task_name(path: Path) -> str:
    name = path.name.removesuffix(".toml")
    if not _NAME.fullmatch(name):
        raise UsageFault(
            f"{path}: the file's name is the task's and becomes a folder. It must be letters, digits, '_', '-' or '.', "
            f"start with a letter or digit and have at most 64 of them. Got {name!r}."
        )
    if command_name(name) in list_tasks():
        message = f"{path}: {command_name(name)!r} is the name of a built-in task."
        raise UsageFault(message, remedy="give the file another name")
    return name


def _parsed(path: Path) -> dict[str, Any]:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "cissod-bench tasks lists the built-in tasks"
        raise UsageFault(f"{path} cannot be read: {error.strerror}.", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"{path} is not UTF-8: byte {error.start}.") from None
    except toml.TOMLDecodeError as error:
        raise UsageFault(f"{path} is no TOML: {error}.") from None
    return content


def _check_keys(path: Path, content: Mapping[str, Any], kind: type[msgspec.Struct], prefix: str) -> None:
    known = [field.name for field in msgspec.structs.fields(kind)]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(repr(prefix + n) for n in near)}?" if near else ""
            listed = ", ".join(prefix + name for name in known)
            raise UsageFault(f"{path}: there is no key {prefix + key!r}.{hint} Known: {listed}.")


def _check_paths(path: Path, described: TaskFile) -> None:
    for part, values in (("train", described.train), ("val", described.val)):
        for key in ("annotations", "images"):
            rule = broken_name_rule(getattr(values, key))
            if rule is not None:
                raise UsageFault(
                    f"{path}: {part}.{key} is a path below the data root and {rule}. Got {getattr(values, key)!r}.",
                    remedy="move the data below one folder and name that with --data-root",
                )
