"""Methods by name or by file: wherever a method is named, a ``.py`` file with a top-level ``METHOD`` may stand, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cissod_bench.catalogue import list_methods, load_method
from cissod_bench.catalogue.declarations import Entry, command_name, entry
from cissod_bench.catalogue.python_files import ENDING, Declared, stem_of
from cissod_bench.contract.method import Method
from cissod_bench.errors import UsageFault, unknown_name


def find_method(name: str) -> Method:
    """Return the method of that name, or the one that a file whose name ends in ".py" declares.

    Args:
        name: ``soft-teacher``, or ``FILE.py``, whose method is called as the file's stem is.

    Raises:
        UsageFault: there is no such method or file, or the file does not declare one; the message names the line.
    """
    return read_method_file(Path(name)) if name.endswith(ENDING) else load_method(name)


def find_entry(name: str) -> Entry:
    """Return what a listing shows of the method that `find_method` returns, without importing it.

    Raises:
        UsageFault: as `find_method`, but for what only an import can tell.
    """
    if name.endswith(ENDING):
        path = Path(name)
        own = method_name(path)
        return entry(own, str(path), _DECLARED.expression(path))
    known = list_methods()
    if command_name(name) not in known:
        raise unknown_name("method", name, known, remedy="cissod-bench methods")
    return known[command_name(name)]


def split_variant(text: str) -> tuple[str, str]:
    """Return method and variant of ``NAME+VARIANT`` or ``FILE.py+VARIANT``; the variant is "" where there is none."""
    if text.endswith(ENDING):
        return text, ""
    file, ending, variant = text.partition(f"{ENDING}+")
    if ending:
        return file + ENDING, variant
    name, _, variant = text.partition("+")
    return name, variant


def method_name(path: Path) -> str:
    """Return the name of a file's method: its stem, with '-' for '_' as in the catalogue.

    Raises:
        UsageFault: the file is missing, its name is unfit for a folder, or the catalogue has a method of that name.
    """
    if not path.is_file():
        raise UsageFault(f"There is no file {path}.", remedy="cissod-bench methods lists the methods that have a name")
    name = command_name(stem_of(path, ENDING, "method"))
    if name in list_methods():
        raise UsageFault(f"{path}: {name!r} is the name of a catalogue method.", remedy="give the file another name")
    return name


_DECLARED = Declared(Method, "cissod_bench/contract/method.py", "CONTRIBUTING.md shows a whole method in 40 lines")


def read_method_file(path: Path) -> Method:
    """Return the method a Python file declares.

    Raises:
        UsageFault: the file is missing, has no ``METHOD = Method(...)``, cannot be imported (the message names the
            line), or its name is taken or unfit for a folder.
    """
    name = method_name(path)
    return replace(_DECLARED.read(path), name=name)
