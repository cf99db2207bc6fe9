"""Stages, promoted images and features to compare: what some methods need beyond Soft Teacher's iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectors import TINY, batch, tiny_detector
from tiny import tiny_plan, tiny_training
from watched_trainings import losses_of, weights_of

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import Context, Copies, Detections, Parts, Promoted, Regions
from cissod_bench.contract.presets import MINI
from cissod_bench.contract.settings import learning_rate
from cissod_bench.contract.stages import ONE_STAGE, Stage, spans, unlabelled_from
from cissod_bench.errors import UsageFault
from cissod_bench.training.loop import Training

TWO_STAGES = (Stage(name="base", share=1 / 3, unlabelled=False), Stage(name="tuning", share=2 / 3))


def ends(stages: Sequence[Stage], iterations: int) -> list[tuple[int, int]]:
    return [(span.begin, span.end) for span in spans(stages, iterations)]


def test_stages_cut_the_iterations_by_their_shares() -> None:
    assert ends(ONE_STAGE, 7) == [(0, 7)]
    assert ends(TWO_STAGES, 180_000) == [(0, 60_000), (60_000, 180_000)]
    assert ends(TWO_STAGES, 4) == [(0, 1), (1, 4)]


def test_a_stage_without_an_iteration_is_refused_by_name() -> None:
    with pytest.raises(UsageFault, match=r"stage 'base' \(33%\) has none. Got 1"):
        spans(TWO_STAGES, 1)


def test_unlabelled_images_wait_for_their_stage_and_for_the_setting() -> None:
    for unsup_start, stages, first in (
        (0.0, ONE_STAGE, 0), (0.4, ONE_STAGE, 36), (0.401, ONE_STAGE, 37), (0.1, TWO_STAGES, 30), (0.5, TWO_STAGES, 45),
    ):  # fmt: skip
        assert unlabelled_from(spans(stages, 90), unsup_start, 90) == first
    assert unlabelled_from(spans((Stage(name="s", share=1.0, unlabelled=False),), 90), 0.0, 90) == 90


def test_milestones_count_from_the_stages_begin_and_only_the_first_warms_up() -> None:
    settings = replace(MINI, iterations=900, warmup_iterations=10)
    rates = [learning_rate(i, settings, 1, (300, 900)) for i in (300, 305, 749, 750, 839, 840)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    assert learning_rate(5, settings, 1, (0, 300)) == pytest.approx(1e-3 * (1e-3 + 0.999 * 0.5))


class Staged(Parts):
    """Two stages: the second begins with another classifier and without its first image."""

    def __init__(self, num_classes: int, images: int) -> None:
        super().__init__(num_classes, 0.15)
        self.images, self.calls = images, list[str]()

    def stages(self) -> Sequence[Stage]:
        return TWO_STAGES

    def begin_stage(self, model: Any, context: Context) -> None:
        self.calls.append(f"begin {context.stage} at {context.iteration}")
        model.roi_head.bbox_head.fc_cls.weight.data.normal_(0, 0.5)

    def enter_stage(self, model: Any, context: Context) -> None:
        self.calls.append(f"enter {context.stage}")
        for parameter in model.backbone.parameters():
            parameter.requires_grad_(context.stage == 0)

    def copies(self, context: Context) -> Copies:
        self.calls.append(f"copies {context.generation} in {context.stage}")
        times = np.ones(self.images, np.int32)
        times[0] = context.stage == 0
        return {0: times}


STAGED = Method(
    title="Staged", source="t", citation="-", name="staged",
    parts=lambda facts: Staged(len(facts.classes), len(facts.labelled_classes)),
)  # fmt: skip
SIX = ("iterations=6", "generations=2", "checkpoint_every=100")


def test_a_stage_begins_once_with_its_own_weights_images_and_optimiser(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, STAGED, *SIX)
    parts = training.detector.parts
    first = list(losses_of(training, until=2))  # the list itself grows with every later step
    backbone = {name: value for name, value in weights_of(training).items() if name.startswith("student.backbone")}
    second = losses_of(training)
    assert parts.calls == [
        "enter 0", "enter 0", "copies 0 in 0", "begin 1 at 2", "enter 1", "enter 1", "copies 0 in 1", "copies 1 in 1",
    ]  # fmt: skip
    assert not any("unsup_loss_cls" in line for line in first)
    assert all("unsup_loss_cls" in line for line in second)
    after = weights_of(training)
    assert all(torch.equal(value, after[name]) for name, value in backbone.items())
    assert training.position.copies[0][0] == 0
    assert all(not p.requires_grad for p in training.detector.teacher.parameters())
    steps = [state["step"].item() for state in training.optimiser.state.values()]
    assert max(steps) == 4  # of the second stage: its optimiser is a new one


def test_the_teacher_becomes_the_students_copy_where_a_stage_begins(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, STAGED, *SIX)
    losses_of(training, until=2)
    training._begin()
    student, teacher = training.detector.student.state_dict(), training.detector.teacher.state_dict()
    assert all(torch.equal(value, teacher[name]) for name, value in student.items())


def test_half_and_resume_equals_the_whole_across_a_stage(tmp_path: Path) -> None:
    whole = tiny_training(tmp_path / "whole", STAGED, *SIX)
    expected = losses_of(whole)
    for stop in (2, 3):
        first = tiny_training(tmp_path / f"half{stop}", STAGED, *SIX)
        losses_of(first, until=stop)
        first.save()
        second = tiny_training(tmp_path / f"half{stop}", STAGED, *SIX)
        assert second.resume()
        assert losses_of(second) == expected[stop:]
        assert all(torch.equal(value, weights_of(second)[name]) for name, value in weights_of(whole).items())
        begun = [call for call in second.detector.parts.calls if call.startswith("begin")]
        assert begun == (["begin 1 at 2"] if stop == 2 else [])


class Promoting(Parts):
    """From generation 1 on the third unlabelled image is a labelled one with a box and an ignore region."""

    def __init__(self, num_classes: int, labelled: int, unlabelled: int) -> None:
        super().__init__(num_classes, 0.15)
        self.labelled, self.unlabelled = labelled, unlabelled

    def promoted(self, context: Context) -> Promoted | None:
        if context.generation == 0:
            return None
        boxes = np.array([[2, 3, 42, 43], [20, 20, 60, 60]], np.float32)
        return Promoted(np.array([2, 2]), boxes, np.array([1, 0]), np.array([False, True]))

    def copies(self, context: Context) -> Copies:
        times = np.zeros(self.labelled + self.unlabelled, np.int32)
        if context.generation == 0:
            times[: self.labelled] = 1
        else:
            times[self.labelled + 2] = 1
        return {0: times}


PROMOTING = Method(
    title="Promoting", source="t", citation="-", name="promoting", images="promoted",
    parts=lambda facts: Promoting(len(facts.classes), len(facts.labelled_classes), facts.num_unlabelled),
)  # fmt: skip


def sup_views(training: Training, until: int | None = None) -> list[Any]:
    """The labelled samples of every iteration."""
    views: list[Any] = []
    step = training.step

    def watched(data: dict[str, Any], iteration: int) -> dict[str, Any]:
        views.append(data["sup"][0]["data_samples"])
        return step(data, iteration)

    training.step = watched  # type: ignore[method-assign]
    training.run(until)
    return views


@pytest.mark.parametrize("workers", [0, 1])
def test_a_promoted_image_is_a_labelled_one_with_its_pseudo_labels(tmp_path: Path, workers: int) -> None:
    settings = ("iterations=4", "generations=2", "checkpoint_every=100", f"workers={workers}")
    training = tiny_training(tmp_path, PROMOTING, *settings)
    views = sup_views(training)
    unlabelled = training.dataset.sources[1]
    assert [view.img_id in unlabelled.image_ids for view in views] == [False, False, True, True]
    assert {view.img_id for view in views[2:]} == {unlabelled.image_ids[2]}
    for view in views[2:]:
        assert view.gt_instances.labels.tolist() == [1]
        assert view.ignored_instances.labels.tolist() == [0]
    first = tiny_training(tmp_path / "half", PROMOTING, *settings)
    losses_of(first, until=3)
    first.save()
    second = tiny_training(tmp_path / "half", PROMOTING, *settings)
    assert second.resume()
    (last,) = sup_views(second)
    assert torch.equal(last.gt_instances.bboxes.tensor, views[3].gt_instances.bboxes.tensor)


def test_images_that_may_be_promoted_are_none_of_d_l(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, PROMOTING)
    training = tiny_training(tmp_path, PROMOTING)
    counts = plan.manifest.counts
    assert training.detector.parts.labelled == counts["labelled"]
    assert training.sampler.sizes == (counts["labelled"] + counts["unlabelled"], counts["unlabelled"])


class Comparing(Parts):
    """Looks at the teacher's features of labelled boxes and compares pseudo labels between the views."""

    OBSERVES_LABELLED = True
    COMPARES_VIEWS = True

    def __init__(self) -> None:
        super().__init__(5, 0.18)
        self.seen: list[Regions] = []
        self.pairs: list[tuple[Regions, torch.Tensor]] = []
        self.confident = 0

    def observe_labelled(self, regions: Regions, context: Context) -> None:
        assert context.branch == "teacher"
        self.seen.append(regions)

    def observe_detections(self, detections: Sequence[Detections], context: Context) -> None:
        self.confident += sum(int((one.scores > TINY.initial_threshold).sum()) for one in detections)

    def extra_losses(self, teacher: Regions, student: torch.Tensor, context: Context) -> dict[str, torch.Tensor]:
        self.pairs.append((teacher, student))
        return {"loss_views": (student - teacher.features).square().sum()}


