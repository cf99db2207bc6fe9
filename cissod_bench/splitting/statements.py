"""What a task states of its splits; a split keeps it, so that a task that was changed since then is noticed.

Options that the user chose for a draw are no change of the task: the manifest holds them beside what the task stated.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files.hashing import file_sha256
from cissod_bench.splitting.manifest import Manifest
from cissod_bench.splitting.options import DRAW_OPTIONS, DrawOptions, option_name
from cissod_bench.splitting.task import Task

OPTIONS = tuple(name for name in DRAW_OPTIONS if name != "split_seed")
"""Options of a draw that may differ between splits of one task and seed."""

_OF_A_DRAW = frozenset(OPTIONS) - {"minority"}
_ELSEWHERE = frozenset(
    {"title", "source", "name", "file", "official"}  # change no split and no score
    | {"iterations", "repeat_threshold", "crs_gamma", "exif"}  # of a run, which compares them with its record
    | {"draw", "prepare"}  # code; the manifest's "algorithm" stands for it
    | {"conversion", "preset", "crowd_ignored"}  # the files it writes are hashed; of a run
    | {"draw_defaults"}  # resolved, in the options
)
_OLDER = ("images", "naming", "metric", "max_dets", *OPTIONS)  # what manifests held before they held the statement


def default_options(task: Task) -> dict[str, Any]:
    """Return the options of a draw that are the task's own, where they may differ from those of ``DrawOptions``."""
    return {"cover": task.cover, "minority": task.minority or None, **task.draw_defaults}


def stated(task: Task) -> dict[str, Any]:
    """Return all that a task states of its splits and of how they are scored, as plain JSON.

    That is every field of ``Task``, a future one too, that is not known to concern neither, and every option of a draw.
    """
    facts = {fact.name: getattr(task, fact.name) for fact in fields(task) if fact.name not in _ELSEWHERE}
    options = vars(DrawOptions(**default_options(task)))
    return _plain({**facts, **{name: options[name] for name in OPTIONS}})


def _plain(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statement so written that equal ones are equal: order of minority and slashes of paths do not count."""
    plain: dict[str, Any] = json.loads(json.dumps(statement, default=dict))
    for key in ("inputs", "images"):
        if isinstance(plain.get(key), dict):
            plain[key] = {role: posixpath.normpath(str(path)) for role, path in plain[key].items()}
    if "minority" in plain:
        plain["minority"] = sorted(plain["minority"] or ())
    return plain


def changed(manifest: Manifest, task: Task, options: DrawOptions) -> dict[str, tuple[Any, Any]]:
    """Return what the task stated when a split was made and states otherwise now: key -> (then, now).

    Args:
        manifest: of the split.
        task: as it is now.
        options: asked for; manifests of older versions hold the options of the draw alone, which are compared with
            these.
    """
    now = stated(task)
    if manifest.stated:
        usual = {fact.name: fact.default for fact in fields(Task) if fact.default is not MISSING}
        then = {key: usual[key] for key in now if key in usual and key not in manifest.stated}
        then = _plain({**then, **manifest.stated})
    else:
        then = _plain(manifest.held(*_OLDER))
        now |= _plain({name: getattr(options, name) for name in OPTIONS})
    if manifest.imported:  # nothing was drawn
        then = {key: value for key, value in then.items() if key not in _OF_A_DRAW}
    return {key: (then[key], now[key]) for key in now if key in then and then[key] != now[key]}


def chosen(manifest: Manifest) -> dict[str, tuple[Any, Any]]:
    """Return the options that a split was drawn with in place of its task's own: option -> (the split's, the task's).

    Manifests of older versions do not tell.
    """
    if manifest.imported or not manifest.stated:
        return {}
    there = _plain(manifest.held(*OPTIONS))
    stated_then = _plain(manifest.stated)
    return {name: (there[name], stated_then.get(name)) for name in there if there[name] != stated_then.get(name)}


def check_described(
    folder: Path,
    manifest: Manifest,
    task: Task,
    options: DrawOptions,
    files: Mapping[str, Path],
    *,
    remedy: str,
) -> None:
    """Refuse a split that is not the one its task describes now.

    Args:
        folder: of the split.
        manifest: its manifest.
        task: as it is now.
        options: asked for, see ``changed``.
        files: role -> annotation file of the task; one that is not at hand is not compared.
        remedy: of the fault.

    Raises:
        DataFault: an annotation file is another one than the split was made from.
        UsageFault: the task states something else than it did. In both cases all that differs is told.
    """
    parts = [f"{key} {_difference(then, now)}" for key, (then, now) in changed(manifest, task, options).items()]
    others = []
    for role, path in files.items():
        was, now = manifest.inputs.get(role), file_sha256(path)
        if was is not None and was.sha256 != now:
            others.append(f"it was drawn from another {path}: its sha256 was {was.sha256}, now it is {now}")
    message = f"{folder} is not the split that {task.named} describes now: {'; '.join([*parts, *others])}."
    if others:
        raise DataFault(message, remedy=remedy)
    if parts:
        raise UsageFault(message, remedy=remedy)


def _difference(then: Any, now: Any) -> str:
    """Return two values in words; of lists only what is in one of them, for 40 names hide the two that differ."""
    if isinstance(then, list) and isinstance(now, list):
        both = {
            "has lost": [name for name in then if name not in now],
            "has got": [name for name in now if name not in then],
        }
        words = [f"{what} {', '.join(map(repr, names))}" for what, names in both.items() if names]
        return " and ".join(words) or f"was {then!r} and is {now!r}"
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        return ", ".join(f"of {key} was {then.get(key)!r} and is {now.get(key)!r}" for key in keys)
    return f"was {then!r} and is {now!r}"


def make_again(task: Task, manifest: Manifest, data_root: Path, work_dir: Path) -> str:
    """Return the remedy for a split that is not what its task describes: the command that makes such a split.

    Runs that were made on the split need it for their checkpoints; where there are any, it is left alone.

    Args:
        task: as it is now.
        manifest: of the split.
        data_root: as the user gave it.
        work_dir: likewise.
    """
    seed = manifest.split_seed
    command = "splits import --labelled FILE --unlabelled FILE" if manifest.imported else "make-splits"
    words = ["--task", task.named, "--split-seed", str(seed)]
    for name, (there, _) in chosen(manifest).items():
        words += [option_name(name), "FILE" if name == "minority" else str(there)]
    command = f"cissod-bench {command} {shlex.join([*words, '--data-root', str(data_root)])}"
    here = f"{command} {shlex.join(['--work-dir', str(work_dir), '--force'])}"
    if not (work_dir / "runs" / task.name / f"split{seed}").is_dir():
        return f"put back what was changed, or make the split again: {here}"
    return (
        "put back what was changed, or make the split beside this one, which its runs need: "
        f"{command} {shlex.join(['--work-dir', f'{work_dir}-new'])}\n"
        f"     (to give up these runs and replace the split: {here})"
    )
