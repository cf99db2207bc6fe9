"""The catalogue: a file's name -> its task, method or report. Listing reads syntax trees and imports nothing."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

from cissod_bench.errors import unknown_name
from cissod_bench.spec import Method, Task

_HERE = Path(__file__).resolve().parent
# A checkout keeps the folders at its root; a wheel nests them in this package (see pyproject.toml).
FOLDERS = _HERE if (_HERE / "method").is_dir() else _HERE.parents[1]
__path__ = [str(FOLDERS)]


@dataclass(frozen=True)
class Entry:
    """What a listing shows of a catalogue file without importing it.

    Attributes:
        name: on the command line.
        title: as the paper prints it.
        source: where it is defined.
        module: what is imported when it is loaded.
        literals: the arguments of its declaration that are literals ("citation", "reported", "competitor", ...).
    """

    name: str
    title: str
    source: str
    module: str
    literals: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def command_name(stem: str) -> str:
    """Return the name on the command line of a catalogue file: ``soft_teacher`` -> ``soft-teacher``."""
    return stem.replace("_", "-")


def _declaration(path: Path, variable: str) -> ast.expr | None:
    """Return the value of the top-level assignment to ``variable`` in a file, or None."""
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            return value
    return None


def _literals(value: ast.expr) -> dict[str, Any]:
    """Return the keyword arguments of a call that are literals; the others are left out."""
    found: dict[str, Any] = {}
    for keyword in value.keywords if isinstance(value, ast.Call) else []:
        try:
            found[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return found


@cache
def _files(folders: tuple[str, ...], variable: str) -> Mapping[str, Entry]:
    entries = {}
    for folder in folders:
        for path in sorted((FOLDERS / folder).glob("[!_]*.py")):
            declared = _declaration(path, variable)
            if declared is None:
                continue
            literals = _literals(declared)
            name = command_name(path.stem)
            module = f"cissod_bench.catalogue.{folder}.{path.stem}"
            entries[name] = Entry(
                name, str(literals.get("title", name)), str(literals.get("source", "")), module, literals
            )
    return MappingProxyType(entries)


def _third_party(group: str) -> dict[str, EntryPoint]:
    return {command_name(point.name): point for point in entry_points(group=group)}


def list_tasks() -> dict[str, Entry]:
    """Return name -> entry of every sub-task, those of installed third parties last."""
    others = {n: Entry(n, n, p.value, p.value) for n, p in _third_party("cissod_bench.tasks").items()}
    return {**_files(("splits",), "TASK"), **others}


def list_methods() -> dict[str, Entry]:
    """Return name -> entry of every method, those of installed third parties last."""
    others = {n: Entry(n, n, p.value, p.value) for n, p in _third_party("cissod_bench.methods").items()}
    return {**_files(("baselines", "method"), "METHOD"), **others}


def list_reports() -> dict[str, str]:
    """Return name -> module of every report, a file in ``reports/`` with a top-level ``build``."""
    found = {}
    for path in sorted((FOLDERS / "reports").glob("[!_]*.py")):
        body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
        if any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in body):
            found[command_name(path.stem)] = f"cissod_bench.catalogue.reports.{path.stem}"
    return found


def _load(name: str, kind: str, folders: tuple[str, ...], group: str) -> Any:
    variable = kind.upper()
    name = command_name(name)
    files, others = _files(folders, variable), _third_party(group)
    if name in files:
        return replace(getattr(importlib.import_module(files[name].module), variable), name=name)
    if name in others:
        return replace(others[name].load(), name=name)
    raise unknown_name(kind, name, [*files, *others], remedy=f"cissod-bench {kind}s")


def load_task(name: str) -> Task:
    """Return the sub-task of that name (``coco-split1`` or ``coco_split1``).

    Raises:
        UsageFault: there is none; the message lists near matches.
    """
    return cast(Task, _load(name, "task", ("splits",), "cissod_bench.tasks"))


def load_method(name: str) -> Method:
    """Return the method of that name (``soft-teacher`` or ``soft_teacher``).

    Raises:
        UsageFault: there is none; the message lists near matches.
    """
    return cast(Method, _load(name, "method", ("baselines", "method"), "cissod_bench.methods"))


def load_report(name: str) -> Callable[..., Any]:
    """Return the ``build`` function of a report.

    Raises:
        UsageFault: there is none; the message lists near matches.
    """
    reports = list_reports()
    if command_name(name) not in reports:
        raise unknown_name("report", name, reports)
    module: ModuleType = importlib.import_module(reports[command_name(name)])
    return cast("Callable[..., Any]", module.build)
