"""Numbers of a device that the host reads later, so that neither waits for the other."""

from __future__ import annotations

import torch
from torch import Tensor


class Later:
    """Numbers on their way to the host. On a CPU they are there at once, and a copy keeps them as they are.

    Args:
        values: of any shape.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(values.device))
        else:
            self._host = values.detach().clone()

    def read(self) -> list[float]:
        """Return the numbers, flat; waits for what was asked of the device before them, and for nothing after."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._host.reshape(-1).double().numpy().tolist()
        return numbers