def test_features_of_labelled_boxes_and_of_both_views_reach_the_method() -> None:
    parts = Comparing()
    detector = tiny_detector(parts)
    losses = detector(batch(), Context(0, 10))
    ((regions,), ((teacher, student),)) = parts.seen, parts.pairs
    assert regions.features.shape == (6, 32)
    assert len(regions.labels) == 6
    assert not regions.features.requires_grad
    assert 0 < len(teacher.labels) <= parts.confident  # slivers are dropped
    assert teacher.features.shape == student.shape == (len(teacher.labels), 32)
    assert student.requires_grad
    assert not teacher.features.requires_grad
    expected = TINY.unsup_weight * (student - teacher.features).square().sum()
    torch.testing.assert_close(losses["unsup_loss_views"], expected)


def test_the_same_box_in_equal_views_has_equal_features() -> None:
    """Teacher and student are equal and the strong view is the weak one: only the RoI's refinement tells them apart."""
    parts = Comparing()
    detector = tiny_detector(parts)
    data = batch(labelled=1, unlabelled=1)
    data["sup"] = data["weak"]
    boxes = torch.tensor([[5.0, 6.0, 40.0, 50.0]])
    truth = data["sup"][0]["data_samples"].gt_instances
    truth.bboxes, truth.labels = boxes, torch.tensor([2])
    detector.observe_labelled(data["sup"], Context(0, 10))
    inputs, _ = detector._prepare(detector.student, data["weak"])
    _, own = detector._shared(detector.student, detector.student.extract_feat(inputs), [boxes])
    torch.testing.assert_close(parts.seen[0].features, own.detach())
