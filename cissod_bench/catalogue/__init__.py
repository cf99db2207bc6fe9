"""The catalogue: a file's name -> its task, method or report. Listing reads syntax trees and imports nothing."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

from cissod_bench.catalogue import entry_points
from cissod_bench.catalogue.declarations import Entry as Entry
from cissod_bench.catalogue.declarations import command_name as command_name
from cissod_bench.catalogue.declarations import declaration, entry, tree_of
from cissod_bench.contract.method import Method
from cissod_bench.errors import unknown_name
from cissod_bench.splitting.task import Task

_HERE = Path(__file__).resolve().parent
# A checkout keeps the folders at its root; a wheel nests them in this package (see pyproject.toml).
FOLDERS = _HERE if (_HERE / "method").is_dir() else _HERE.parents[1]
__path__ = [str(_HERE), str(FOLDERS)]


@cache
def _files(folders: tuple[str, ...], variable: str) -> Mapping[str, Entry]:
    entries = {}
    for folder in folders:
        for path in sorted((FOLDERS / folder).glob("[!_]*.py")):
            declared = declaration(tree_of(path), variable)
            if declared is not None:
                name = command_name(path.stem)
                entries[name] = entry(name, f"cissod_bench.catalogue.{folder}.{path.stem}", declared)
    return MappingProxyType(entries)


def list_tasks() -> dict[str, Entry]:
    """Return name -> entry of every sub-task, those of installed third parties last; a broken one is warned of."""
    files = _files(("splits",), "TASK")
    return {**files, **entry_points.list_entries("cissod_bench.tasks", files)}


def list_methods() -> dict[str, Entry]:
    """Return name -> entry of every method, those of installed third parties last; a broken one is warned of."""
    files = _files(("baselines", "method"), "METHOD")
    return {**files, **entry_points.list_entries("cissod_bench.methods", files)}


def list_reports() -> dict[str, str]:
    """Return name -> module of every report, a file in ``reports/`` with a top-level ``build``."""
    found = {}
    for path in sorted((FOLDERS / "reports").glob("[!_]*.py")):
        body = tree_of(path).body
        if any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in body):
            found[command_name(path.stem)] = f"cissod_bench.catalogue.reports.{path.stem}"
    return found


_KINDS: Mapping[str, type] = MappingProxyType({"task": Task, "method": Method})


def _load(name: str, kind: str, folders: tuple[str, ...], group: str) -> Any:
    variable = kind.upper()
    name = command_name(name)
    files, others = _files(folders, variable), entry_points.points(group)
    if name in files:
        return replace(getattr(importlib.import_module(files[name].module), variable), name=name)
    if name in others:
        loaded: Any = entry_points.load(others[name], _KINDS[kind])
        return replace(loaded, name=name)
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


def load_formulas(name: str) -> ModuleType:
    """Return a module of equations that stands beside the methods, such as "gbr"."""
    return importlib.import_module(f"cissod_bench.catalogue.method.{name}")
