"""DeFRCN in training: its stages, what is frozen, exact resume, its variants, two processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import two_processes
from tiny import tiny_plan, tiny_training
from torch import Tensor
from watched_trainings import losses_of, weights_of

from baselines.defrcn import METHOD, DeFRCN
from cissod_bench.contract.method import RunFacts
from cissod_bench.contract.parts import Context
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.training.loop import Training

SIX = ("iterations=6", "generations=2", "checkpoint_every=100")  # stage 1 is 0 and 1, stage 2 is 2 to 5
THREE = ("iterations=3", "generations=1")  # stage 1 is 0, stage 2 is 1 and 2
SHARED = "student.roi_head.bbox_head.shared_fcs"


def surgeries(training: Training) -> list[int]:
    """Return a list that will hold the iterations at which the predictors are changed."""
    calls: list[int] = []
    begin = training.detector.parts.begin_stage

    def watched(model: Any, context: Context) -> None:
        calls.append(context.iteration)
        begin(model, context)

    training.detector.parts.begin_stage = watched  # type: ignore[method-assign]
    return calls


def finite(lines: list[dict[str, float]]) -> bool:
    return all(np.isfinite(value) for line in lines for value in line.values())


def changed(before: dict[str, Tensor], after: dict[str, Tensor], prefix: str) -> list[bool]:
    return [not torch.equal(value, after[name]) for name, value in before.items() if name.startswith(prefix)]


def test_both_stages_train_on_their_images_with_their_own_parts_frozen(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "defrcn", *SIX)
    calls, begin = surgeries(training), weights_of(training)
    first = list(losses_of(training, until=2))
    images = training.dataset.sources[0].classes_of_images()
    maj = {name: channel for channel, name in enumerate(training.detector.parts.classes)}
    base = {maj[name] for name in ("circle", "square")}
    drawn = training.position.copies[0]
    assert drawn.tolist() == [int(base.issuperset(own)) for own in images]
    assert 0 < drawn.sum() < len(images)
    middle = weights_of(training)
    assert all(changed(begin, middle, SHARED))
    second = losses_of(training)
    end = weights_of(training)
    assert calls == [2]
    assert finite(first + second)
    assert not any("unsup_loss_cls" in line for line in first)
    assert all("unsup_loss_cls" in line for line in second)
    assert changed(middle, end, SHARED) == [False] * 4  # bitwise, in spite of the weight decay
    assert all(changed(middle, end, "student.rpn_head"))
    assert any(changed(middle, end, "student.backbone"))
    threshold = tiny_plan(tmp_path).task.repeat_threshold
    np.testing.assert_array_equal(training.position.copies[0], labelled_copies(images, 4, threshold))
    assert not any(p.requires_grad for p in training.detector.teacher.parameters())
    for name in ("rpn_head.decoupling.weight", "roi_head.bbox_roi_extractor.decoupling.bias"):
        assert not torch.equal(end[f"student.{name}"], begin[f"student.{name}"])
        assert not torch.equal(end[f"teacher.{name}"], begin[f"teacher.{name}"])


def test_the_teacher_detects_base_classes_only_until_the_second_stage(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "defrcn", *THREE)
    training.run(until=1)
    known = {training.detector.parts.classes.index(name) for name in ("circle", "square")}
    seen = [set(torch.cat([one.labels for one in training._detect_unlabelled()]).tolist())]
    training.run()
    seen.append(set(torch.cat([one.labels for one in training._detect_unlabelled()]).tolist()))
    assert seen[0] <= known
    assert seen[0]
    assert seen[1] - known


@pytest.mark.slow
def test_resuming_within_the_second_stage_equals_the_whole_run_and_redoes_no_surgery(tmp_path: Path) -> None:
    whole = tiny_training(tmp_path / "whole", "defrcn", *SIX)
    expected = losses_of(whole)
    for stop, begun in ((1, [2]), (4, [])):
        first = tiny_training(tmp_path / f"half{stop}", "defrcn", *SIX)
        losses_of(first, until=stop)
        first.save()
        second = tiny_training(tmp_path / f"half{stop}", "defrcn", *SIX)
        calls = surgeries(second)
        assert second.resume()
        assert second.detector.parts.stage == second.position.stage == int(stop > 2)
        assert losses_of(second) == expected[stop:]
        assert calls == begun
        assert all(torch.equal(value, weights_of(second)[name]) for name, value in weights_of(whole).items())


@pytest.mark.parametrize("variant", METHOD.variants)
def test_every_variant_trains(tmp_path: Path, variant: str) -> None:
    lines = losses_of(tiny_training(tmp_path, "defrcn", *THREE, variant=variant))
    assert finite(lines)
    assert ["unsup_loss_cls" in line for line in lines] == [variant == "stage1-ssl", True, True]


def test_it_trains_where_every_image_holds_another_class(tmp_path: Path) -> None:
    """As on LVIS: groups by frequency, and no image of frequent classes alone."""

    def frequency(facts: RunFacts) -> DeFRCN:
        groups = {"f": facts.classes[:1], "c": facts.classes[1:3], "r": facts.classes[3:]}
        images = tuple(own if set(own) - {0} else (*own, 1) for own in facts.labelled_classes)
        task = replace(facts.task, groups=("f", "c", "r"))
        return DeFRCN(replace(facts, groups=groups, task=task, labelled_classes=images))

    training = tiny_training(tmp_path, replace(METHOD, name="defrcn", parts=frequency), *THREE)
    assert training.detector.parts.base == (0,)
    lines = losses_of(training, until=1)
    images = training.dataset.sources[0].classes_of_images()
    drawn = training.position.copies[0]
    assert drawn.tolist() == [int(0 in own) for own in images]
    assert finite(lines + losses_of(training))


TWO = """
import sys, torch
from pathlib import Path
from tiny import tiny_training
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
training = tiny_training(Path({folder!r}), "defrcn", *{three!r})
training.run(until=1)
frozen = [p.clone() for p in training.detector.student.roi_head.bbox_head.shared_fcs.parameters()]
training.run()
torch.save(
    {{"weights": training.detector.state_dict(), "frozen": frozen, "copies": training.position.copies[0].tolist()}},
    Path({folder!r}) / f"rank{{distributed.rank()}}.pth",
)
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_and_frozen_layers(tmp_path: Path) -> None:
    tiny_plan(tmp_path, "defrcn")  # draws the split before two processes ask for it
    one, other = two_processes(TWO, tmp_path, three=THREE)
    assert one["copies"] == other["copies"]
    for name, value in one["weights"].items():
        assert torch.equal(value, other["weights"][name]), name
    after = [value for name, value in one["weights"].items() if name.startswith(SHARED)]
    assert all(torch.equal(value, own) for value, own in zip(after, one["frozen"], strict=True))
