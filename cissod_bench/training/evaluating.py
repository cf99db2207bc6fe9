"""An evaluation in the middle of a training: when it is due, which images it takes, and that nothing of it remains."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from cissod_bench.contract.settings import Settings
from cissod_bench.files.hashing import mix
from cissod_bench.loading.sources import Source

_DRAW = 0xE7A1  # one part of a data set for all runs, whatever their seeds: their curves are compared


def is_due(iteration: int, settings: Settings) -> bool:
    """Return whether an evaluation comes after an iteration: each ``eval_every`` of them, and after the last one."""
    every = settings.eval_every
    return bool(every) and iteration > 0 and (iteration % every == 0 or iteration == settings.iterations)


def next_due(iteration: int, settings: Settings) -> int:
    """Return the first iteration after a given one that an evaluation comes after; the last where none does."""
    every = settings.eval_every
    return min((iteration // every + 1) * every, settings.iterations) if every else settings.iterations


def drawn_rows(source: Source, images: int) -> list[int] | None:
    """Return the rows of a drawn part of a source, ascending, None where it is the whole.

    Which image is in it depends on the ids alone, so it is the same part for every method and seed.

    Args:
        source: the images that are scored.
        images: how many; 0 or as many as there are take all.
    """
    if not 0 < images < len(source):
        return None
    order = np.argsort(mix(_DRAW, source.image_ids.astype(np.uint64)), kind="stable")
    rows: list[int] = np.sort(order[:images]).tolist()
    return rows


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back what a block may change of a training: random numbers, and which modules are in training."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = {parameter.device.index for parameter in model.parameters() if parameter.device.type == "cuda"}
    generators: Any = sorted(index for index in devices if index is not None)
    with torch.random.fork_rng(generators):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for module, mode in modes:
                module.training = mode
