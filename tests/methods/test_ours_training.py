"""Ours in training: every variant, exact resume, two processes, no hidden boxes, nothing from the box branch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ours_parts import TASK, choice, iterate, ours, parts_of, same, training_of
from ranks import two_processes
from tiny import tiny_plan, tiny_task, tiny_training
from torch import Tensor
from watched_trainings import losses_of, weights_of

from cissod_bench.contract.parts import Context
from cissod_bench.running.assembly import prepare
from method.ours import METHOD

# Repeat factors large enough that a few pseudo labels repeat images within a few iterations.


@pytest.mark.parametrize("variant", METHOD.variants)
def test_every_variant_trains(tmp_path: Path, variant: str) -> None:
    lines = losses_of(training_of(tmp_path, "iterations=4", "generations=2", variant=variant))
    assert len(lines) == 4
    assert all(np.isfinite(value) for line in lines for value in line.values())
    expected = choice(variant)
    assert ("w_min" in lines[0]) == expected.needs_weights
    assert ("copies_max" in lines[-1]) == expected.crs
    assert {"theta_mean_maj", "theta_mean_min"} <= lines[0].keys()


def test_the_baseline_variant_is_soft_teacher(tmp_path: Path) -> None:
    one = tiny_training(tmp_path / "ours", "ours", "iterations=3", "generations=2", variant="baseline")
    other = tiny_training(tmp_path / "soft", "soft-teacher", "iterations=3", "generations=2")
    for line, expected in zip(losses_of(one), losses_of(other), strict=True):
        assert {name: line[name] for name in expected} == expected
    assert all(torch.equal(value, weights_of(other)[name]) for name, value in weights_of(other).items())


@pytest.mark.parametrize("profile", ["paper", "official"])
def test_the_other_profiles_train(tmp_path: Path, profile: str) -> None:
    lines = losses_of(training_of(tmp_path, "iterations=4", "generations=2", profile=profile))
    assert all(np.isfinite(value) for line in lines for value in line.values())


def test_weights_thresholds_and_copies_move_and_are_logged(tmp_path: Path) -> None:
    training = training_of(tmp_path, "iterations=8", "generations=4", "lr=0.05", "warmup_iterations=0")
    lines = losses_of(training)
    last = lines[-1]
    assert last["w_min"] < last["w_mean_maj"] < last["w_max"]
    assert lines[0]["w_min"] == lines[0]["w_max"] == 1
    assert last["theta_mean_maj"] < 0.15
    assert 0 < last["pool_coverage"] <= 1
    assert last["copies_max"] > 1
    assert training.position.copies[1].max() == last["copies_max"]
    assert training.position.copies[0].max() > 1


def test_a_full_pass_fills_the_pool_with_every_unlabelled_image(tmp_path: Path) -> None:
    training = training_of(tmp_path, "iterations=4", "generations=2", variant="full-pass")
    lines = losses_of(training)
    assert lines[-1]["pool_coverage"] == lines[-1]["pool_fresh"] == 1
    pool = parts_of(training).rebalancing.pool  # type: ignore[union-attr]
    assert pool.images.tolist() == list(range(len(training.dataset.sources[1])))
    assert set(pool.iterations.tolist()) == {2}


@pytest.mark.parametrize("workers", [0, 2])
def test_half_and_resume_equals_the_whole_across_a_generation_boundary(tmp_path: Path, workers: int) -> None:
    settings = (
        "iterations=8",
        "generations=4",
        "checkpoint_every=100",
        "lr=0.05",
        "warmup_iterations=0",
        f"workers={workers}",
    )
    whole = training_of(tmp_path / "whole", *settings)
    expected = losses_of(whole)
    assert whole.position.copies[1].max() > 1
    for stop in (3, 4):  # in a generation, at its end
        folder = tmp_path / f"half{stop}"
        first = training_of(folder, *settings)
        losses_of(first, until=stop)
        first.save()
        second = training_of(folder, *settings)
        assert second.resume()
        np.testing.assert_array_equal(second.position.copies[0], first.position.copies[0])
        assert losses_of(second) == expected[stop:]
        same(whole, second)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    settings = ("iterations=6", "generations=3", "lr=0.05", "warmup_iterations=0")
    often = training_of(tmp_path / "often", *settings, "checkpoint_every=1")
    never = training_of(tmp_path / "never", *settings, "checkpoint_every=100")
    assert losses_of(often) == losses_of(never)
    same(often, never)


def test_hidden_boxes_change_nothing(tmp_path: Path) -> None:
    """B10: pool and copies come from the teacher alone."""
    changes = ("iterations=6", "generations=3", "lr=0.05", "warmup_iterations=0")
    plan = tiny_plan(tmp_path, "ours", *changes, task=tiny_task(**TASK))
    plan.folder.mkdir(parents=True)
    honest = prepare(plan, torch.device("cpu"))
    expected = losses_of(honest)
    hidden = json.loads((plan.split / "hidden.json").read_text())
    shown = json.loads((plan.split / "unlabelled.json").read_text())
    (plan.split / "unlabelled.json").write_text(json.dumps({**shown, "annotations": hidden["annotations"]}))
    (plan.split / "hidden.json").write_bytes(b"garbage")
    other = prepare(plan, torch.device("cpu"))
    with pytest.warns(UserWarning, match="not judged"):  # of the statistics, which cannot be counted
        assert losses_of(other) == expected
    same(honest, other)


def test_the_regression_branch_of_an_iteration_leaves_the_state_untouched(tmp_path: Path) -> None:
    """B1: the gradients of an iteration come from two calls of the loss, not from three."""
    training = training_of(tmp_path, "iterations=1", "generations=1")
    parts, calls = parts_of(training), []
    loss = parts.classification_loss

    def watched(logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context) -> Tensor:
        calls.append((context.branch, len(labels)))
        return loss(logits, labels, label_weights, normaliser, context)

    parts.classification_loss = watched  # type: ignore[method-assign]
    collected = []
    update = parts.after_iteration

    def counted(context: Context) -> None:
        collected.append(parts.balance._pieces(parts._sums_of(parts.balance, parts.sums).clone())[1][1].tolist())  # type: ignore[union-attr,arg-type]
        update(context)

    parts.after_iteration = counted  # type: ignore[method-assign]
    training.run()
    assert [branch for branch, _ in calls] == ["sup", "unsup_cls"]
    assert collected == [[float(number) for _, number in calls]]


# Two real processes.

STATE = """
import sys, torch
from pathlib import Path
from ours_parts import images, iterate, ours
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
parts = ours()
place = [slice(0, 10), slice(10, 40)][distributed.rank()]
for iteration in range(12):
    parts.after_iteration(iterate(parts, iteration, place))
