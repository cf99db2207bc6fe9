"""A line of log.jsonl: means of an iteration's numbers over the iterations since the last line, and over ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cissod_bench import distributed

AS_LAST = ("lr",)  # a schedule's value, which is the last iteration's
GPU_MEMORY = "gpu_memory_mib"
_MOST = 256  # iterations that are not read yet


class Interval:
    """Gathers an iteration's numbers on this rank; `close` brings the ranks together.

    A number that some iterations lack (losses on D_u before their begin) or in which it is not finite is the mean of
    the others, NaN where there is none. With one rank and a line per iteration the numbers are the iteration's own.
    """

    def __init__(self) -> None:
        self._begin({}, {})

    def _begin(self, sums: dict[str, float], numbers: dict[str, int]) -> None:
        self._sums, self._numbers = sums, numbers
        self._unread: list[tuple[dict[str, float | None], Tensor | None]] = []

    def add(self, line: Mapping[str, Tensor | float]) -> None:
        """Take in an iteration's numbers, scalars. What lies on a GPU is read together with other iterations'."""
        tensors = [value.detach().reshape(()).double() for value in line.values() if isinstance(value, Tensor)]
        values = {name: None if isinstance(value, Tensor) else float(value) for name, value in line.items()}
        device = tensors[0].device if tensors else None
        self._unread.append((values, torch.stack([value.to(device) for value in tensors]) if tensors else None))
        if len(self._unread) == _MOST:
            self._read()

    def _read(self) -> None:
        """Add up what was taken in; waits for a GPU once."""
        unread, self._unread = self._unread, []
        columns = [column for _, column in unread if column is not None]
        read = iter(torch.cat([column.to(columns[0].device) for column in columns]).tolist() if columns else ())
        for values, _ in unread:
            self._add({name: next(read) if value is None else value for name, value in values.items()})

    def _add(self, line: Mapping[str, float]) -> None:
        for name, number in line.items():
            before = 0.0 if name in AS_LAST else self._sums.get(name, 0.0)
            finite = math.isfinite(number)
            self._sums[name] = before + number if finite else before
            self._numbers[name] = finite + (0 if name in AS_LAST else self._numbers.get(name, 0))

    def close(self, device: torch.device) -> dict[str, float]:
        """Return the means, equal on all ranks, and begin anew; a collective call.

        Args:
            device: of the training; where it is a GPU, the most memory that tensors of one rank took there is a number
                more, in MiB.
        """
        own = {**self.state(), "memory": _gpu_memory(device)}
        self._begin({}, {})
        return means(distributed.gather_objects(own))

    def state(self) -> dict[str, Any]:
        """Return what was gathered, plain values, for a checkpoint."""
        self._read()
        return {"sums": dict(self._sums), "numbers": dict(self._numbers)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self._begin(dict(state["sums"]), dict(state["numbers"]))


def means(ranks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means over ranks and iterations, by name.

    Args:
        ranks: a rank's `Interval.state` each, and the memory its GPU held ("memory", MiB; None without one).
    """
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for rank in ranks for name in rank["sums"]):
        number = sum(rank["numbers"].get(name, 0) for rank in ranks)
        found[name] = sum(rank["sums"].get(name, 0.0) for rank in ranks) / number if number else math.nan
    memory = [rank["memory"] for rank in ranks if rank["memory"] is not None]
    return {**found, GPU_MEMORY: max(memory)} if memory else found


def _gpu_memory(device: torch.device) -> float | None:
    """Return the most memory that tensors took on a GPU since the process began, MiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
