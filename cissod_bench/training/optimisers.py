"""The student's optimiser: one fused operation a step, which a flag on the device can keep from being made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cissod_bench.contract.settings import Settings
from cissod_bench.training.rows import as_row, is_dense


def make_optimiser(settings: Settings, student: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of the student's trainable parameters (SGD in Sec. 4.2)."""
    trainable = [p for p in student.parameters() if p.requires_grad]
    rates: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimiser == "adamw":
        return AdamW(trainable, **rates)
    return _with_averages(torch.optim.SGD(trainable, momentum=settings.momentum, **rates))


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW, which would copy weights in "channels last" layout; it gets them as rows of numbers.

    AdamW is elementwise, so the results are the same.
    """

    def _init_group(self, group: Any, weights: Any, gradients: Any, averages: Any, squares: Any, *others: Any) -> Any:
        """Fill the lists of what a step works on; called by torch's step."""
        found = super()._init_group(group, weights, gradients, averages, squares, *others)  # type: ignore[no-untyped-call]
        for number, columns in enumerate(zip(weights, gradients, averages, squares, strict=True)):
            if not columns[0].is_contiguous() and _lie_alike(columns):
                weights[number], gradients[number], averages[number], squares[number] = map(as_row, columns)
        return found


def _lie_alike(values: Sequence[Tensor]) -> bool:
    """Return whether tensors have the same layout in memory, without gaps."""
    shape, steps = values[0].shape, values[0].stride()
    return is_dense(values[0]) and all(value.shape == shape and value.stride() == steps for value in values)


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put a checkpoint's averages into an optimiser; it stays fused whatever the one was that wrote it.

    The averages are laid out as the weights are, without which a step would copy them: on the machine that wrote them
    the weights may have lain otherwise.
    """
    optimiser.load_state_dict(dict(state))
    for group in optimiser.param_groups:
        group.update(fused=True, foreach=None)
    for parameter, averages in optimiser.state.items():
        for name, value in averages.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
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
