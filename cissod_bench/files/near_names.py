"""Which file or folder is likely meant where one is named that is not there."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

_NEAR = 0.6  # "data.yml" and "data.yaml" are .94 alike


def near_name(path: Path) -> str:
    """Return the name in a missing file's or folder's folder that is most like its own; "" where none is.

    Capitals do not count.
    """
    try:
        names = {name.casefold(): name for name in sorted(os.listdir(path.parent)) if not name.startswith(".")}
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name.casefold(), names, n=1, cutoff=_NEAR)
    return names[near[0]] if near else ""


def near_names(*places: Path) -> list[str]:
    """Return the one name that is likely meant, in a list, or none.

    Args:
        places: where it was looked for; the first that has a name like it counts.
    """
    return [name for place in places if (name := near_name(place))][:1]
