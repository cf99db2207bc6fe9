"""DASO with a detector: boxes that change their class, a training that is stopped and resumed, two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from daso_parts import daso, detections, iterate, regions
from detectors import CLASSES, GROUPS, batch, tiny_detector
from ranks import two_processes
from tiny import tiny_plan, tiny_training
from torch import Tensor
from watched_trainings import losses_of, weights_of

from cissod_bench.contract.parts import Context


def test_a_box_can_change_its_class_before_nms() -> None:
    """With prototypes that all RoIs are nearest to, their boxes are that class's; scoring does not change."""
    parts = daso(classes=CLASSES, groups=GROUPS)
    detector, data, context = tiny_detector(parts), batch(), Context(30, 40, branch="teacher")
    decoded: list[set[int]] = []
    decode = detector._decode

    def watched(model: Any, rois: Tensor, deltas: Tensor, shape: Any, rows: Tensor, labels: Tensor) -> Tensor:
        decoded.append(set(labels.tolist()))
        return decode(model, rois, deltas, shape, rows, labels)

    detector._decode = watched  # type: ignore[method-assign]
    inputs, samples = detector._prepare(detector.teacher, data["weak"])
    features = detector.teacher.extract_feat(inputs)
    before = detector._detect(detector.teacher, features, samples, context)
    scored = detector.predict(data["weak"], Context(30, 40), teacher=True)
    target = next(k for k in range(5) if k not in decoded[0])
    mean = torch.cat([own.features for own in before]).mean(dim=0)
    parts.prototypes[:], parts.prototypes[target] = -mean, mean
    parts.pushed.fill_(1)
    parts.distribution.fill_(1)
    decoded.clear()
    after = detector._detect(detector.teacher, features, samples, context)
    assert decoded == [{target}] * 2
    assert all((own.labels == target).all() for own in after)
    assert sum(len(own.labels) for own in after) > 0
    assert context.logs["relabelled"] == 1
    for one, other in zip(scored, detector.predict(data["weak"], Context(30, 40), teacher=True), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# So slow that the random teacher goes on finding something everywhere.
SHORT = ("iterations=6", "generations=1", "checkpoint_every=100", "lr=1e-6")


def test_a_training_blends_and_resumes_exactly_within_a_window(tmp_path: Path) -> None:
    whole = tiny_training(tmp_path / "whole", "daso", *SHORT)
    expected = losses_of(whole)
    assert all(np.isfinite(value) for line in expected for value in line.values())
    assert expected[0]["unsup_loss_align"] == 0  # no prototype yet; with a single one it is 0, too
    assert all(line["unsup_loss_align"] > 0 for line in expected[3:])
    assert not any("relabelled" in line for line in expected[:5])
    assert max(line["relabelled"] for line in expected[5:]) > 0
    assert 0 < expected[3]["queue_filled"] < expected[-1]["queue_filled"]
    first = tiny_training(tmp_path / "half", "daso", *SHORT)
    losses_of(first, until=3)
    assert first.detector.parts.window.sum() > 0
    assert not first.detector.parts.distribution.any()
    first.save()
    second = tiny_training(tmp_path / "half", "daso", *SHORT)
    assert second.resume()
    for name, value in first.detector.parts.state_dict().items():
        assert torch.equal(value, second.detector.parts.state_dict()[name]), name
    assert losses_of(second) == expected[3:]
    assert all(torch.equal(value, weights_of(second)[name]) for name, value in weights_of(whole).items())


TWO = """
import sys, torch
from pathlib import Path
from daso_parts import daso, detections, iterate, regions
from watched_trainings import losses_of
from tiny import tiny_training
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
rank = distributed.rank()
parts = daso()
for iteration in range(6):
    place = [slice(0, iteration % 3), slice(iteration % 3, 5)][rank]
    whole = regions(iteration, [0, 1, 2, 3, 1])
    own = type(whole)(whole.features[place], whole.labels[place])
    found = [detections([0, 1], [0.7, 0.8]), detections([1], [0.9])][rank]
    iterate(parts, iteration, [own], [found])
rows = torch.arange(2.0 * rank, dtype=torch.float16)[:, None] + torch.tensor([0.0, 10.0], dtype=torch.float16)
training = tiny_training(Path({folder!r}), "daso", *{short!r})
losses_of(training, until=3)
torch.save(
    {{
        "state": parts.state_dict(), "rows": distributed.gather_rows(rows), "weights": training.detector.state_dict(),
        "none": distributed.gather_rows(rows[:0]),
    }},
    Path({folder!r}) / f"rank{{rank}}.pth",
)
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_have_the_state_of_one_that_sees_all_in_the_order_of_the_ranks(tmp_path: Path) -> None:
    tiny_plan(tmp_path, "daso")  # draws the split before two processes ask for it
    one, other = two_processes(TWO, tmp_path, short=SHORT)
    whole = daso()
    for iteration in range(6):
        iterate(whole, iteration, [regions(iteration, [0, 1, 2, 3, 1])], [detections([0, 1, 1])])
    for name, value in whole.state_dict().items():
        assert torch.equal(one["state"][name], value), name
        assert torch.equal(other["state"][name], value), name
    assert one["rows"].tolist() == other["rows"].tolist() == [[0, 10], [1, 11]]
    assert one["none"].shape == (0, 2)
    assert one["weights"]["parts.window"].any()
    assert one["weights"]["parts.prototypes"].any()
    for name, value in one["weights"].items():
        assert torch.equal(value, other["weights"][name]), name
