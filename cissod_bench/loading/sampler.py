"""The two-source sampler: which images make up which iteration, as a pure function of (seed, generation, iteration).

Each source (D_l, D_u) is an endless stream of permutations of its index list, in which image i stands as often as its
copies say. Rank k of W takes elements k, k + W, k + 2W, ... Nothing depends on what was drawn before, so a resumed
run, a run with other workers and a run that was never interrupted see the same images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from cissod_bench.files.hashing import mix

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """One image of one iteration.

    Attributes:
        source: 0 labelled, 1 unlabelled.
        index: row of the image in its source.
        key: seeds the image's augmentations; unique within a run.
        group: which of its source's streams it is from, one per orientation (no group of classes).
        position: in that stream.
    """

    source: int
    index: int
    key: int
    group: int = 0
    position: int = 0


@dataclass
class _Stream:
    """An endless stream of permutations of one index list.

    Attributes:
        indices: rows of the images, each as often as its copies say.
        key: seeds the permutations.
    """

    indices: IntArray
    key: tuple[int, ...]
    _pass: int = -1
    _order: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def take(self, positions: IntArray) -> list[int]:
        """Return the elements at absolute positions of the stream."""
        return [self._at(int(position)) for position in positions]

    def _at(self, position: int) -> int:
        number, offset = divmod(position, len(self.indices))
        if number != self._pass:
            keys = mix(*self.key, number, np.arange(len(self.indices), dtype=np.uint64))
            self._order, self._pass = self.indices[np.argsort(keys, kind="stable")], number
        return int(self._order[offset])


class TwoSourceSampler:
    """Draws ``per_gpu[s]`` images of every source s for every iteration and rank.

    Args:
        sizes: images per source.
        per_gpu: images per source, iteration and rank (paper: 1 labelled, 4 unlabelled); 0 leaves a source out.
        seed: the training seed, >= 0.
        rank: of this process.
        world_size: of the run.
        aspects: per source the orientation of every image (0 portrait, 1 landscape), to fill a batch with one of them;
            None draws from all images alike. An orientation that a source lacks is simply never drawn there.
        first: per source the first iteration that draws from it; None draws from all from 0 on.

    Raises:
        ValueError: a source to be drawn from has no image.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        per_gpu: Sequence[int],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        aspects: Sequence[npt.NDArray[np.int8]] | None = None,
        first: Sequence[int] | None = None,
    ) -> None:
        for source, (size, number) in enumerate(zip(sizes, per_gpu, strict=True)):
            if number > 0 and size == 0:
                raise ValueError(f"Source {source} has no image to draw {number} an iteration from.")
        self.sizes, self.per_gpu, self.seed = tuple(sizes), tuple(per_gpu), seed
        self.rank, self.world_size = rank, world_size
        self.aspects = tuple(aspects) if aspects is not None else tuple(np.zeros(s, np.int8) for s in sizes)
        self.first = tuple(first) if first is not None else (0,) * len(self.sizes)
        self.copies: dict[int, npt.NDArray[np.int32]] = {}
        self.left_out: Mapping[int, IntArray] = {}
        self.set_copies({}, generation=0, start=0)

    def leave_out(self, rows: Mapping[int, IntArray]) -> None:
        """Never draw some images of some sources, from the next `set_copies` on; the same on all ranks."""
        self.left_out = rows

    def set_copies(self, copies: Mapping[int, npt.NDArray[np.int32]], *, generation: int, start: int) -> None:
        """Begin a generation at iteration ``start``; sources not named in ``copies`` are drawn uniformly.

        Must be called with the same arguments on all ranks.

        Raises:
            ValueError: the copies of a source have another length than the source, are negative or all 0.
        """
        self.copies = {s: np.asarray(c, np.int32) for s, c in copies.items()}
        self.generation, self.start = generation, start
        self._streams: dict[tuple[int, int], _Stream] = {}
        self._shares: dict[int, npt.NDArray[np.float64]] = {}
        self._groups: dict[int, tuple[IntArray, IntArray]] = {}
        for source, size in enumerate(self.sizes):
            if self.per_gpu[source] == 0:
                continue
            times = self.copies.get(source, np.ones(size, np.int32))
            if times.shape != (size,) or (times < 0).any() or not times.any():
                raise ValueError(
                    f"Copies of source {source} must be {size} integers >= 0, not all 0; got shape {times.shape}, "
                    f"minimum {times.min() if times.size else 'none'}."
                )
            if len(left_out := self.left_out.get(source, ())):
                times = times.copy()
                times[left_out] = 0
            self._build(source, np.repeat(np.arange(size), times))

    def _build(self, source: int, indices: IntArray) -> None:
        groups = self.aspects[source][indices]
        numbers, counts = np.unique(groups, return_counts=True)
        self._shares[source] = np.cumsum(counts) / len(indices)
        for place, number in enumerate(numbers):
            key = (self.seed, source, self.generation, int(number))
            self._streams[source, place] = _Stream(indices[groups == number], key)

    def _group_of(self, source: int, iteration: int) -> tuple[int, int]:
        """Return which orientation fills an iteration's batch, and how many of the generation it filled before.

        Both are equal on all ranks. An orientation is drawn as often as its share of the source's copies.
        """
        shares = self._shares[source]
        number = iteration - self.start
        if len(shares) == 1:
            return 0, number
        groups, nth = self._groups.get(source, (np.zeros(0, np.int64),) * 2)
        if number >= len(groups):
            steps = np.arange(self.start, self.start + 2 * number + 64).astype(np.uint64)
            bits = mix(self.seed, source, self.generation, 0xA5, steps)
            groups = np.minimum(np.searchsorted(shares, bits / 2.0**64, side="right"), len(shares) - 1)
            nth = np.zeros_like(groups)
            for place in range(len(shares)):
                nth[groups == place] = np.arange((groups == place).sum())
            self._groups[source] = groups, nth
        return int(groups[number]), int(nth[number])

    def batch(self, iteration: int) -> list[Draw]:
        """Return this rank's images of an iteration of the current generation, labelled ones first."""
        draws = []
        for source, number in enumerate(self.per_gpu):
            if number == 0 or iteration < self.first[source]:
                continue
            group, before = self._group_of(source, iteration)
            places = self.rank + self.world_size * np.arange(number)
            positions = before * number * self.world_size + places
            indices = self._streams[source, group].take(positions)
            slots = iteration * number * self.world_size + places
            keys = mix(self.seed, 0x5A, source, slots.astype(np.uint64))
            drawn = zip(indices, keys.tolist(), positions.tolist(), strict=True)
            draws += [Draw(source, index, key, group, position) for index, key, position in drawn]
        return draws

    def following(self, draw: Draw) -> Draw:
        """Return what takes the place of an image that cannot be read: the next batch's image of the same place.

        It depends on nothing but the draw, as all else here, and keeps its key: the image alone is another one.
        """
        position = draw.position + self.per_gpu[draw.source] * self.world_size
        index = self._streams[draw.source, draw.group].take(np.array([position]))[0]
        return replace(draw, index=index, position=position)

    def batches(self, begin: int, end: int) -> Iterator[list[Draw]]:
        """Yield this rank's batches of iterations begin, begin + 1, ..., end - 1 of the current generation."""
        for iteration in range(begin, end):
            yield self.batch(iteration)


class TrainingDraws:
    """Hands a loader the sampler's batches from one iteration to another."""

    def __init__(self, sampler: TwoSourceSampler, begin: int, end: int) -> None:
        self.sampler, self.begin, self.end = sampler, begin, end

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.sampler.batches(self.begin, self.end)

    def __len__(self) -> int:
        return self.end - self.begin


class ScoringDraws:
    """Hands a loader some images of source 0 in pieces; 1.7 million draws at once would take half a gigabyte."""

    def __init__(self, indices: Sequence[int], size: int) -> None:
        self.indices, self.size = indices, size

    def __iter__(self) -> Iterator[list[Draw]]:
        for at in range(0, len(self.indices), self.size):
            yield [Draw(0, index, 0) for index in self.indices[at : at + self.size]]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.size)