from cissod_bench.contract.parts import Context
copies = parts.copies(Context(12, 40, 1, 4))
torch.save(
    {{"state": parts.state_dict(), "copies": copies[1].tolist(), "pool": parts.rebalancing.pool.tensors()}},
    Path({folder!r}) / f"rank{{distributed.rank()}}.pth",
)
distributed.stop()
"""

TRAIN = """
import sys, torch
from pathlib import Path
from watched_trainings import losses_of
from ours_parts import same, training_of
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
folder = Path({folder!r})
settings = ("iterations=6", "generations=3", "checkpoint_every=100", "lr=0.05", "warmup_iterations=0")
whole = training_of(folder / "whole", *settings)
expected = losses_of(whole)
first = training_of(folder / "half", *settings)
losses_of(first, until=3)
first.save()
second = training_of(folder / "half", *settings)
assert second.resume()
assert losses_of(second) == expected[3:]
same(whole, second)
torch.save(
    {{
        "weights": whole.detector.state_dict(), "copies": whole.position.copies[1].tolist(),
        "pool": whole.detector.parts.rebalancing.pool.tensors(),
    }},
    folder / f"rank{{distributed.rank()}}.pth",
)
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_with_half_the_data_each_equal_one_with_all(tmp_path: Path) -> None:
    one, other = two_processes(STATE, tmp_path)
    whole = ours()
    for iteration in range(12):
        whole.after_iteration(iterate(whole, iteration, slice(0, 40)))
    copies = whole.copies(Context(12, 40, 1, 4))
    assert copies is not None
    assert one["copies"] == other["copies"] == copies[1].tolist()
    for name, value in whole.state_dict().items():
        assert torch.equal(one["state"][name], other["state"][name]), name
        torch.testing.assert_close(one["state"][name].double(), value.double(), rtol=0, atol=1e-11)
    for name, column in whole.rebalancing.pool.tensors().items():  # type: ignore[union-attr]
        assert torch.equal(one["pool"][name], column), name
        assert torch.equal(other["pool"][name], column), name


@pytest.mark.slow
def test_training_on_two_processes_agrees_on_everything_and_resumes_exactly(tmp_path: Path) -> None:
    tiny_plan(tmp_path / "whole", "ours", task=tiny_task(**TASK))  # draws the split before two processes ask for it
    tiny_plan(tmp_path / "half", "ours", task=tiny_task(**TASK))
    one, other = two_processes(TRAIN, tmp_path)
    assert one["copies"] == other["copies"]
    for kind in ("weights", "pool"):
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), name
    assert len(one["pool"]["images"]) > 4
    assert one["weights"]["parts.balance.logits"].any()
