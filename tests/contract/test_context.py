"""Where a part is called: a context never changes, and all branches of an iteration share their log."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
from detectors import CLASSES, TINY, batch, tiny_detector

from cissod_bench.contract.parts import Context, Parts


def test_a_context_cannot_be_changed_and_the_next_one_differs_in_its_branch_alone() -> None:
    context = Context(3, 10, generation=1, generations=2, stage=1)
    with pytest.raises(FrozenInstanceError):
        context.branch = "teacher"  # type: ignore[misc]
    after = context.at("teacher", collect=True)
    assert (context.branch, context.collect) == ("sup", False)
    assert (after.branch, after.collect) == ("teacher", True)
    assert not after.at("predict").collect
    kept = [field.name for field in fields(Context) if field.name not in ("branch", "collect")]
    assert [getattr(after, name) for name in kept] == [getattr(context, name) for name in kept]
    after.logs["queue"] = 2.0
    assert context.logs == {"queue": 2.0}


class Places(Parts):
    """Notes where each of its parts is called, and logs there."""

    OBSERVES_LABELLED = COMPARES_VIEWS = True

    def __init__(self) -> None:
        super().__init__(len(CLASSES), TINY.theta)
        self.calls: dict[str, Context] = {}

    def _note(self, name: str, context: Context) -> None:
        self.calls[name] = context
        context.logs[f"{name} {context.branch}"] = 1.0

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        self._note(f"loss {context.branch}", context)
        return super().classification_loss(logits, labels, label_weights, normaliser, context)

    def observe_labelled(self, regions, context):  # type: ignore[no-untyped-def]
        self._note("observe_labelled", context)

    def observe_detections(self, detections, context):  # type: ignore[no-untyped-def]
        self._note("observe_detections", context)

    def score_transform(self, scores, features, context):  # type: ignore[no-untyped-def]
        self._note("score_transform", context)
        return scores

    def thresholds(self, context):  # type: ignore[no-untyped-def]
        self._note("thresholds", context)
        return super().thresholds(context)

    def extra_losses(self, teacher, student, context):  # type: ignore[no-untyped-def]
        self._note("extra_losses", context)
        return {}


def test_every_part_is_told_its_branch_the_student_and_the_log_and_the_given_context_stays_as_it_was() -> None:
    parts, context = Places(), Context(5, 10)
    detector = tiny_detector(parts)
    detector(batch(), context)
    assert (context.branch, context.collect, context.student) == ("sup", False, None)
    assert {name: (at.branch, at.collect) for name, at in parts.calls.items()} == {
        "loss sup": ("sup", True),
        "observe_labelled": ("teacher", True),
        "score_transform": ("teacher", True),
        "observe_detections": ("teacher", True),
        "thresholds": ("teacher", True),
        "loss unsup_cls": ("unsup_cls", True),
        "extra_losses": ("unsup_cls", True),
    }
    assert all(at.student is detector.student and at.logs is context.logs for at in parts.calls.values())
