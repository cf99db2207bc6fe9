"""log.jsonl: a line of numbers every few iterations; a resumed run drops the lines after its checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

from cissod_bench.atomic import write_bytes


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
    write_bytes(path, b"".join(line + b"\n" for line in kept))


def _plain(value: float) -> float | None:
    """Return a number that JSON can hold: NaN and Infinity become null."""
    if not math.isfinite(value):
        return None
    return round(value, 6) if isinstance(value, float) else value


def append(path: Path, line: dict[str, float]) -> None:
    """Add a line."""
    rounded = {name: _plain(value) for name, value in line.items()}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(rounded) + "\n")
