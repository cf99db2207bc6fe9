"""Tasks and methods of installed packages, by entry point: listed without an import; of a broken one is warned."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from cissod_bench.catalogue.declarations import (
    Entry,
    command_name,
    declaration,
    entry,
    may_hold,
    place_of,
    tree_of,
    words_of,
)
from cissod_bench.errors import UsageFault

T = TypeVar("T")


class BrokenEntry(UserWarning):
    """An entry point that cannot be used; everything else can."""


def points(group: str) -> dict[str, EntryPoint]:
    """Return name -> entry point of a group; of two with one name the first."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(command_name(point.name), point)
    return found


def package_of(point: EntryPoint) -> str:
    """Return the name and version of the package that an entry point comes from."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"


def list_entries(group: str, taken: Collection[str]) -> dict[str, Entry]:
    """Return name -> entry of the sound entry points of a group, and warn of each other one by its name.

    Args:
        group: of the entry points, e.g. "cissod_bench.methods".
        taken: names of the catalogue, which an entry point does not replace.
    """
    found = {}
    for name, point in points(group).items():
        try:
            if name in taken:
                raise ValueError("the catalogue has an entry of that name, which counts")
            found[name] = _entry(name, point)
        except (ValueError, SyntaxError, OSError) as error:
            reason = f"{place_of(error)}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            text = f"{group.partition('.')[2]}: the entry {name!r} of {package_of(point)} is left out: {reason}."
            warnings.warn(text, BrokenEntry, stacklevel=3)
    return found


def _entry(name: str, point: EntryPoint) -> Entry:
    """Return a listing's line from the file that an entry point names; raises ValueError where it can be no entry."""
    module, _, rest = point.value.partition("[")[0].strip().partition(":")
    variable = rest.strip().partition(".")[0]
    if not variable:
        raise ValueError(f"{point.value!r} names no object; an entry point is written MODULE:OBJECT")
    spec = _spec(module.strip())
    if spec is None:
        raise ValueError(f"there is no module {module.strip()!r}")
    if spec.origin is None or not spec.origin.endswith(".py"):  # compiled: its text cannot be read
        return Entry(name, name, point.value, point.value)
    tree = tree_of(Path(spec.origin))
    if not may_hold(tree, variable):
        raise ValueError(f"{spec.origin} has no {variable}")
    listed = entry(name, point.value, declaration(tree, variable))
    return listed if listed.source else Entry(name, listed.title, point.value, point.value, listed.literals)


def _spec(module: str) -> ModuleSpec | None:
    """Return where a module lies without importing it or the packages around it, as ``find_spec`` would."""
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        if number > 1 and (spec is None or spec.submodule_search_locations is None):
            return None
        path = None if spec is None else list(spec.submodule_search_locations or ())
        name = ".".join(parts[:number])
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        specs = (find(name, path, None) for find in finders if find is not None)
        spec = next((one for one in specs if one is not None), None)
    return spec


def load(point: EntryPoint, kind: type[T]) -> T:
    """Return the object an entry point names.

    Args:
        point: the entry point.
        kind: `Task` or `Method`.

    Raises:
        UsageFault: it cannot be imported or is something else; the message names package and line.
    """
    what = f"{kind.__name__.lower()} {command_name(point.name)!r} of {package_of(point)}"
    remedy = "repair or remove that package"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise UsageFault(
            f"The {what} cannot be loaded: {place_of(error)}: {words_of(error)}.", remedy=remedy
        ) from error
    if not isinstance(found, kind):
        raise UsageFault(f"The {what} must be a {kind.__name__}. Got {type(found).__name__}.", remedy=remedy)
    return found
