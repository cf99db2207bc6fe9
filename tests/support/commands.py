"""How a command of the tests ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    code: int
    out: str
    err: str
