"""DASO's variant ``original``: the student's weak features, alignment over all proposals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from daso_parts import daso
from detectors import CLASSES, GROUPS, TINY, batch, tiny_detector
from tiny import tiny_training
from torch import Tensor
from watched_trainings import losses_of

from baselines.daso import METHOD
from cissod_bench.contract.parts import Context, Regions
from cissod_bench.detector.formulas import project
from cissod_bench.detector.teacher_pass import TeacherPass, homography

ORIGINAL = dict(METHOD.variants["original"])


def taught(**variant: Any) -> tuple[Any, TeacherPass, list[Tensor], dict[str, Any]]:
    """A detector whose teacher is not its student, its pass, the features shown to the method, and the images."""
    parts = daso(classes=CLASSES, groups=GROUPS, settings=TINY, variant=variant)
    detector, data, shown = tiny_detector(parts), batch(), list[Tensor]()
    with torch.no_grad():
        for weight in detector.student.neck.parameters():
            weight.mul_(1.3)

    def watched(scores: Tensor, features: Tensor, context: Context) -> Tensor:
        shown.append(features)
        return scores

    parts.score_transform = watched  # type: ignore[method-assign]
    found = detector.teach(data["weak"], data["strong"], Context(30, 40))
    return detector, found, shown, data


def features_by(model: Any, detector: Any, data: dict[str, Any], boxes: list[Tensor]) -> Tensor:
    with torch.no_grad():
        inputs, _ = detector._prepare(model, data["weak"])
        _, shared = detector._shared(model, model.extract_feat(inputs), boxes)
    return shared


def proposals_of(detector: Any, data: dict[str, Any]) -> list[Tensor]:
    with torch.no_grad():
        inputs, samples = detector._prepare(detector.teacher, data["weak"])
        found = detector.teacher.rpn_head.predict(detector.teacher.extract_feat(inputs), samples, rescale=False)
    return [one.bboxes for one in found]


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_weak_features_are_those_of_the_model_that_the_variant_names(whose: str) -> None:
    detector, found, (shown,), data = taught(weak_features=whose)
    models = {"teacher": detector.teacher, "student": detector.student}
    by = {name: features_by(model, detector, data, proposals_of(detector, data)) for name, model in models.items()}
    assert not torch.allclose(by["teacher"], by["student"])
    torch.testing.assert_close(shown, by[whose])
    rows = {tuple(row.tolist()) for row in shown}
    assert all(tuple(row.tolist()) in rows for row in found.regions().features)
    assert not shown.requires_grad


def test_the_original_compares_all_proposals_in_both_views() -> None:
    detector, found, (shown,), data = taught(**ORIGINAL)
    proposals = proposals_of(detector, data)
    assert len(found.regions().labels) == len(shown) == sum(len(own) for own in proposals)
    assert torch.equal(found.regions().features, shown)
    for own, compared, weak, strong in zip(proposals, found.compared, data["weak"], data["strong"], strict=True):
        views = [view["data_samples"] for view in (weak, strong)]
        torch.testing.assert_close(compared.boxes, project(own, homography(*views, own.device), *views[1].img_shape))
    plain = taught()[1]
    assert [one.boxes.tolist() for one in plain.compared] == [one.boxes.tolist() for one in plain.pseudo]
    assert len(plain.regions().labels) < len(shown)


def test_the_original_aligns_the_students_strong_features_of_all_proposals() -> None:
    detector, found, _, data = taught(**ORIGINAL)
    seen: list[tuple[Regions, Tensor]] = []

    def watched(teacher: Regions, student: Tensor, context: Context) -> dict[str, Tensor]:
        seen.append((teacher, student))
        return {"loss_align": student.sum()}

    detector.parts.extra_losses = watched
    strong = detector._student_features({"strong": data["strong"]})["strong"]
    losses = detector.unsupervised_losses(strong, found, Context(30, 40))
    ((teacher, student),) = seen
    assert len(teacher.labels) == len(student) == sum(len(own.boxes) for own in found.compared)
    assert student.requires_grad
    assert not teacher.features.requires_grad
    assert "loss_align" in losses


def test_a_variant_changes_two_fields_at_most_and_the_method_as_it_stands_none() -> None:
    assert ORIGINAL == {"weak_features": "student", "aligned": "proposals"}
    own = daso()
    assert (own.STUDENT_SEES_WEAK, own.COMPARES_PROPOSALS) == (False, False)


def test_the_original_trains(tmp_path: Path) -> None:
    sets = ("iterations=4", "generations=1", "checkpoint_every=100", "lr=1e-6")
    lines = losses_of(tiny_training(tmp_path, "daso", *sets, variant="original"))
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert lines[-1]["unsup_loss_align"] > 0
