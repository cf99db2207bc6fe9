"""Tasks and methods in Python files of a user's own: found by a top-level name, imported, told with file and line."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import traceback
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Generic, NoReturn, TypeVar

from cissod_bench.catalogue.declarations import declaration, place_of, tree_of, words_of
from cissod_bench.errors import UsageFault

T = TypeVar("T")

ENDING = ".py"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MODULE = "cissod_bench_file_"  # how the modules of such files are called, in front of a hash of the path


def stem_of(path: Path, ending: str, word: str) -> str:
    """Return the name of a file without its ending: that of the task or method (``word``) which it describes.

    Raises:
        UsageFault: it cannot become a folder's.
    """
    stem = path.name.removesuffix(ending)
    if not _NAME.fullmatch(stem):
        raise UsageFault(
            f"{path}: the file's name is the {word}'s and becomes a folder. It must be letters, digits, '_', '-' or "
            f"'.', start with a letter or digit and have at most 64 of them. Got {stem!r}.",
            remedy=f"rename the file, as to my_{word}{ending}",
        )
    return stem


class _Anew(SourceFileLoader):
    """Compiles a file each time: a compiled copy is told from its source by second and size alone."""

    def get_code(self, fullname: str) -> CodeType:
        """Return what the file says now; no compiled file is read or written."""
        return self.source_to_code(self.get_data(self.path), self.path)


@dataclass(frozen=True)
class Declared(Generic[T]):
    """What a Python file declares.

    Attributes:
        kind: the class of the object.
        module: the file that documents it.
        example: where a whole one is shown.
    """

    kind: type[T]
    module: str
    example: str

    @property
    def word(self) -> str:
        """What messages call it: "method"."""
        return self.kind.__name__.lower()

    @property
    def variable(self) -> str:
        """The top-level name: "METHOD"."""
        return self.kind.__name__.upper()

    def expression(self, path: Path) -> ast.expr:
        """Return the expression that a file assigns to the name; nothing is imported.

        Raises:
            UsageFault: the file cannot be read, is no Python, or has no such assignment.
        """
        try:
            value = declaration(tree_of(path), self.variable)
        except (OSError, SyntaxError, ValueError) as error:
            _refuse(path, error)
        if value is None:
            name = self.kind.__name__
            raise UsageFault(
                f"{path} declares no {self.word}: it has no top-level {self.variable} = {name}(...).",
                remedy=self.example,
            )
        return value

    def read(self, path: Path) -> T:
        """Return the object that a file declares.

        Raises:
            UsageFault: as ``expression``; or the file cannot be imported (the message names the line), or the object
                is of another class.
        """
        self.expression(path)
        path = path.resolve()  # one module however the file is named, and frames that are found by its name
        module_name = f"{_MODULE}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(module_name, path, loader=_Anew(module_name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses and pickles look their module up
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # sys.exit() would end the command in silence
            del sys.modules[module_name]
            _refuse(path, error)
        declared = getattr(module, self.variable, None)
        if not isinstance(declared, self.kind):
            raise UsageFault(
                f"{path}: {self.variable} must be a {self.kind.__name__} ({self.module}). Got "
                f"{type(declared).__name__}.",
                remedy=self.example,
            )
        return declared


def _refuse(path: Path, error: BaseException) -> NoReturn:
    place = str(path) if isinstance(error, (OSError, UnicodeDecodeError)) else place_of(error, path)
    raise UsageFault(f"{place}: {words_of(error)}.", remedy=f"mend {path}") from error


def place_in_file(error: BaseException) -> tuple[str, str] | None:
    """Return the file of a user's own in which an error arose, and "FILE, line N, in FUNCTION"; None where in none.

    The deepest line of such a file counts: below it may stand torch's.
    """
    frames = [
        (frame.f_code.co_filename, f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}")
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(_MODULE)
    ]
    return frames[-1] if frames else None
