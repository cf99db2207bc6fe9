"""Class groups: what they are called in words, and which part each plays beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

WORDS: Mapping[str, str] = MappingProxyType(
    {"maj": "majority", "min": "minority", "f": "frequent", "c": "common", "r": "rare"}
)
"""Group, as a record names it -> the word that people read; a group that is not here is its own word."""


def roles(groups: Sequence[str]) -> dict[str, int]:
    """Return group -> the part it plays: 0 the most frequent, 1 the least, 2 and up between them.

    A role has one colour and one mark in every figure.

    Args:
        groups: most frequent first.
    """
    last = len(groups) - 1
    return {group: 0 if place == 0 else 1 if place == last else place + 1 for place, group in enumerate(groups)}
