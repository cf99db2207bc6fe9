"""The facts of a run and random classification rows, for tests of a method's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tiny import tiny_task
from torch import Tensor

from cissod_bench.contract.method import RunFacts
from cissod_bench.contract.settings import FULL


def facts(
    profile: str = "default", iterations: int = 180_000, variant: Mapping[str, Any] | None = None, **fields: Any
) -> RunFacts:
    own: dict[str, Any] = {
        "task": tiny_task(), "variant": variant or {}, "profile": profile, "classes": ("a", "b", "c", "d"),
        "groups": {"maj": ("a", "b"), "min": ("c", "d")}, "settings": FULL, "iterations": iterations, "generations": 10,
        "labelled_classes": ((0, 1), (1,), (2,), (3,)), "labelled_boxes": (4, 5, 1, 2), "num_unlabelled": 6, "seed": 0,
    }  # fmt: skip
    return RunFacts(**{**own, **fields})


def rows(seed: int, number: int, channels: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(number, channels, generator=generator, dtype=torch.float64)
    return (
        logits,
        torch.randint(channels, (number,), generator=generator),
        torch.rand(number, generator=generator).double(),
    )
