"""Hashes: of files, and of numbers (SplitMix64)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]

_HASHED_BYTES = 8 << 20  # between two blocks the hashing thread waits for its turn: they should be few


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        block = bytearray(min(os.fstat(stream.fileno()).st_size + 1, _HASHED_BYTES))
        while count := stream.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def splitmix64(values: UInt64) -> UInt64:
    """Return a well-mixed 64-bit hash of each value: the output function of Steele, Lea and Flood's SplitMix (2014).

    It is a bijection, so different ids never share a rank.
    """
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def mix(*parts: int | UInt64) -> UInt64:
    """Return 64 well-mixed bits of a few integers, elementwise; the same on any machine and NumPy version.

    Each part is added and the sum hashed.
    """
    state: UInt64 = np.zeros(1, np.uint64)
    for part in parts:
        state = splitmix64(state + np.asarray(part).astype(np.uint64))
    return state
