"""What a run is called beside its method, its scale and its seeds: the user's name, or the settings that he changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cissod_bench.errors import UsageFault
from cissod_bench.records.record import FREE_SETTINGS

MOST_SPELLED = 4
"""Settings that are written out; more are counted, with a hash of all."""

_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PLAIN = re.compile(r"[A-Za-z0-9,._-]{1,40}")
_ODD = re.compile(r"[^A-Za-z0-9,._-]+")
_MOST_LETTERS = 80
_DIGITS = 8


def check_name(name: str) -> None:
    """Refuse a name that a user gives and that could be no part of a folder's, or one that settings give.

    Raises:
        UsageFault: it is one.
    """
    if not _GIVEN.fullmatch(name):
        raise UsageFault(
            f"--name becomes part of a folder. It must be letters, digits, '_', '-' or '.', start with a letter or "
            f"digit and have at most 64 of them. Got {name!r}.",
            remedy="leave --name out: a run is then called as the settings that differ from the preset",
        )


def name_of_settings(used: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Return what a run is called by the settings in which it differs from its preset; "" where it does in none.

    Settings that change no number do not count, so a run may be continued with others.

    Args:
        used: the run's settings.
        usual: the preset's.
    """
    changed = {name: used[name] for name in sorted(used) if name not in FREE_SETTINGS and used[name] != usual[name]}
    spelled = "+".join(f"{name}={_text(value)}" for name, value in changed.items())
    if len(changed) <= MOST_SPELLED and len(spelled) <= _MOST_LETTERS:
        return spelled
    return f"{len(changed)}-settings-{_hash(json.dumps(changed, sort_keys=True))}"


def _text(value: Any) -> str:
    """Return a value as part of a folder's name; one that has to be changed for it ends with a hash of the whole."""
    if isinstance(value, bool):
        return str(value).lower()
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    if _PLAIN.fullmatch(text):
        return text
    last = _ODD.sub("-", text.replace("\\", "/").rpartition("/")[2]).strip("-.")[:30]
    return f"{last or 'empty'}-{_hash(text)}" if text else "none"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
