"""What a training does in every iteration, and what it has learned."""

from __future__ import annotations

from typing import Any

import torch

from cissod_bench.training.loop import Training


def losses_of(training: Training, until: int | None = None) -> list[dict[str, float]]:
    """Train and return the losses of every iteration."""
    lines: list[dict[str, float]] = []
    step = training.step

    def watched(batch: dict[str, Any], iteration: int) -> dict[str, Any]:
        line = step(batch, iteration)
        lines.append({name: float(value) for name, value in line.items()})
        return line

    training.step = watched  # type: ignore[method-assign]
    training.run(until)
    return lines


def weights_of(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.detector.state_dict().items()}


def drawn(training: Training, source: int, iteration: int) -> int:
    """Return the row of the first image that an iteration draws from a source."""
    return next(draw.index for draw in training.sampler.batch(iteration) if draw.source == source)
