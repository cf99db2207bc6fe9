"""GbT (Eq. 9), theta^c and LabelMatch: worked numbers, order and rank independence, ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cissod_bench import distributed
from cissod_bench.contract.parts import Detections
from method import gbt, labelmatch
from method.profiles import DEFAULT, OFFICIAL, Profile

WEIGHTS = torch.tensor([0.5, 1.0, 1.25, 2.0, 5.0], dtype=torch.float64)
SCORES = torch.tensor([0.40, 0.30, 0.20, 0.08, 0.02], dtype=torch.float64)
THETA = 0.9

positive = st.floats(0.01, 100)


def close(found: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def seen(*detections: tuple[int, float], index: int = 0) -> Detections:
    """The detections (label, score) of one image."""
    labels = torch.tensor([label for label, _ in detections], dtype=torch.int64)
    scores = torch.tensor([score for _, score in detections], dtype=torch.float64)
    return Detections(index, index, torch.zeros(len(detections), 4), labels, scores)


def test_worked_thresholds() -> None:
    by_weight = gbt.weight_thresholds(WEIGHTS, THETA)
    by_score = gbt.score_thresholds(SCORES, THETA)
    close(by_weight, [0.9, 0.9, 0.72, 0.45, 0.18])
    close(by_score, [1.8, 1.35, 0.9, 0.36, 0.09])
    close(gbt.final_thresholds(THETA, 0.5, by_weight, by_score), [0.9, 0.9, 0.72, 0.5, 0.5])
    close(gbt.final_thresholds(THETA, 0.5, by_weight), [0.9, 0.9, 0.72, 0.5, 0.5])
    close(gbt.final_thresholds(THETA, 0.5, by_score), [0.9, 0.9, 0.9, 0.5, 0.5])


@given(st.lists(positive, min_size=1, max_size=20), st.lists(st.floats(0, 1), min_size=20, max_size=20))
def test_thresholds_stay_between_the_initial_and_the_fixed_one(weights: list[float], scores: list[float]) -> None:
    by_weight = gbt.weight_thresholds(torch.tensor(weights, dtype=torch.float64), THETA)
    by_score = gbt.score_thresholds(torch.tensor(scores[: len(weights)], dtype=torch.float64), THETA)
    found = gbt.final_thresholds(THETA, 0.5, by_weight, by_score)
    assert ((found >= 0.5) & (found <= 0.9)).all()


@given(positive, positive)
def test_a_larger_weight_never_raises_the_threshold(one: float, other: float) -> None:
    low, high = gbt.weight_thresholds(torch.tensor(sorted([one, other], reverse=True), dtype=torch.float64), THETA)
    assert low <= high <= THETA


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20), st.floats(0.01, 100))
def test_scaling_all_scores_leaves_the_score_thresholds_alone(scores: list[float], scale: float) -> None:
    own = torch.tensor(scores, dtype=torch.float64)
    close(gbt.score_thresholds(scale * own, THETA), gbt.score_thresholds(own, THETA), 1e-9)


def test_equal_weights_and_scores_give_the_fixed_threshold() -> None:
    for score in (0.0, 0.3):
        by_score = gbt.score_thresholds(torch.full((4,), score), THETA)
        found = gbt.final_thresholds(THETA, 0.5, gbt.weight_thresholds(torch.ones(4), THETA), by_score)
        close(found, [THETA] * 4, 1e-6)


def test_a_class_without_detections_falls_to_the_initial_threshold() -> None:
    by_score = gbt.score_thresholds(torch.tensor([0.4, 0.0]), THETA)
    close(gbt.final_thresholds(THETA, 0.5, by_score), [0.9, 0.5], 1e-6)


def running(scores: Sequence[float], start: float, count: int, **fields: Any) -> float:
    """The running score after one batch of detections of one class."""
    fields = {"momentum": 0.9995, "warmup": 1000, **fields}
    numbers = (torch.tensor([value], dtype=torch.float64) for value in (start, count, len(scores), sum(scores)))
    return float(gbt.running_scores(*numbers, **fields))


def test_a_batch_moves_the_running_score_almost_as_its_detections_one_by_one() -> None:
    detections, sequential = [0.9, 0.6, 0.8, 0.3], 0.5
    for score in detections:
        sequential = 0.9995 * sequential + 0.0005 * score
    assert sequential == pytest.approx(0.500299575162, abs=1e-12)
    assert running(detections, 0.5, 5000) == pytest.approx(0.500299775075, abs=1e-12)


def test_the_running_score_starts_as_the_plain_mean() -> None:
    assert running([0.9, 0.6], 0.0, 0) == pytest.approx(0.75)
    assert running([0.3], 0.75, 2) == pytest.approx(0.6)
    assert running([], 0.6, 3) == 0.6
    assert running([0.2], 0.6, 999) == pytest.approx(0.5996)  # the last of the plain mean
    assert running([0.2], 0.6, 1000) == pytest.approx(0.5998)
    assert running([0.9, 0.6, 0.8], 0.0, 0, summed_start=True) == pytest.approx(0.0023)


def scores_after(detections: Sequence[Sequence[Detections]], profile: Profile = DEFAULT) -> gbt.RunningScores:
    """The state after iterations in which the images of the inner lists were seen."""
    state = gbt.RunningScores(3, profile.gbt).double()
    for iteration, images in enumerate(detections):
        sums = torch.zeros(state.size, dtype=torch.float64)
        state.collect(sums, images)
        state.update(sums, iteration)
    return state


boxes = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=12)


@given(st.lists(boxes, min_size=2, max_size=5), st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_order_of_detections_and_their_images_change_nothing(images: list[list[Any]], random: Any) -> None:
    one = scores_after([[seen(*image) for image in images]] * 2)
    flat = [detection for image in images for detection in image]
    other = scores_after([[seen(*random.sample(flat, len(flat))), seen()]] * 2)
    close(one.scores, other.scores)
    assert torch.equal(one.counts, other.counts)


@pytest.mark.parametrize("profile", [DEFAULT, OFFICIAL], ids=["default", "official"])
def test_running_scores_do_not_depend_on_how_images_are_spread_over_ranks(profile: Profile) -> None:
    rng = np.random.default_rng(0)
    whole = gbt.RunningScores(3, profile.gbt).double()
    ranks = [gbt.RunningScores(3, profile.gbt).double() for _ in range(2)]
    for iteration in range(20):
        images = [seen(*zip(rng.integers(0, 3, 9).tolist(), rng.random(9).tolist(), strict=True)) for _ in range(5)]
        sums = torch.zeros(3, whole.size, dtype=torch.float64)
        for own, (state, part) in zip(
            sums, [(whole, images), (ranks[0], images[:2]), (ranks[1], images[2:])], strict=True
        ):
            state.collect(own, part)
        whole.update(sums[0], iteration)
        for state in ranks:
            state.update(sums[1] + sums[2], iteration)
    for state in ranks:
        close(state.scores, whole.scores)
    assert whole.counts.sum() > 500


@pytest.mark.parametrize("ranks", [2, 8])
def test_official_scores_move_with_eight_ranks_as_fast_as_with_one_and_default_scores_with_all_detections(
    monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    """The release keeps a score a rank: as many detections on each of 8 GPUs move it as on one."""
    images = [seen((0, 0.9), (0, 0.7), (1, 0.4)), seen((2, 0.6), (0, 0.3))]
    one = scores_after([images] * 400, OFFICIAL)  # class 0 passes the start of 1000 detections
    assert one.counts[0] > OFFICIAL.gbt.score_warmup > one.counts[1]
    alone = scores_after([images] * 40)
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    whole = [images * ranks]  # what all ranks have found, summed
    close(scores_after(whole * 400, OFFICIAL).scores, one.scores, 1e-9)
    assert scores_after(whole * 40).counts.tolist() == (alone.counts * ranks).tolist()


def test_scores_at_or_below_the_floor_are_not_counted() -> None:
    state = scores_after([[seen((0, 0.05), (0, 0.5), (1, 0.01))]])
    assert state.counts.tolist() == [1, 0, 0]
    close(state.scores, [0.5, 0, 0])


def test_labelmatch_expects_the_labelled_boxes_shares_among_the_unlabelled_images() -> None:
    """Box counts follow from the worked q of split 1: 39664 boxes in 10170 images, N_ref = 10000."""
    counts = torch.tensor([2084, 653, 10, 24], dtype=torch.float64)
    rest = torch.tensor([39664 - counts.sum()], dtype=torch.float64)
    expected = labelmatch.expected_boxes(torch.cat([counts, rest]), 10170, torch.tensor(10000))
    close(expected[:4], [2049.164208, 642.084562, 9.832842, 23.59882], 1e-6)
    assert labelmatch.ranks_of(expected)[:4].tolist() == [409, 128, 1, 4]


def test_labelmatch_counts_a_class_without_boxes_as_one() -> None:
    expected = labelmatch.expected_boxes(torch.tensor([9.0, 0.0]), 5, torch.tensor(100))
    assert expected[1] == pytest.approx(100 * 9 / 5 / 10)


@given(st.lists(st.lists(st.floats(0.051, 1), max_size=30), min_size=1, max_size=4), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_labelmatch_reads_the_score_of_a_rank_off_the_histogram(scores: list[list[float]], rank: int) -> None:
    histogram = torch.zeros(len(scores), 1000, dtype=torch.int64)
    for row, own in zip(histogram, scores, strict=True):
        for score in own:
            row[min(int(score * 1000), 999)] += 1
    found = labelmatch.thresholds_from_histogram(histogram, torch.full((len(scores),), rank))
    for threshold, own in zip(found, scores, strict=True):
        best_first = sorted(own, reverse=True)
        expected = max(0.05, best_first[min(rank, len(own) - 1)]) if own else 0.05
        assert expected - 0.001 - 1e-6 <= float(threshold) <= expected + 1e-6


def fed(state: labelmatch.LabelMatch, iterations: int, images: Any) -> labelmatch.LabelMatch:
    for iteration in range(iterations):
        sums = torch.zeros(state.size)
        state.collect(sums, images(iteration))
        state.update(sums, iteration)
    return state


def test_labelmatch_forgets_what_left_its_window() -> None:
    state = labelmatch.LabelMatch([5, 5], 10, 0.9, iterations=180)  # window: 100 iterations
    fed(state, 150, lambda i: [seen((0, 0.95), (1, 0.3))])
    assert 80 <= int(state.images.sum()) <= 115
    old = int(state.ring[:, 0, 950].sum())
    assert old == int(state.images.sum())
    fed(state, 150, lambda i: [seen((0, 0.65))])
    assert int(state.ring[:, 0, 950].sum()) == 0
    close(state.theta, [0.65, 0.05], 1e-3)


def test_labelmatch_keeps_theta_until_the_first_unlabelled_images() -> None:
    state = labelmatch.LabelMatch([5, 5], 10, 0.9, iterations=180)
    for iteration in range(3):
        state.update(torch.zeros(state.size), iteration)
    close(state.theta, [0.9, 0.9], 1e-6)
    fed(state, 1, lambda i: [seen((0, 0.65))])
    close(state.theta, [0.65, 0.05], 1e-3)


def test_labelmatch_looks_at_the_scores_every_1000_iterations_of_the_papers_run() -> None:
    state = labelmatch.LabelMatch([5, 5], 10, 0.9, iterations=180_000)
    for iteration, theta in ((1, 0.9), (999, 0.9), (1000, 0.65)):
        sums = torch.zeros(state.size)
        state.collect(sums, [seen((0, 0.65))])
        state.update(sums, iteration)
        close(state.theta[0], theta, 1e-3)


def test_labelmatchs_state_does_not_depend_on_how_images_are_spread_over_ranks() -> None:
    rng = np.random.default_rng(1)
    images = [
        [seen(*zip(rng.integers(0, 2, 6).tolist(), rng.random(6).tolist(), strict=True)) for _ in range(4)]
        for _ in range(9)
    ]
    whole = labelmatch.LabelMatch([5, 50], 10, 0.9, iterations=100)
    rank = labelmatch.LabelMatch([5, 50], 10, 0.9, iterations=100)
    fed(whole, 9, lambda i: images[i])
    for iteration, own in enumerate(images):
        sums = torch.zeros(2, rank.size)
        rank.collect(sums[0], own[:1])
        rank.collect(sums[1], own[1:])
        rank.update(sums.sum(0), iteration)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rank.state_dict()[name]), name
    assert 0.5 < whole.theta.min() < 0.9
