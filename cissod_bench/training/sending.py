"""A checkpoint's content on its way from rank 0 to the others: its small parts as a file, its large tensors one by one.

As one file it would lie in each process twice: as bytes and as tensors.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cissod_bench import distributed
from cissod_bench.training.rows import as_row, is_dense

LEAST_BYTES = 1 << 16  # of a tensor that is sent alone


def sent(state: dict[str, Any]) -> dict[str, Any]:
    """Return rank 0's state on every rank; collective.

    Args:
        state: rank 0's: tensors on the CPU and plain values, as a checkpoint holds them; the others' is not looked at.
    """
    if not distributed.is_distributed():
        return state
    is_first, text = distributed.rank() == 0, io.BytesIO()
    if is_first:
        torch.save(_changed(state, lambda value: value.to("meta") if _is_large(value) else value), text)
    content = distributed.broadcast_bytes(text.getvalue())
    if not is_first:
        outline = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state = _changed(outline, lambda value: _space_for(value) if value.is_meta else value)
    for value in _large(state):
        distributed.broadcast_into(as_row(value))
    return state


def _is_large(value: Tensor) -> bool:
    """Tell whether a tensor is sent alone; its numbers must lie close to each other."""
    return is_dense(value) and value.numel() * value.element_size() >= LEAST_BYTES


def _space_for(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with other tensors; mappings keep their kind and attributes, such as a state's versions."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        new = copy.copy(value)
        new.update({name: _changed(own, change) for name, own in value.items()})
        return new
    if type(value) in (list, tuple):
        return type(value)(_changed(own, change) for own in value)
    return value


def _large(value: Any) -> Iterator[Tensor]:
    """Yield the tensors that are sent alone, in an order that all ranks share."""
    if isinstance(value, Tensor):
        if _is_large(value):
            yield value
    elif isinstance(value, dict):
        for own in value.values():
            yield from _large(own)
    elif isinstance(value, list | tuple):
        for own in value:
            yield from _large(own)
