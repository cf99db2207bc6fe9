"""The student's optimiser: one fused operation a step, which a flag on the device can keep from being made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cissod_bench.contract.settings import Settings


def make_optimiser(settings: Settings, student: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of the student's trainable parameters (SGD in Sec. 4.2)."""
    trainable = [p for p in student.parameters() if p.requires_grad]
    rates: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(trainable, **rates)
    return _with_averages(torch.optim.SGD(trainable, momentum=settings.momentum, **rates))


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put a checkpoint's averages into an optimiser; it stays fused whatever the one was that wrote it.

    The averages are laid out as the weights are, which a fused optimiser takes for granted: on the machine that wrote
    them the weights may have lain otherwise.
    """
    optimiser.load_state_dict(dict(state))
    for group in optimiser.param_groups:
        group.update(fused=True, foreach=None)
    for parameter, averages in optimiser.state.items():
        for name, value in averages.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim():
                averages[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    _with_averages(optimiser)


def _with_averages(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Begin SGD's averages at 0, which is what its first step does; a first step that is not made leaves them there.

    torch would make them of memory as it is, and a step that is not made would not write to it.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            state = optimiser.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser
