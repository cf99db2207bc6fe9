"""Splits that are wrong though all their hashes fit, for tests of what notices them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from split_folders import FILES, content

from cissod_bench.splitting.manifest import split_sha256


def rewrite(place: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change data files and manifest of a split, and make all hashes of files fit again: a wrong split, not a damaged
    one. ``change`` takes file name -> content, and the manifest."""
    manifest = content(place / "manifest.json")
    files = {name: content(place / name) for name in FILES}
    change(files, manifest)
    for name, data in files.items():
        text = json.dumps(data).encode()
        (place / name).write_bytes(text)
        manifest["files"][name] = hashlib.sha256(text).hexdigest()
    manifest["split_sha256"] = split_sha256(manifest["files"])
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
