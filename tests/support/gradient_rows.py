"""Random classification rows in double precision, and a close comparison, for tests of GbR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def close(found: Tensor, expected: Any, tolerance: float = 2e-9) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def batch(seed: int, rows: int, channels: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, channels, generator=generator, dtype=torch.float64)
    labels = torch.randint(channels, (rows,), generator=generator)
    return logits, labels, torch.rand(rows, generator=generator, dtype=torch.float64)
