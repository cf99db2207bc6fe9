"""A batch on its way from a loader worker: what it holds of numbers lies in one block of shared memory.

torch hands every tensor on by itself: a piece of shared memory, a file descriptor and a connection each, about eighty
for a batch of twelve small images.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

_UNIT = 64  # bytes; every array begins at a multiple of it


class Parcel:
    """Anything that can be pickled, with the content of its tensors and arrays in one block.

    Args:
        content: its tensors lie on the CPU and need no gradient.
    """

    def __init__(self, content: Any) -> None:
        self._block, self._sizes, self._words = _packed(content)

    def opened(self) -> Any:
        """Return an equal of the content, whose tensors and arrays lie in the block."""
        memory, buffers, begin = self._block.numpy().data, [], 0
        for size in self._sizes:
            buffers.append(memory[begin : begin + size])
            begin += _whole(size)
        return pickle.loads(self._words, buffers=buffers)


class _Pickler(pickle.Pickler):
    """Hands arrays, and the arrays of tensors, to the callback in place of writing them."""

    def reducer_override(self, value: Any) -> Any:
        """Return how a tensor is made again; what other things are made of stays as it is."""
        if type(value) is Tensor and value.layout is torch.strided and value.device.type == "cpu":
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def _packed(content: Any) -> tuple[Tensor, list[int], bytes]:
    """Return the block, how many bytes of it each array has, and all that is no array."""
    buffers: list[pickle.PickleBuffer] = []
    words = io.BytesIO()
    _Pickler(words, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append).dump(content)
    raw = [buffer.raw() for buffer in buffers]
    sizes = [len(bytes_of) for bytes_of in raw]
    block = torch.empty(sum(map(_whole, sizes)), dtype=torch.uint8)
    memory, begin = block.numpy().data, 0
    for bytes_of, size in zip(raw, sizes, strict=True):
        memory[begin : begin + size] = bytes_of
        begin += _whole(size)
    return block, sizes, words.getvalue()


def _whole(size: int) -> int:
    """Return a number of bytes rounded up to the unit."""
    return -(-size // _UNIT) * _UNIT
