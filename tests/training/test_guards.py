"""Losses, gradients and states that are not finite: no step, counted, told after 50 in a row, never saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_training
from watched_trainings import losses_of, weights_of

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import Parts
from cissod_bench.errors import BenchError, Interrupted
from cissod_bench.training import checkpoint, guards
from cissod_bench.training.guards import Streak, diagnosis
from cissod_bench.training.loop import Training

SHORT = ("iterations=20", "generations=1", "checkpoint_every=2")


class Breaks(Parts):
    """Its loss is not finite from the fourth iteration on."""

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        loss = super().classification_loss(logits, labels, label_weights, normaliser, context)
        return loss * float("inf") if context.iteration >= 3 else loss


class Steep(Parts):
    """Its loss is finite and its gradient is not, in the second iteration."""

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        loss = super().classification_loss(logits, labels, label_weights, normaliser, context)
        return loss + (logits.sum() * 0).sqrt() if context.iteration == 1 else loss  # d sqrt(x) / dx at 0


def method(parts: type[Parts]) -> Method:
    make = lambda facts: parts(len(facts.classes))  # noqa: E731
    return Method(title="T", source="tests", citation="-", name="breaks", parts=make, images="labelled")


def saved(training: Training) -> dict[str, Any]:
    return checkpoint.read(training.file)


def test_fifty_iterations_in_a_row_without_a_step_are_the_end() -> None:
    assert guards.MOST_IN_A_ROW == 50
    streak = Streak()
    for iteration in range(7, 56):
        streak.grow(iteration, ["loss_cls"])
    guards.check(streak, 100, 0.01)
    streak.grow(56, ["loss_cls", "loss_bbox"])
    with pytest.raises(BenchError, match=r"after iteration 57 of 100: 50 iterations in a row, all since iteration 8"):
        guards.check(streak, 100, 0.01)
    streak.end()
    guards.check(streak, 100, 0.01)


def test_the_diagnosis_names_terms_ranks_rate_and_remedy() -> None:
    fault = diagnosis(Streak(50, 11), [{}, {"gradient": 2, "unsup_loss_cls": 48}], 2000, 0.0125)
    assert "unsup_loss_cls (48 times on rank 1), gradient (2 times on rank 1)" in fault.message
    assert "The learning rate was 0.0125." in fault.message
    assert "--set lr=" in str(fault.remedy)
    assert fault.exit_code == 1


def test_a_training_that_makes_no_step_stops_and_leaves_the_checkpoint_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MOST_IN_A_ROW", 4)
    training = tiny_training(tmp_path, method(Breaks), *SHORT)
    training.stop = lambda: training.position.iteration == 3
    with pytest.raises(Interrupted):
        training.run()
    good = weights_of(training)
    training.stop = lambda: False
    words = (
        r"after iteration 7 of 20: 4 .* since iteration 4, .*Not finite: loss_cls \(4 times\)\. The learning rate was "
    )
    with pytest.raises(BenchError, match=words) as fault:
        training.run()
    assert type(fault.value) is BenchError
    assert training.position.skipped == 4
    assert saved(training)["iteration"] == 3  # those of iterations 4 and 6 were not written
    for name, value in weights_of(training).items():
        if name.startswith("student."):
            assert torch.equal(value, good[name]), name
        assert not value.is_floating_point() or torch.isfinite(value).all(), name


def test_how_many_in_a_row_is_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "MOST_IN_A_ROW", 4)
    first = tiny_training(tmp_path, method(Breaks), *SHORT)
    first.stop = lambda: first.position.iteration == 5
    with pytest.raises(Interrupted):
        first.run()
    assert saved(first)["streak"] == {"length": 2, "since": 4, "terms": {"loss_cls": 2}}
    second = tiny_training(tmp_path, method(Breaks), *SHORT)
    assert second.resume()
    with pytest.raises(BenchError, match="after iteration 7 of 20: 4 iterations in a row, all since iteration 4"):
        second.run()
    assert second.position.skipped == 4


@pytest.mark.parametrize("clip_norm", [0, 10])
def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(tmp_path: Path, clip_norm: int) -> None:
    training = tiny_training(tmp_path, method(Steep), "iterations=3", "generations=1", f"clip_norm={clip_norm}")
    losses_of(training, until=1)
    before = weights_of(training)
    (line,) = losses_of(training, until=2)
    assert line["loss"] < float("inf")
    assert (training.position.skipped, training.position.streak.terms) == (1, {"gradient": 1})
    now = weights_of(training)
    assert all(torch.equal(value, now[name]) for name, value in before.items() if name.startswith("student."))
    losses_of(training)
    now = weights_of(training)
    assert any(not torch.equal(value, now[name]) for name, value in before.items() if name.startswith("student."))
    assert (training.position.skipped, training.position.streak) == (1, Streak())


def test_nothing_of_a_broken_iteration_stays_in_the_methods_state(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "ours", "iterations=4", "generations=2")
    parts = training.detector.parts
    loss = parts.classification_loss

    def broken(logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        factor = float("nan") if context.iteration == 1 else 1.0
        return loss(logits * factor, labels, label_weights, normaliser, context)

    parts.classification_loss = broken
    training.run()
    assert training.position.skipped == 1
    guards.check_state(training.detector, training.optimiser)
    assert saved(training)["iteration"] == 4


def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, method(Parts), "iterations=1", "generations=1", "optimiser=sgd")
    training.run()
    detector = training.detector
    detector.parts.register_buffer("own", torch.tensor([float("inf"), 1.0]))  # a method may keep an infinity
    training.save()
    before = training.file.read_bytes()
    weights = {name.partition(".")[0]: value for name, value in detector.named_parameters()}
    average = next(iter(training.optimiser.state.values()))["momentum_buffer"]
    for where, value, bad in (
        ("student", weights["student"], float("inf")),
        ("teacher", weights["teacher"], float("nan")),
        ("parts", detector.parts.own, float("nan")),
        ("optimiser", average, float("inf")),
    ):
        first = value.detach()[(0,) * value.dim()]
        kept = first.clone()
        first.fill_(bad)
        with pytest.raises(BenchError, match=rf"its state is not finite \({where}\.") as fault:
            training.save()
        assert fault.value.exit_code == 1
        assert training.file.read_bytes() == before
        first.copy_(kept)
    training.save()
