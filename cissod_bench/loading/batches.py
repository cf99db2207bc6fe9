"""Which images go through a detector together when it only predicts: images that are padded to one size.

A batch is padded to its largest image, and what is padded is seen: group norm counts it, and a border looks different
where something goes on behind it. So every image is padded to a size that does not depend on its neighbours, and images
of one padded size go together: what is detected in an image does not depend on the size of the batches (beyond the
rounding of sums in another order).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cissod_bench.contract.settings import Settings
from cissod_bench.loading.sampler import Draw

IntArray = npt.NDArray[np.int64]
T = TypeVar("T")

WINDOW = 16
"""Batches within whose images an image may change its place: what is detected early is held for at most so long."""


def padded_sizes(sizes: npt.NDArray[np.integer], settings: Settings, divisor: int) -> IntArray:
    """Return width and height of images in the view that they are scored in, padded, shape (I, 2).

    The view is mmcv's ``imrescale``: as large as the sides' limits allow, its sides rounded to pixels.

    Args:
        sizes: width and height of the images, pixels, shape (I, 2).
        settings: the limits.
        divisor: sides are padded to multiples of it, pixels.
    """
    limits = settings.long_side, settings.test_short_side
    scale = np.minimum(max(limits) / sizes.max(axis=1), min(limits) / sizes.min(axis=1))
    scaled = np.maximum((sizes * scale[:, None] + 0.5).astype(np.int64), 1)  # see ``quick.resized``
    padded: IntArray = -(-scaled // divisor) * divisor
    return padded


def divisor_of(sizes: npt.NDArray[np.integer], settings: Settings, divisor: int) -> int:
    """Return what the sides of scored images are padded to multiples of, pixels.

    Group norm counts what is padded, and where batches are trained on that hold images of all shapes (preset mini),
    nearly every image was padded to a square. It is scored as it was trained: all on the square that holds every one.
    Elsewhere an image is padded as it would be alone.

    Args:
        sizes: width and height of all images of the source, pixels, shape (I, 2).
        settings: the run's.
        divisor: the detector's own, pixels.
    """
    if settings.norm != "gn" or settings.group_by_aspect or not len(sizes):
        return divisor
    return int(padded_sizes(sizes, settings, divisor).max())


@dataclass(frozen=True)
class Batches:
    """Images in batches.

    Attributes:
        rows: rows of the images, one batch behind the other, shape (I,).
        places: where each of them stands in the order that was asked for, shape (I,).
        ends: batch b is ``rows[ends[b - 1]:ends[b]]``, shape (B,).
    """

    rows: IntArray
    places: IntArray
    ends: IntArray

    def __len__(self) -> int:
        return len(self.ends)

    def span(self, batch: int) -> slice:
        """Return where a batch stands in ``rows`` and ``places``."""
        return slice(int(self.ends[batch - 1]) if batch else 0, int(self.ends[batch]))


class Chosen:
    """Hands a loader some of the batches, as draws from source 0.

    Args:
        batches: all of them.
        numbers: those that are handed on.
    """

    def __init__(self, batches: Batches, numbers: range) -> None:
        self.batches, self.numbers = batches, numbers

    def __iter__(self) -> Iterator[list[Draw]]:
        for number in self.numbers:
            yield [Draw(0, row, 0) for row in self.batches.rows[self.batches.span(number)].tolist()]

    def __len__(self) -> int:
        return len(self.numbers)


def arranged(indices: Sequence[int], padded: IntArray, size: int, pixels: int | None = None) -> Batches:
    """Return batches of images of one padded size; none is farther from its place than a window.

    Args:
        indices: rows of the images.
        padded: of every row, what it is padded to, shape (I, 2).
        size: images of a batch at most.
        pixels: of a batch at most, an image at least; None sets no limit.
    """
    rows = np.asarray(indices, np.int64)
    places: list[IntArray] = []
    ends: list[IntArray] = []
    window = WINDOW * size
    for begin in range(0, len(rows), window):
        batches = _of_window(padded[rows[begin : begin + window]], size, pixels)
        places += [begin + batch for batch in batches]
        ends.append(np.array([len(batch) for batch in batches]))
    order = np.concatenate([np.zeros(0, np.int64), *places])
    lengths = np.concatenate([np.zeros(0, np.int64), *ends])
    return Batches(rows[order], order, np.cumsum(lengths))


def _of_window(padded: IntArray, size: int, pixels: int | None) -> list[IntArray]:
    """Return the batches of a window as places in it, by their first images."""
    batches = []
    kinds, kind_of = np.unique(padded, axis=0, return_inverse=True)
    for number, area in enumerate(kinds.prod(axis=1).tolist()):
        most = size if pixels is None else min(size, max(pixels // area, 1))
        alike = np.flatnonzero(kind_of.reshape(-1) == number)
        batches += [alike[at : at + most] for at in range(0, len(alike), most)]
    return sorted(batches, key=lambda batch: int(batch[0]))


class InOrder(Generic[T]):
    """Puts what comes batch by batch back into the order that was asked for."""

    def __init__(self) -> None:
        self._next = 0
        self._held: dict[int, T | None] = {}

    def add(self, place: int, value: T | None) -> None:
        """Take what belongs to a place; None where there is nothing."""
        self._held[place] = value

    def ready(self) -> Iterator[T]:
        """Yield what no earlier place is missing before."""
        while self._next in self._held:
            value = self._held.pop(self._next)
            self._next += 1
            if value is not None:
                yield value
