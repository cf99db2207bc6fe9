"""DASO without a detector: worked numbers, the formulas in their plain form, queues, windows, constants."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from daso_parts import daso, detections, iterate, regions
from detectors import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_task
from torch import Tensor

from baselines.daso import (
    METHOD,
    Daso,
    alignment_loss,
    blend,
    blending_weights,
    mean_features,
    push,
    queue_for,
    semantic_scores,
    similarity_logits,
    window_for,
)
from cissod_bench.catalogue import list_methods, load_task
from cissod_bench.contract.parts import Context, Regions
from cissod_bench.contract.repeat_factors import labelled_copies

# A worked example: two RoIs of three classes, background last.
MHAT = [0.6, 0.3, 0.1]
P = [[0.10, 0.55, 0.25, 0.10], [0.70, 0.05, 0.05, 0.20]]
Q = [[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]
UPSILON = {1.5: [1.0, 0.629960525, 0.302853432], 0.3: [1.0, 0.099212566, 0.002547783]}
BLENDED = {
    1.5: [[0.433879078, 0.316914606, 0.149206316, 0.1], [0.16, 0.16, 0.48, 0.2]],
    0.3: [[0.152582660, 0.513291351, 0.234125989, 0.1], [0.16, 0.16, 0.48, 0.2]],
}
LABELS = {1.5: [0, 2], 0.3: [1, 2]}


def exact(*values: Any) -> Tensor:
    return torch.tensor(*values, dtype=torch.float64)


def close(found: Tensor, expected: Any, atol: float = 6e-10) -> None:
    torch.testing.assert_close(found, exact(expected), rtol=0, atol=atol)


@pytest.mark.parametrize("temperature", [1.5, 0.3])
def test_the_worked_example_of_blending(temperature: float) -> None:
    upsilon = blending_weights(exact(MHAT), temperature)
    close(upsilon, UPSILON[temperature])
    blended = blend(exact(P), exact(Q), upsilon)
    close(blended, BLENDED[temperature])
    assert blended[:, :-1].argmax(dim=1).tolist() == LABELS[temperature]


def test_the_worked_example_of_semantic_scores() -> None:
    """q = softmax(cos(z, C) / 0.05) with cos = (1 / sqrt 2, 0, 2 / sqrt 6)."""
    z, prototypes = exact([[1, 0, 1]]), exact([[1, 0, 0], [0, 1, 0], [1, 1, 1]])
    close(similarity_logits(z, prototypes, 1.0), [[0.707106781, 0.0, 0.816496581]])
    q = semantic_scores(z, prototypes, torch.ones(3, dtype=torch.bool), 0.05)
    close(q, [[0.100851771205, 7.275e-08, 0.899148156045]], atol=6e-12)


def test_the_worked_example_of_the_alignment_loss() -> None:
    """H((.7, .2, .1), (.5, .3, .2)) = -.7 ln .5 - .2 ln .3 - .1 ln .2"""
    close(alignment_loss(exact([[0.7, 0.2, 0.1]]), exact([[0.5, 0.3, 0.2]]).log(), 1), 0.886941379)
    two = exact([[0.7, 0.2, 0.1], [0, 1, 0]]), exact([[0.5, 0.3, 0.2]] * 2).log()
    close(alignment_loss(*two, 2), (0.886941379 - np.log(0.3)) / 2)
    close(alignment_loss(*two, 10), (0.886941379 - np.log(0.3)) / 10)


shares = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(lambda own: np.array(own) / sum(own))


@given(shares, shares, st.lists(st.integers(0, 1000), min_size=3, max_size=3), st.sampled_from([0.3, 1.5]))
@settings(max_examples=50, deadline=None)
def test_blended_rows_are_the_formulas_and_keep_their_sum_and_their_background(
    p: Any, other: Any, counts: list[int], temperature: float
) -> None:
    """cond = p / (1 - P_bg); k' = argmax cond; cond' = (1 - upsilon_k') cond + upsilon_k' q; p' = cond' (1 - P_bg)."""
    q = other[:3] / other[:3].sum()
    upsilon = blending_weights(exact(counts), temperature)
    found = blend(exact(p)[None], exact(q)[None], upsilon)[0]
    powers = np.array(counts, float) ** (1 / temperature)
    expected_upsilon = powers / powers.max() if sum(counts) else np.zeros(3)
    np.testing.assert_allclose(upsilon, expected_upsilon, rtol=1e-9, atol=1e-300)
    assert upsilon.max() == (1 if sum(counts) else 0)
    conditional = p[:3] / (1 - p[3])
    share = expected_upsilon[conditional.argmax()]
    np.testing.assert_allclose(found[:3], ((1 - share) * conditional + share * q) * (1 - p[3]), rtol=1e-9)
    assert found[3] == p[3]
    assert found.sum() == pytest.approx(1, abs=1e-12)


def test_an_even_histogram_replaces_all_by_the_semantic_scores_and_an_empty_one_nothing() -> None:
    torch.testing.assert_close(blend(exact(P), exact(Q), blending_weights(exact([7, 7, 7]), 0.3))[:, :3].T,
                               exact(Q).T * exact([0.9, 0.8]), rtol=0, atol=1e-15)  # fmt: skip
    torch.testing.assert_close(blend(exact(P), exact(Q), blending_weights(exact([0, 0, 0]), 0.3)), exact(P))


def test_classes_without_a_prototype_get_nothing_and_the_rest_is_renormalised() -> None:
    z, prototypes = exact([[1, 0, 1], [0, 2, 0]]), exact([[1, 0, 0], [0, 1, 0], [1, 1, 1]])
    whole = semantic_scores(z, prototypes, torch.tensor([True, True, True]), 0.5)
    part = semantic_scores(z, prototypes, torch.tensor([True, False, True]), 0.5)
    expected = whole * exact([1, 0, 1])
    torch.testing.assert_close(part, expected / expected.sum(dim=1, keepdim=True))


def test_features_and_prototypes_of_zero_are_safe() -> None:
    z = torch.zeros(2, 3, requires_grad=True)
    logits = similarity_logits(z.relu(), torch.tensor([[1.0, 0, 0], [0, 0, 0]]), 0.05)
    assert logits.tolist() == [[0, 0], [0, 0]]
    loss = alignment_loss(torch.tensor([[0.9, 0.1]] * 2), logits, 2)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert torch.isfinite(z.grad).all()  # type: ignore[arg-type]


def test_mixed_precision_does_not_coarsen_the_similarities() -> None:
    torch.manual_seed(0)
    z, prototypes = torch.randn(20, 32), torch.randn(5, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity_logits(z, prototypes, 0.05)
    assert torch.equal(found, similarity_logits(z, prototypes, 0.05))


# Queues.

batches = st.lists(st.lists(st.integers(0, 2), max_size=9), max_size=6)


@given(batches)
@settings(max_examples=60, deadline=None)
def test_a_queue_keeps_the_last_features_of_its_class(steps: list[list[int]]) -> None:
    """A deque of 4 per class; C_k is its mean."""
    queue, pushed = torch.zeros(3, 4, 2), torch.zeros(3, dtype=torch.int64)
    expected: list[deque[float]] = [deque(maxlen=4) for _ in range(3)]
    value = 0.0
    for labels in steps:
        values = []
        for label in labels:
            value += 1
            values.append(value)
            expected[label].append(value)
        push(queue, pushed, exact(values).float()[:, None].expand(-1, 2), torch.tensor(labels, dtype=torch.int64))
    for k, own in enumerate(expected):
        assert sorted(queue[k, :, 0][queue[k, :, 0] > 0].tolist()) == list(own)
        assert len(own) == min(int(pushed[k]), 4)
    means = [sum(own) / len(own) if own else 0.0 for own in expected]
    torch.testing.assert_close(mean_features(queue, pushed), torch.tensor(means)[:, None].expand(-1, 2))


# The parts of a run, without a detector.


def filled(**fields: Any) -> Daso:
    """Prototypes of all classes but the last, and a histogram (6, 3, 1, 0)."""
    parts = daso(**fields)
    for iteration in range(5):
        labels = [0] * 6 + [1] * 3 + [2] if iteration == 0 else []
        iterate(parts, iteration, [regions(iteration, [0, 1, 2])], [detections(labels)])
    return parts


SCORES = torch.tensor([[0.5, 0.1, 0.1, 0.1, 0.2], [0.1, 0.1, 0.1, 0.5, 0.2], [0.02, 0.01, 0.01, 0.0, 0.96]])


def test_scores_are_blended_with_the_prototypes_of_the_labelled_boxes() -> None:
    parts, features = filled(), regions(9, [0] * 3).features
    context = Context(5, 40, branch="teacher")
    found = parts.score_transform(SCORES, features, context)
    queue = torch.stack([torch.stack([regions(i, [0, 1, 2]).features[k] for i in range(5)]) for k in range(3)])
    prototypes = queue.to(torch.float16).double().mean(dim=1)
    cosines = torch.nn.functional.cosine_similarity(features[:1].double(), prototypes)
    q = (cosines / 0.05).softmax(dim=0)
    torch.testing.assert_close(found[0, :3].double(), q * 0.8, rtol=1e-4, atol=1e-6)  # upsilon_0 = 1
    assert found[0, 3] == 0  # no prototype
    assert found[0, 4] == SCORES[0, 4]
    assert torch.equal(found[1], SCORES[1])  # upsilon_3 = 0: a class that no pseudo label has
    assert torch.equal(found[2], SCORES[2])  # its foreground is below the score floor
    assert context.logs["relabelled"] == (0.0 if q.argmax() == 0 else 0.5)


def test_without_prototype_histogram_or_in_the_warm_up_nothing_is_blended_or_aligned() -> None:
    features, student = regions(9, [0] * 3), torch.rand(3, 32, requires_grad=True)
    fresh, no_histogram, no_queue = daso(), daso(), daso()
    iterate(no_histogram, 0, [regions(0, [0, 1, 2])])
    for iteration in range(5):
        iterate(no_queue, iteration, found=[detections([0, 1])])
    assert no_queue.distribution.tolist() == [5, 5, 0, 0]
    for parts, iteration in ((fresh, 39), (no_histogram, 39), (no_queue, 39), (filled(iterations=4000), 79)):
        context = Context(iteration, 4000 if iteration == 79 else 40)
        assert torch.equal(parts.score_transform(SCORES, features.features, context), SCORES)
        if parts is not no_histogram:
            loss = parts.extra_losses(features, student, context)["loss_align"]
            assert loss.item() == 0
            assert loss.requires_grad  # a rank without detections takes part in the gradients' exchange
    late = filled(iterations=4000)
    late.distribution.fill_(1)
    assert not torch.equal(late.score_transform(SCORES, features.features, Context(80, 4000)), SCORES)
    waiting = filled(iterations=4000, settings=replace(TINY, unsup_start=0.25))
    waiting.distribution.fill_(1)
    for iteration, same in ((1079, True), (1080, False)):
        found = waiting.score_transform(SCORES, features.features, Context(iteration, 4000))
        assert torch.equal(found, SCORES) == same


def test_the_alignment_loss_moves_the_students_features_only() -> None:
    parts = filled()
    teacher = Regions(regions(3, [0, 1, 3]).features.requires_grad_(), torch.tensor([0, 1, 3]))
    student = regions(4, [0, 1, 3]).features.requires_grad_()
    loss = parts.extra_losses(teacher, student, Context(5, 40))["loss_align"]
    loss.backward()
    q = semantic_scores(teacher.features.detach(), parts.prototypes, parts.pushed > 0, 0.05)
    own = semantic_scores(student.detach(), parts.prototypes, parts.pushed > 0, 0.05)
    expected = -(q[:, :3] * own[:, :3].log()).sum(dim=1)
    classified = TINY.unlabelled_per_gpu * TINY.roi_samples
    assert classified > 3
    torch.testing.assert_close(loss.detach(), expected.sum() / classified)
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.features.grad is None
    over_all = filled(variant={"aligned": "proposals"}).extra_losses(teacher, student, Context(5, 40))["loss_align"]
    torch.testing.assert_close(over_all.detach(), expected.mean())
    nothing = Regions(torch.zeros(0, 32), torch.zeros(0, dtype=torch.int64))
    assert parts.extra_losses(nothing, student[:0], Context(5, 40))["loss_align"].item() == 0


def test_a_histogram_holds_one_window_of_confident_labels() -> None:
    parts, logs = daso(), []
    for iteration in range(12):
        found = [detections([0, 1], [0.7, 0.1])] if iteration < 5 else [detections([2, 2, 3])]
        logs.append(iterate(parts, iteration, found=found))
        if iteration == 3:
            assert not parts.distribution.any()
        if iteration in {4, 8}:
            assert parts.distribution.tolist() == [5, 0, 0, 0]  # 0.1 is not above the initial threshold
    assert parts.distribution.tolist() == [0, 0, 10, 5]
    assert parts.window.tolist() == [0, 0, 4, 2]
    assert [log["upsilon_mean_maj"].item() for log in logs[3:6]] == [0, 0.5, 0.5]
    assert logs[-1]["upsilon_mean_min"].item() == pytest.approx((1 + 0.5 ** (1 / 0.3)) / 2)


def test_unlabelled_images_that_start_late_leave_the_histogram_empty_until_then() -> None:
    parts = daso()
    for iteration in range(23):
        iterate(parts, iteration, [regions(iteration, [0])], [detections([1])] if iteration >= 18 else [])
        assert parts.distribution.tolist() == ([0, 2, 0, 0] if iteration >= 19 else [0, 0, 0, 0])


def test_features_that_are_not_finite_never_enter_a_queue() -> None:
    parts = daso()
    broken = regions(0, [0, 1, 2])
    broken.features[1, 3], broken.features[2, 0] = torch.nan, 1e6  # too large for half precision
    log = iterate(parts, 0, [broken, regions(1, [1])], [detections([0, 1], [torch.nan, 0.7])])
    assert parts.pushed.tolist() == [1, 1, 0, 0]
    assert all(torch.isfinite(value).all() for value in parts.state_dict().values())
    assert parts.window.tolist() == [0, 1, 0, 0]
    assert log["queue_filled"].item() == pytest.approx(2 / (4 * 32))


# Constants.


@pytest.mark.parametrize(
    ("task", "temperature"),
    [
        ("coco-split1", 0.3),
        ("coco-split2", 0.3),
        ("coco-o365", 0.3),
        ("toy", 0.3),
        ("lvis", 1.5),
        ("toy-longtail", 1.5),
    ],
)
def test_t_dist_tells_whether_both_sources_are_distributed_alike(task: str, temperature: float) -> None:
    assert daso(task=load_task(task)).constants.dist_temperature == temperature
    other = METHOD.variants[f"t-dist-{1.8 - temperature:.1f}"]
    assert daso(task=load_task(task), variant=other).constants.dist_temperature == pytest.approx(1.8 - temperature)


def test_windows_and_queues_are_shorter_in_short_runs_and_queues_with_many_classes() -> None:
    assert [window_for(t) for t in (8, 20, 900, 5000, 180_000)] == [5, 5, 18, 100, 100]
    assert daso(iterations=180_000).departures() == {}
    assert [queue_for(t, 80) for t in (20, 900, 45_000, 180_000, 360_000)] == [32, 32, 64, 256, 256]
    assert [queue_for(t, 1203) for t in (900, 45_000, 360_000)] == [32, 64, 64]
    assert daso(iterations=900).departures() == {"daso.queue": [256, 32], "daso.window": [100, 18]}
    classes = tuple(map(str, range(1203)))
    many = daso(iterations=180_000, classes=classes, groups={"f": classes})
    assert many.departures() == {"daso.queue": [256, 64]}
    assert many.queue.shape == (1203, 64, 32)


def test_listing_shows_the_papers_numbers_and_the_labelled_images_are_repeated() -> None:
    assert list_methods()["daso"].literals["reported"] == METHOD.reported
    assert METHOD.reported["coco-split1"] == {"all": 24.8, "maj": 31.1, "min": 6.0}
    rare = ((0,),) * 99 + ((1,),)
    copies = daso(task=tiny_task(repeat_threshold=0.1), labelled_classes=rare).copies(Context(0, 40))
    assert copies.keys() == {0}
    assert copies[0].tolist() == labelled_copies(rare, 4, 0.1).tolist() == [1] * 99 + [4]
