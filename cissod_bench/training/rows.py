"""A tensor as one row of numbers in the order of the memory, whatever its layout: for elementwise operations."""

from __future__ import annotations

from torch import Tensor


def is_dense(values: Tensor) -> bool:
    """Return whether a tensor's numbers lie in memory without gaps, in whatever order of its dimensions."""
    return values.numel() == 1 + sum((n - 1) * step for n, step in zip(values.shape, values.stride(), strict=True))


def as_row(values: Tensor) -> Tensor:
    """Return the numbers of a dense tensor in the order in which they lie, shape (numel,); they share memory."""
    return values.as_strided((values.numel(),), (1,))
