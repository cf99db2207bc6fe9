"""Short trainings with CReST+ and whether two of them are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny import tiny_training
from watched_trainings import weights_of

from cissod_bench.training.loop import Training

SETTINGS = ("iterations=6", "workers=0", "generations=3", "checkpoint_every=100", "lr=0.02", "warmup_iterations=0")


def training_of(folder: Path, *changes: str, variant: str = "crest+") -> Training:
    return tiny_training(folder, "crest", *SETTINGS, *changes, variant=variant)


def same(one: Training, other: Training) -> None:
    """Weights, state, pool, copies and promoted boxes are equal bit by bit."""
    for name, value in weights_of(one).items():
        assert torch.equal(value, weights_of(other)[name]), name
    np.testing.assert_array_equal(one.position.copies[0], other.position.copies[0])
    pools = [vars(training.detector.parts.keeper.share()) for training in (one, other)]
    for columns in (pools, [vars(training.position.promoted) for training in (one, other)]):
        for name, column in columns[0].items():
            np.testing.assert_array_equal(column, columns[1][name])
