"""log.jsonl and pseudo_labels.jsonl: a line every few iterations; a resumed run drops those after its checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from cissod_bench.files import whole_files as atomic


def rewind(path: Path, iteration: int) -> None:
    """Keep the lines up to an iteration; a line cut short by a crash goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["iteration"] <= iteration:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    atomic.write_bytes(path, b"".join(line + b"\n" for line in kept))


def _plain(value: float | str | None) -> float | str | None:
    """Return a value that JSON can hold: NaN and Infinity become null."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


def append(path: Path, line: Mapping[str, float | str | None]) -> None:
    """Add a line, as a whole or not at all.

    Raises:
        EnvironmentFault: the disk is full.
    """
    rounded = {name: _plain(value) for name, value in line.items()}
    atomic.append(path, json.dumps(rounded).encode() + b"\n")
