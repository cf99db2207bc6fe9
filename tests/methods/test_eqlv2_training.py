"""EQLv2 in training: its place in the detector, its variants, two processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectors import CLASSES, GROUPS, TINY, batch, tiny_detector
from eqlv2_parts import eql, iterate
from ranks import two_processes
from run_facts import facts
from tiny import tiny_task, tiny_training
from torch import Tensor
from watched_trainings import losses_of

from baselines.eqlv2 import METHOD, EqualisationLoss
from cissod_bench.contract.parts import Context
from cissod_bench.contract.repeat_factors import labelled_copies

STATE = """
import sys, torch
from pathlib import Path
from eqlv2_parts import eql, iterate
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
parts = eql()
place = [slice(0, 10), slice(10, 40)][distributed.rank()]
for iteration in range(12):
    parts.after_iteration(iterate(parts, iteration, place))
torch.save(parts.state_dict(), Path({folder!r}) / f"rank{{distributed.rank()}}.pth")
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_with_half_the_data_each_equal_one_with_all(tmp_path: Path) -> None:
    one, other = two_processes(STATE, tmp_path)
    whole = eql()
    for iteration in range(12):
        whole.after_iteration(iterate(whole, iteration, slice(0, 40)))
    assert torch.equal(one["gradients"], other["gradients"])
    torch.testing.assert_close(one["gradients"], whole.gradients, rtol=0, atol=1e-10)
    assert (whole.ratio < 50).all()


# In the detector.


def detector_parts(**fields: Any) -> EqualisationLoss:
    return EqualisationLoss(facts(classes=CLASSES, groups=GROUPS, settings=TINY, labelled_classes=((0,),), **fields))


def test_pseudo_labels_background_weights_and_scores_come_from_the_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: mmdet's head would score EQLv2 with a softmax."""
    parts = detector_parts()
    detector = tiny_detector(parts)
    shown: list[Tensor] = []
    transform, background = parts.score_transform, detector._teacher_background

    def watched(scores: Tensor, features: Tensor, context: Context) -> Tensor:
        logits = detector.teacher.roi_head.bbox_head.fc_cls(features)
        s = logits.sigmoid()
        expected = torch.cat([s[:, :-1] * (1 - s[:, -1:]), s[:, -1:]], dim=1)
        torch.testing.assert_close(scores, expected)
        assert not torch.allclose(scores, logits.softmax(1), atol=1e-3)
        shown.append(scores)
        return transform(scores, features, context)

    weights: list[Tensor] = []

    def weighed(*inputs: Any) -> Tensor:
        weights.append(background(*inputs))
        return weights[-1]

    monkeypatch.setattr(parts, "score_transform", watched)
    monkeypatch.setattr(detector, "_teacher_background", weighed)
    data = batch()
    found = detector.teach(data["weak"], data["strong"], Context(0, 10))
    kept = torch.cat([one.scores for one in found.confident])
    assert len(kept) > 4
    assert torch.isin(kept, shown[0][:, :-1]).all()
    calls: list[Tensor] = []
    activation = parts.activation
    monkeypatch.setattr(parts, "activation", lambda logits: calls.append(activation(logits)) or calls[-1])
    detector(data, Context(0, 10))
    assert torch.equal(weights[0], calls[-1][:, -1])
    calls.clear()
    [(_, _, scores), *_] = detector.predict(data["weak"], Context(0, 10), teacher=True)
    assert torch.isin(scores, calls[0][:, :-1]).all()


def test_an_iteration_collects_from_two_branches_and_not_from_the_box_branch() -> None:
    parts = detector_parts()
    detector = tiny_detector(parts)
    calls: list[tuple[str, Tensor]] = []
    loss = parts.classification_loss

    def watched(logits: Tensor, labels: Tensor, label_weights: Tensor, normaliser: Tensor, context: Context) -> Tensor:
        before = parts.sums.clone()
        value = loss(logits, labels, label_weights, normaliser, context)
        calls.append((context.branch, parts.sums - before))
        return value

    parts.classification_loss = watched  # type: ignore[method-assign]
    detector(batch(), Context(0, 10))
    assert [branch for branch, _ in calls] == ["sup", "unsup_cls"]
    assert all(own.any() for _, own in calls)
    torch.testing.assert_close(parts.sums, calls[0][1] + calls[1][1])


def test_a_prior_gives_foreground_classifiers_its_probability_and_is_a_departure() -> None:
    parts = detector_parts(variant=METHOD.variants["prior-bias"])
    detector = tiny_detector(parts)
    for model in (detector.student, detector.teacher):
        bias = model.roi_head.bbox_head.fc_cls.bias
        torch.testing.assert_close(bias[:-1].sigmoid(), torch.full((5,), 0.01))
        assert bias[-1] == 0
    assert parts.departures() == {"eqlv2.initial_bias": [0.0, pytest.approx(-math.log(99))]}
    plain = tiny_detector(detector_parts())
    assert not plain.student.roi_head.bbox_head.fc_cls.bias.any()
    assert plain.parts.departures() == {}


@pytest.mark.parametrize("variant", ["", *METHOD.variants])
def test_every_variant_trains_and_moves_the_weights(tmp_path: Path, variant: str) -> None:
    training = tiny_training(
        tmp_path, "eqlv2", "iterations=4", "generations=2", task=tiny_task(repeat_threshold=1.0), variant=variant
    )
    lines = losses_of(training)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    for line in lines:
        assert 1 < line["positive_weight_min"] <= 5
        assert 0 <= line["negative_weight_min"] < 1
    expected = labelled_copies(training.dataset.sources[0].classes_of_images(), 4, 1.0)
    assert training.position.copies.keys() == {0}
    np.testing.assert_array_equal(training.position.copies[0], expected)
    assert expected.max() > 1
