"""The parts of DASO and what an iteration does with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectors import TINY
from run_facts import facts

from baselines.daso import (
    Daso,
)
from cissod_bench.contract.parts import Context, Detections, Regions


def daso(iterations: int = 40, **fields: Any) -> Daso:
    """Four classes, 32 features; windows of five iterations."""
    own = {"settings": TINY, **fields}
    return Daso(facts(iterations=iterations, **own))


def regions(seed: int, labels: Sequence[int]) -> Regions:
    random = torch.Generator().manual_seed(seed)
    return Regions(torch.rand(len(labels), 32, generator=random), torch.tensor(labels, dtype=torch.int64))


def detections(labels: Sequence[int], scores: Sequence[float] | None = None) -> Detections:
    values = torch.tensor(scores if scores is not None else [0.7] * len(labels))
    return Detections(0, 0, torch.zeros(len(labels), 4), torch.tensor(labels, dtype=torch.int64), values)


def iterate(
    parts: Daso, iteration: int, seen: Sequence[Regions] = (), found: Sequence[Detections] = (), iterations: int = 40
) -> dict[str, Any]:
    """Do what the detector and the loop do with the parts in an iteration; return its log."""
    context = Context(iteration, iterations, branch="teacher", collect=True)
    for one in seen:
        parts.observe_labelled(one, context)
    if found:
        parts.observe_detections(found, context)
    parts.after_iteration(context)
    return context.logs
