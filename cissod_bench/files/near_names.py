"""Which file or folder is likely meant where one is named that is not there."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

_NEAR = 0.6  # "data.yml" and "data.yaml" are .94 alike


def near_names(*places: Path) -> list[str]:
    """Return, in a list, the one name that is most like a missing file's or folder's, or none; capitals do not count.

    Args:
        places: where it was looked for; the first with such a name beside it counts.
    """
    for place in places:
        try:
            names = {name.casefold(): name for name in sorted(os.listdir(place.parent)) if not name.startswith(".")}
        except OSError:
            continue
        if near := difflib.get_close_matches(place.name.casefold(), names, n=1, cutoff=_NEAR):
            return [names[near[0]]]
    return []
