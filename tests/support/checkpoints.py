"""Checkpoints of the tests: whether two hold the same bits, and one that would run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints hold the same bits."""
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
