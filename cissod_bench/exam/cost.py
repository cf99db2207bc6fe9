"""What a step costs against Soft Teacher's: the two take turns in one process, so that both meet the same machine."""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from cissod_bench.exam.outcome import Outcome
from cissod_bench.loading.loaders import training_batches
from cissod_bench.training.loop import Training

_MIB = 2**20


def measured(training: Training, reference: Training, pairs: int) -> Outcome:
    """Return time and memory of a step; a report, never a failure.

    Args:
        training: of the method, at its end, so that what costs only later is there.
        reference: of Soft Teacher, likewise.
        pairs: of steps that are timed; their median ratio is told.
    """
    sides = (training, reference)
    batches = [_last_batches(side, min(pairs, 4)) for side in sides]
    memory = [_held(side, *own[0]) for side, own in zip(sides, batches, strict=True)]  # a first step, not timed, too
    seconds = []
    for pair in range(pairs):
        pair_seconds = [0.0, 0.0]
        for side in (0, 1) if pair % 2 else (1, 0):
            pair_seconds[side] = _timed(sides[side], *batches[side][pair % len(batches[side])])
        seconds.append(pair_seconds)
    ratio = statistics.median(own / other for own, other in seconds)
    own = statistics.median(one for one, _ in seconds)
    detail = (
        f"a step takes {own * 1000:.0f} ms, {ratio:.2f} x Soft Teacher's, and holds {memory[0] / _MIB:.1f} MiB, "
        f"{memory[0] / memory[1]:.2f} x ({pairs} pairs of steps)"
    )
    return Outcome("cost", "-", detail)


def _last_batches(training: Training, number: int) -> list[tuple[dict[str, Any], int]]:
    """Return the batches of the last iterations, each with its iteration."""
    end = training.settings.iterations
    with closing(training_batches(training.dataset, training.sampler, end - number, end, 0)) as batches:
        return list(zip(batches, range(end - number, end), strict=True))


def _timed(training: Training, batch: dict[str, Any], iteration: int) -> float:
    batch = copy.deepcopy(batch)
    begun = time.perf_counter()
    training.step(batch, iteration)
    return time.perf_counter() - begun


def _held(training: Training, batch: dict[str, Any], iteration: int) -> int:
    """Return the bytes of weights, buffers, the optimiser's state and what a step keeps for its backward pass.

    Not the peak of the process, which depends on what ran before and on the allocator; this is the same every time.
    """
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        training.step(copy.deepcopy(batch), iteration)
    kept = [*training.detector.parameters(), *training.detector.buffers()]
    kept += [one for state in training.optimiser.state.values() for one in state.values() if isinstance(one, Tensor)]
    for tensor in kept:
        note(tensor)
    return sum(held.values())
