"""File names of image records as names below the task's image folder.

Annotation files travel. On Windows a backslash parts folders; some tools write the absolute name an image had on the
machine that exported it. Both are read as names below the image folder, if they can be.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cissod_bench.annotations.lenient import ABSOLUTE_NAMES, BACKSLASHES

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


@dataclass(frozen=True)
class ImageFolder:
    """Where the images of an annotation file lie.

    Attributes:
        path: the folder; it need not exist.
        named: its path below the data root, as the task names it.
    """

    path: Path
    named: str


class NamesBelow:
    """Makes names of one annotation file plain.

    A name with backslashes stays as it is where the folder holds a file of just that name: so they come out of some
    archives. An absolute name is read from behind the folder's own path or else from behind the folder's name in it;
    where that stands several times, the files that are there decide.

    Attributes:
        tally: what was done -> to how many names.

    Args:
        folder: where the images lie.
    """

    def __init__(self, folder: ImageFolder) -> None:
        self.tally: Counter[str] = Counter()
        self._folder = folder
        self._literal: bool | None = None
        self._prefixes: list[str] = [
            f"{place.rstrip('/')}/"
            for place in dict.fromkeys((os.path.abspath(folder.path), os.path.realpath(folder.path)))
        ]

    def changed(self, names: Sequence[str]) -> dict[int, str]:
        """Return the place of every name that is not plain -> the plain one."""
        text = "\n".join(names)  # one look at thousands of names
        if not (text.startswith("/") or any(mark in text for mark in ("\\", "\n/", ":/"))):
            return {}
        return {place: plain for place, name in enumerate(names) if (plain := self._plain(name)) != name}

    def _plain(self, name: str) -> str:
        slashed = name if "\\" not in name or self._is_literal(name) else name.replace("\\", "/")
        is_plain = not _ABSOLUTE.match(slashed) or ".." in slashed.split("/")
        plain = slashed if is_plain else self._below(slashed)
        if plain == name:
            return name
        self.tally[ABSOLUTE_NAMES if plain != slashed else BACKSLASHES] += 1
        return plain

    def _is_literal(self, name: str) -> bool:
        """Return whether the file's names hold backslashes as letters; the first such name tells."""
        if self._literal is None:
            self._literal = not _ABSOLUTE.match(name.replace("\\", "/")) and os.path.isfile(self._folder.path / name)
        return self._literal

    def _below(self, name: str) -> str:
        """Return an absolute name from behind the image folder, or as it is where the folder is not in it."""
        known = next((prefix for prefix in self._prefixes if name.startswith(prefix) and name != prefix), None)
        if known is None and (known := self._prefix(name)) is not None:
            self._prefixes.append(known)
        return name if known is None else name[len(known) :].lstrip("/")

    def _prefix(self, name: str) -> str | None:
        parts = name.split("/")
        folder = PurePosixPath(self._folder.named.replace("\\", "/")).parts
        for wanted in (folder, folder[-1:]):
            ends = range(len(wanted), len(parts)) if wanted else ()
            stops = [end for end in ends if tuple(parts[end - len(wanted) : end]) == wanted]
            if stops:
                there = [stop for stop in stops if os.path.isfile(self._folder.path / "/".join(parts[stop:]))]
                return "/".join(parts[: (there or stops[-1:])[0]]) + "/"
        return None
