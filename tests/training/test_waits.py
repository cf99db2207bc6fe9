"""A step reads next to nothing back from its device; whether it was made is told with the next one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectors import TINY
from tiny import tiny_training
from torch import nn
from waits import Waits
from watched_trainings import weights_of

from cissod_bench.catalogue import list_methods, load_method
from cissod_bench.contract.method import USES_UNLABELLED, Method
from cissod_bench.contract.parts import Parts
from cissod_bench.training import checkpoint, guards
from cissod_bench.training.guards import Streak
from cissod_bench.training.interval import Interval
from cissod_bench.training.loop import Training
from cissod_bench.training.optimisers import load_optimiser, make_optimiser

# By us and by mmdet's parts, in an iteration of 1 + 2 images. Each of our three choices of pseudo labels takes two, the
# floor under every unlabelled image's scores one, and the verdict on the iteration before, long there, one. A batch's
# proposals take one and every sample of anchors or RoIs two, however many images; mmdet, image by image, took 78 more.
OURS, MMDETS = 22, 29
MORE = {"daso": (16, 6)}  # a prototype a class that was met, and the labelled boxes' features


def waits_of(training: Training) -> Waits:
    training.position.stage = len(training.spans) - 1
    training._begin()
    with closing(training._batches(0, 2)) as batches:
        first, second = batches
    training.step(first, 38)
    with Waits() as waits:
        training.interval.add(training.step(second, 39))
    return waits


@pytest.mark.parametrize("method", [name for name in list_methods() if load_method(name).images in USES_UNLABELLED])
def test_an_iteration_reads_no_number_back_but_how_many_boxes_there_are(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CISSOD_OPERATORS", "mmcv")  # what a GPU has
    sets = ("iterations=40", "generations=1", "workers=0", "log_every=40")
    waits = waits_of(tiny_training(tmp_path, method, *sets))
    more = MORE.get(method, (0, 0))
    assert waits.of("ours") <= OURS + more[0], waits.places
    assert waits.of("mmdet") <= MMDETS + more[1], waits.places


class Breaks(Parts):
    """Its loss is not finite in the second iteration."""

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        loss = super().classification_loss(logits, labels, label_weights, normaliser, context)
        return loss * float("inf") if context.iteration == 1 else loss


def test_a_broken_iteration_is_told_with_the_next_one_or_before_a_checkpoint(tmp_path: Path) -> None:
    make = lambda facts: Breaks(len(facts.classes))  # noqa: E731
    method = Method(title="T", source="tests", citation="-", name="breaks", parts=make, images="labelled")
    training = tiny_training(tmp_path, method, "iterations=9", "generations=1", "workers=0")
    training._begin()
    with closing(training._batches(0, 3)) as batches:
        first, second, third = batches
    training.step(first, 0)
    before = weights_of(training)
    training.step(second, 1)
    now = weights_of(training)
    assert all(torch.equal(value, now[name]) for name, value in before.items() if name.startswith("student."))
    assert (training.position.skipped, training.position.streak) == (0, Streak())
    training.save()
    assert checkpoint.read(training.file)["skipped"] == training.position.skipped == 1
    training.step(third, 2)
    assert training.position.streak == Streak(1, 2, {"loss_cls": 1})
    training.save()
    assert (training.position.skipped, training.position.streak) == (1, Streak())


def layer(kind: str) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    student = nn.Linear(3, 2)
    optimiser = make_optimiser(replace(TINY, optimiser=kind, lr=0.1), student)  # type: ignore[arg-type]
    student(torch.ones(4, 3)).square().sum().backward()
    return student, optimiser


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_that_is_not_made_leaves_weights_and_averages_also_as_the_first(kind: str, scaled: bool) -> None:
    """torch's fused SGD would keep memory as it is for averages."""
    student, optimiser = layer(kind)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1.0)
    scaler.scale(torch.ones(()))
    weight, gradient = student.weight.detach().clone(), student.weight.grad.clone()
    assert guards.guarded_step(optimiser, scaler, 0.0, torch.tensor(True))
    assert torch.equal(student.weight, weight)
    student.weight.grad.copy_(gradient * scaler.get_scale())
    student.bias.grad.fill_(1.0)
    assert not guards.guarded_step(optimiser, scaler, 0.0, torch.tensor(False))
    plain, expected = (torch.optim.SGD if kind == "sgd" else torch.optim.AdamW), nn.Parameter(weight.clone())
    expected.grad = gradient
    momentum = {"momentum": TINY.momentum} if kind == "sgd" else {}
    plain([expected], lr=0.1, weight_decay=TINY.weight_decay, **momentum).step()  # type: ignore[arg-type]
    torch.testing.assert_close(student.weight, expected)


def test_a_checkpoint_of_an_optimiser_that_was_not_fused_goes_on_with_one_that_is() -> None:
    student, optimiser = layer("sgd")
    plain = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    plain.step()
    load_optimiser(optimiser, plain.state_dict())
    weight = student.weight.detach().clone()
    guards.step_unless(optimiser, torch.tensor(True))
    assert torch.equal(student.weight, weight)
    guards.step_unless(optimiser, torch.tensor(False))
    assert not torch.equal(student.weight, weight)


def test_numbers_for_the_log_are_those_of_their_iteration_however_late_they_are_read() -> None:
    interval, value = Interval(), torch.tensor(1.0)
    for number in range(300):
        value.fill_(number)
        interval.add({"loss": value, "lr": 0.1})
    assert interval.state() == {"sums": {"loss": 300 * 299 / 2, "lr": 0.1}, "numbers": {"loss": 300, "lr": 1}}
