"""Methods by name or by file: wherever a method is named, a ``.py`` file with a top-level ``METHOD`` may stand, too."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from cissod_bench.catalogue import list_methods, load_method
from cissod_bench.catalogue.declarations import Entry, command_name, declaration, entry, place_of, tree_of, words_of
from cissod_bench.contract.method import Method
from cissod_bench.errors import UsageFault, unknown_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ENDING = ".py"


def find_method(name: str) -> Method:
    """Return the method of that name, or the one that a file whose name ends in ".py" declares.

    Args:
        name: ``soft-teacher``, or ``FILE.py``, whose method is called as the file's stem is.

    Raises:
        UsageFault: there is no such method or file, or the file does not declare one; the message names the line.
    """
    return read_method_file(Path(name)) if name.endswith(_ENDING) else load_method(name)


def find_entry(name: str) -> Entry:
    """Return what a listing shows of the method that `find_method` returns, without importing it.

    Raises:
        UsageFault: as `find_method`, but for what only an import can tell.
    """
    if name.endswith(_ENDING):
        path = Path(name)
        own = method_name(path)
        return entry(own, str(path), _declared(path))
    known = list_methods()
    if command_name(name) not in known:
        raise unknown_name("method", name, known, remedy="cissod-bench methods")
    return known[command_name(name)]


def split_variant(text: str) -> tuple[str, str]:
    """Return method and variant of ``NAME+VARIANT`` or ``FILE.py+VARIANT``; the variant is "" where there is none."""
    if text.endswith(_ENDING):
        return text, ""
    file, ending, variant = text.partition(f"{_ENDING}+")
    if ending:
        return file + _ENDING, variant
    name, _, variant = text.partition("+")
    return name, variant


def method_name(path: Path) -> str:
    """Return the name of a file's method: its stem, with '-' for '_' as in the catalogue.

    Raises:
        UsageFault: the file is missing, its name is unfit for a folder, or the catalogue has a method of that name.
    """
    if not path.is_file():
        raise UsageFault(f"There is no file {path}.", remedy="cissod-bench methods lists the methods that have a name")
    stem = path.name.removesuffix(_ENDING)
    if not _NAME.fullmatch(stem):
        raise UsageFault(
            f"{path}: the file's name is the method's and becomes a folder. It must be letters, digits, '_', '-' or "
            f"'.', start with a letter or digit and have at most 64 of them. Got {stem!r}.",
            remedy="rename the file, as to my_method.py",
        )
    name = command_name(stem)
    if name in list_methods():
        raise UsageFault(f"{path}: {name!r} is the name of a catalogue method.", remedy="give the file another name")
    return name


def _declared(path: Path) -> ast.expr:
    """Return the expression that a file assigns to METHOD."""
    try:
        value = declaration(tree_of(path), "METHOD")
    except (OSError, SyntaxError, ValueError) as error:
        _refuse(path, error)
    if value is None:
        raise UsageFault(
            f"{path} declares no method: it has no top-level METHOD = Method(...).",
            remedy="CONTRIBUTING.md shows a whole method in 40 lines",
        )
    return value


def _refuse(path: Path, error: BaseException) -> NoReturn:
    place = str(path) if isinstance(error, (OSError, UnicodeDecodeError)) else place_of(error, path)
    raise UsageFault(f"{place}: {words_of(error)}.", remedy=f"mend {path}") from error


def read_method_file(path: Path) -> Method:
    """Return the method a Python file declares.

    Raises:
        UsageFault: the file is missing, has no ``METHOD = Method(...)``, cannot be imported (the message names the
            line), or its name is taken or unfit for a folder.
    """
    name = method_name(path)
    _declared(path)
    path = path.resolve()  # one module however the file is named, and frames that are found by its name
    module_name = f"cissod_bench_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        _refuse(path, error)
    method = getattr(module, "METHOD", None)
    if not isinstance(method, Method):
        raise UsageFault(
            f"{path}: METHOD must be a Method (cissod_bench/contract/method.py). Got {type(method).__name__}.",
            remedy="CONTRIBUTING.md shows a whole method in 40 lines",
        )
    return replace(method, name=name)
