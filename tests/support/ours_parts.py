"""The parts of ours, what an iteration does with them, and short trainings with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from run_facts import facts, rows
from tiny import tiny_task, tiny_training
from watched_trainings import weights_of

from cissod_bench.contract.parts import Context, Detections
from cissod_bench.training.loop import Training
from method import profiles
from method.ours import METHOD, Ours, Switches, resolve


def choice(variant: str) -> Any:
    return resolve(Switches(**METHOD.variants.get(variant, {})), profiles.DEFAULT, 0.9)


def images(seed: int, number: int) -> list[Detections]:
    rng = np.random.default_rng(seed)
    return [
        Detections(
            i, i, torch.zeros(8, 4), torch.from_numpy(rng.integers(0, 4, 8)), torch.from_numpy(rng.uniform(0, 1, 8))
        )
        for i in range(number)
    ]


def iterate(parts: Ours, iteration: int, place: slice, generation: int = 0) -> Context:
    """Do what the detector does with a method's parts, on some of an iteration's rows and images."""
    context = Context(iteration, 40, generation, 4, collect=True)
    for seed, branch in enumerate(("sup", "unsup_cls")):
        context = context.at(branch, collect=True)  # type: ignore[arg-type]
        logits, labels, v = (part[place] for part in rows(2 * iteration + seed, 40))
        v = torch.ones_like(v) if branch == "sup" else v
        parts.classification_loss(logits, labels, v, v.sum(), context)
        if branch == "sup":
            seen = images(iteration, 4)[slice(place.start // 10, place.stop // 10)]
            parts.observe_detections(seen, context.at("teacher", collect=True))
    return context


def ours(**fields: Any) -> Ours:
    return Ours(facts(iterations=40, **fields)).double()


TASK = {"crs_gamma": 1000.0, "repeat_threshold": 1.0}


def training_of(folder: Path, *changes: str, variant: str = "", **fields: Any) -> Training:
    return tiny_training(folder, "ours", *changes, task=tiny_task(**TASK), variant=variant, **fields)


def parts_of(training: Training) -> Ours:
    parts = training.detector.parts
    assert type(parts).__name__ == "Ours"
    return parts  # type: ignore[return-value]


def same(one: Training, other: Training) -> None:
    """Weights, state, pool and copies are equal bit by bit."""
    for name, value in weights_of(one).items():
        assert torch.equal(value, weights_of(other)[name]), name
    assert one.position.copies.keys() == other.position.copies.keys()
    for source, copies in one.position.copies.items():
        np.testing.assert_array_equal(copies, other.position.copies[source])
    pools = [parts_of(training).rebalancing for training in (one, other)]
    for pool in pools:
        assert pool is not None
        pool.share()
    for name, column in vars(pools[0].pool).items():  # type: ignore[union-attr]
        np.testing.assert_array_equal(column, vars(pools[1].pool)[name])  # type: ignore[union-attr]
