"""A tensor's numbers in the order in which they lie, whatever its layout: for what asks of a number nothing else."""

from __future__ import annotations

from torch import Tensor


def is_dense(values: Tensor) -> bool:
    """Tell whether a tensor's numbers lie close to each other, so that they are one row."""
    return values.numel() == 1 + sum((n - 1) * step for n, step in zip(values.shape, values.stride(), strict=True))


def as_row(values: Tensor) -> Tensor:
    """Return the numbers of a dense tensor in the order in which they lie, shape (numel,); they share memory."""
    return values.as_strided((values.numel(),), (1,))
