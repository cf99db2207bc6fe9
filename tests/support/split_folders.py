"""Split folders of the tiny task, for tests of make-splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILES = ("labelled.json", "unlabelled.json", "hidden.json")


def folder(tmp_path: Path, seed: int = 0, work: str = "work") -> Path:
    return tmp_path / work / "splits" / "tiny" / f"seed{seed}"


def content(path: Path) -> Any:
    return json.loads(path.read_bytes())


def data_bytes(path: Path) -> list[bytes]:
    return [(path / name).read_bytes() for name in FILES]
