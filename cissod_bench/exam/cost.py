"""What a step costs against Soft Teacher's: the two take turns in one process, so that both meet the same machine."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cissod_bench.exam.outcome import Outcome
from cissod_bench.loading.loaders import training_batches
from cissod_bench.training.loop import Training

Batch: TypeAlias = dict[str, list[dict[str, Any]]]
Step: TypeAlias = Callable[[Batch, int], Tensor]
"""Does a step on a batch as the iteration of that number; returns the loss."""
Floats: TypeAlias = npt.NDArray[np.float64]

_MIB = 2**20
_CPU = torch.device("cpu")


def in_turns(
    steps: tuple[Step, Step], draw: Callable[[int, int], tuple[Batch, int]], pairs: int, device: torch.device = _CPU
) -> tuple[Floats, Floats]:
    """Time steps of two sides that take turns, each being the first of a pair every other time.

    Args:
        steps: of the two sides.
        draw: (side, pair) -> a batch, which is copied before the clock starts, and its iteration.
        pairs: how many.
        device: what is waited for before and after a step.

    Returns:
        Seconds of the clock and of the processor, shape (2, pairs, 2 sides), and losses, shape (pairs, 2 sides).
    """
    seconds, losses = np.zeros((2, pairs, 2)), np.zeros((pairs, 2))
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 else (1, 0):
            drawn, iteration = draw(side, pair)
            batch = copy.deepcopy(drawn)
            _wait(device)
            clock, processor = time.perf_counter(), time.process_time()
            loss = steps[side](batch, iteration)
            _wait(device)
            seconds[:, pair, side] = time.perf_counter() - clock, time.process_time() - processor
            losses[pair, side] = float(loss)
    return seconds, losses


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(training: Training, reference: Training, pairs: int) -> Outcome:
    """Return time and memory of a step; a report, never a failure.

    Args:
        training: of the method, at its end, so that what costs only later is there.
        reference: of Soft Teacher, likewise.
        pairs: of steps that are timed; their median ratio is told.
    """
    sides = (training, reference)
    batches = [_last_batches(side, min(pairs, 4)) for side in sides]
    # A first step of each, not timed, too.
    held, beside = (_held(side, *drawn[0]) for side, drawn in zip(sides, batches, strict=True))
    steps = partial(_loss_of, training), partial(_loss_of, reference)
    (clock, _), _ = in_turns(steps, lambda side, pair: batches[side][pair % len(batches[side])], pairs)
    detail = (
        f"a step takes {np.median(clock[:, 0]) * 1000:.0f} ms, {np.median(clock[:, 0] / clock[:, 1]):.2f} x Soft "
        f"Teacher's, and holds {held / _MIB:.1f} MiB, {held / beside:.2f} x ({pairs} pairs of steps)"
    )
    return Outcome("cost", "-", detail)


def _loss_of(training: Training, batch: Batch, iteration: int) -> Tensor:
    return torch.as_tensor(training.step(batch, iteration)["loss"])


def _last_batches(training: Training, number: int) -> list[tuple[Batch, int]]:
    """Return the batches of the last iterations, each with its iteration."""
    end = training.settings.iterations
    with closing(training_batches(training.dataset, training.sampler, end - number, end, 0)) as batches:
        return list(zip(batches, range(end - number, end), strict=True))


def _held(training: Training, batch: Batch, iteration: int) -> int:
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
    states = (value for state in training.optimiser.state.values() for value in state.values())
    kept += [value for value in states if isinstance(value, Tensor)]
    for tensor in kept:
        note(tensor)
    return sum(held.values())
