"""Images of shapes, drawn once for all tests of a process: each test gets copies of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cissod_bench.splitting.toy_images import write_shapes


def drawn(counts: Mapping[str, int], weights: Mapping[str, float], seed: int) -> dict[str, bytes]:
    """Return the path of every file that `write_shapes` writes, and what is in it."""
    return _drawn(tuple(counts.items()), tuple(weights.items()), seed)


@cache
def _drawn(counts: tuple[tuple[str, int], ...], weights: tuple[tuple[str, float], ...], seed: int) -> dict[str, bytes]:
    with TemporaryDirectory() as place:
        write_shapes(Path(place) / "drawn", dict(counts), dict(weights), seed=seed, most=4)
        files = [path for path in (Path(place) / "drawn").rglob("*") if path.is_file()]
        return {path.relative_to(Path(place) / "drawn").as_posix(): path.read_bytes() for path in files}


def copy_shapes(folder: Path, counts: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
    """Make a folder what `write_shapes` with at most 4 shapes an image makes it; two ranks may ask at one time."""
    if not folder.exists():
        hidden = folder.with_name(f".{folder.name}-{os.getpid()}")
        for name, content in drawn(counts, weights, seed).items():
            (hidden / name).parent.mkdir(parents=True, exist_ok=True)
            (hidden / name).write_bytes(content)
        try:
            hidden.rename(folder)
        except OSError:  # the other rank was first
            shutil.rmtree(hidden)
    write_shapes(folder, counts, weights, seed=seed, most=4)  # finds what is there, or draws it anew
