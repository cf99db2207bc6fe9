"""What a Python file declares, read from its syntax tree: listing a catalogue imports nothing."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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


def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree.

    Raises:
        OSError: it cannot be read.
        SyntaxError: it is no Python.
        ValueError: it is not UTF-8, or holds a null byte.
    """
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def declaration(tree: ast.Module, variable: str) -> ast.expr | None:
    """Return the value of the top-level assignment to ``variable``, or None."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            return value
    return None


def literals(value: ast.expr | None) -> dict[str, Any]:
    """Return the keyword arguments of a call that are literals; the others are left out."""
    found: dict[str, Any] = {}
    for keyword in value.keywords if isinstance(value, ast.Call) else []:
        try:
            found[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return found


def entry(name: str, module: str, declared: ast.expr | None) -> Entry:
    """Return a listing's line from a declaration; what it leaves open is the name, or empty."""
    found = literals(declared)
    return Entry(name, str(found.get("title", name)), str(found.get("source", "")), module, found)


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names a module may bind anywhere, nested blocks included; "*" for all of another module's."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def may_hold(tree: ast.Module, variable: str) -> bool:
    """Tell whether a module of this tree can have the name; False only where it surely has not."""
    return not {variable, "*", "__getattr__"}.isdisjoint(_bound(tree))


def place_of(error: BaseException, path: Path | None = None) -> str:
    """Return "FILE, line N" of an error.

    Args:
        error: as caught.
        path: the file whose line is wanted, the deepest one of it; None takes where the error was raised.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is not None and frame.filename == str(path)]
    if not frames or (path is not None and isinstance(error, SyntaxError)):  # a NUL byte, which stands in no line
        return str(path or "unknown place")
    deepest = (own or list(frames))[-1]
    return f"{deepest.filename}, line {deepest.lineno}"


def words_of(error: BaseException) -> str:
    """Return an error's type and message in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ")
