"""Makes few big source files of mmcv's many small ones: each takes the compiler seconds for torch's headers alone.

A file of a few lines includes several others, and is compiled in their place. Files that would disturb each other stay
apart: those that define macros, and those that define functions or types of one name. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDERS = ("mmcv/ops/csrc/pytorch", "mmcv/ops/csrc/pytorch/cpu")
"""Whose files mmcv's own setup.py compiles for the CPU."""
APART = "apart"
"""The folder that the small files move to, below theirs."""
DEFINED = re.compile(r"^(?!using|return|#|//|\s)[^=;(\n]*?\b(?:(?:struct|class)\s+(\w+)|(\w+)\s*\()", re.MULTILINE)
"""The name of what a line without indent defines or declares."""
MACRO = re.compile(r"^\s*#\s*define\b", re.MULTILINE)
MOST = 20
"""Files in one: more would need more memory and keep a second core idle."""


@dataclass
class Pack:
    """Files that one file includes.

    Attributes:
        names: the files.
        defined: what they define.
    """

    names: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)


def packed(texts: Mapping[str, str], bound: Iterable[str] = ("pybind.cpp",)) -> list[list[str]]:
    """Return which source files can be compiled as one, in their order; a file that must stay alone is in none.

    Args:
        texts: the files' contents by their names.
        bound: names of files that stay alone whatever they hold.
    """
    packs: list[Pack] = []
    for name, text in texts.items():
        if name in bound or MACRO.search(text):
            continue
        defined = {struct or function for struct, function in DEFINED.findall(text)}
        fitting = (pack for pack in packs if len(pack.names) < MOST and not pack.defined & defined)
        pack = next(fitting, None)
        if pack is None:
            pack = Pack()
            packs.append(pack)
        pack.names.append(name)
        pack.defined |= defined
    return [pack.names for pack in packs if len(pack.names) > 1]


def pack(root: Path) -> int:
    """Let files of mmcv's unpacked source be compiled together; return how many are left to compile."""
    for folder in (root / name for name in FOLDERS):
        texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cpp"))}
        (folder / APART).mkdir()
        for number, names in enumerate(packed(texts)):
            for name in names:
                (folder / name).rename(folder / APART / name)
            lines = (f'#include "{APART}/{name}"\n' for name in names)
            (folder / f"together_{number}.cpp").write_text("".join(lines), encoding="utf-8")
    return sum(1 for name in FOLDERS for _ in (root / name).glob("*.cpp"))
