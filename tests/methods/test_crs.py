"""CrS (Eq. 10-11): worked numbers, the pool and its merging, independence of ranks and order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cissod_bench import distributed
from cissod_bench.contract.parts import Detections
from cissod_bench.contract.pool import EMPTY, Pool, merge, pool_of
from cissod_bench.contract.repeat_factors import class_factors, copies_of
from method import crs
from method.profiles import DEFAULT, OFFICIAL, Profile

LABELLED, UNLABELLED = 100, 900
LABELLED_COUNTS = [60, 5, 2]
THETA = np.array([0.9, 0.6, 0.5])
POOL = pool_of(
    range(5), [0] * 5, [[(0, 0.95), (1, 0.70)], [(0, 0.99)], [(2, 0.92), (2, 0.65)], [], [(1, 0.8)]]
)  # fmt: skip


def seen(index: int, *boxes: tuple[int, float]) -> Detections:
    labels, scores = torch.tensor([b[0] for b in boxes], dtype=torch.int64), torch.tensor([b[1] for b in boxes])
    return Detections(1000 + index, index, torch.zeros(len(boxes), 4), labels, scores)


def sampling(profile: Profile = DEFAULT, **fields: Any) -> crs.ClassRebalancing:
    fields = {
        "gamma": 0.5, "labelled_counts": LABELLED_COUNTS, "labelled": LABELLED, "unlabelled": UNLABELLED, "floor": 0.5,
        "iterations": 1000, **fields,
    }  # fmt: skip
    return crs.ClassRebalancing(profile.crs, **fields)


def entries(pool: Pool) -> list[tuple[int, int, list[tuple[int, float]]]]:
    """The pool as (image, iteration, boxes)."""
    boxes = np.split(np.stack([pool.labels, pool.scores], axis=1), pool.ends[:-1]) if len(pool.images) else []
    return [
        (int(image), int(iteration), [(int(label), float(score)) for label, score in own])
        for image, iteration, own in zip(pool.images, pool.iterations, boxes, strict=True)
    ]


def test_worked_counts_factors_rates_and_copies() -> None:
    epsilon = crs.sampling_epsilon(0.5, 5, 10)
    counts = crs.images_of_classes(POOL, THETA, LABELLED_COUNTS)
    factors = class_factors(counts, LABELLED + UNLABELLED, epsilon)
    rates = crs.image_rates(POOL, factors, THETA, UNLABELLED)
    assert epsilon == 0.25
    assert counts.tolist() == [62, 7, 3]
    np.testing.assert_allclose(factors, [2.008048322, 5.976143047, 9.128709292], atol=1e-9)
    np.testing.assert_allclose(rates[:5], [0.597614305, 0.180724349, 3.834057903, 0, 1.195228609], atol=1e-6)
    assert copies_of(rates)[:6].tolist() == [1, 1, 4, 1, 2, 1]


def test_worked_numbers_of_the_released_codes_count() -> None:
    state = sampling(OFFICIAL)
    state.keeper.pool = POOL
    copies = state.copies(THETA, 5, 10, since=0)
    # N_u counts the four images with a pseudo label: S = (1, 1.927340877, 2.944061820).
    rates = [0.1 * 1.927340877, 0.09, 0.42 * 2.94406182, 0.0, 0.2 * 1.927340877]
    assert copies[:5].tolist() == [max(1, int(np.ceil(rate))) for rate in rates]
    assert state.numbers["repeat_factor_max"] == pytest.approx(2.94406182, abs=1e-8)


def test_worked_numbers_at_the_scale_of_coco() -> None:
    factor = class_factors([500], 118_287, 0.25)[0]
    assert factor == pytest.approx(7.690481129, abs=1e-9)
    assert factor * (0.95 - 0.6) == pytest.approx(2.691668395, abs=1e-9)


def test_generation_0_draws_every_image_once() -> None:
    state = sampling()
    state.keeper.pool = POOL
    assert (state.copies(THETA, 0, 10, since=0) == 1).all()


@given(st.integers(0, 9), st.integers(1, 5000), st.integers(0, 5000))
def test_factors_rise_with_the_generation_and_fall_with_the_images(t: int, count: int, more: int) -> None:
    now, later = (class_factors([count], 10_000, crs.sampling_epsilon(0.5, g, 10))[0] for g in (t, t + 1))
    assert 1 <= now <= later
    assert class_factors([count + more], 10_000, crs.sampling_epsilon(0.5, t, 10))[0] <= now


def test_boxes_at_the_threshold_count_for_nothing() -> None:
    pool = pool_of([0, 1], [0, 0], [[(2, 0.5)], [(2, 0.75)]])
    assert crs.images_of_classes(pool, THETA, [0, 0, 0]).tolist() == [0, 0, 1]
    np.testing.assert_allclose(crs.image_rates(pool, np.ones(3), THETA, 3), [0, 0.25, 0])


def test_an_image_counts_once_a_class_however_many_boxes_it_has() -> None:
    pool = pool_of([7], [0], [[(2, 0.9), (2, 0.8), (1, 0.7)]])
    assert crs.images_of_classes(pool, THETA, [0, 0, 0]).tolist() == [0, 1, 1]


def test_an_empty_pool_draws_uniformly() -> None:
    assert (sampling().copies(THETA, 9, 10, since=0) == 1).all()


def test_the_latest_look_at_an_image_replaces_the_earlier_one_even_by_nothing() -> None:
    state = sampling()
    state.observe([seen(3, (0, 0.9), (1, 0.4)), seen(5, (1, 0.75))], 10)
    state.observe([seen(3), seen(8, (2, 0.5625))], 11)
    state.share()
    state.observe([seen(5, (2, 0.875))], 12)
    state.share()
    assert entries(state.pool) == [(3, 11, []), (5, 12, [(2, 0.875)]), (8, 11, [(2, 0.5625)])]


def test_detections_at_the_floor_stay_out_of_the_pool() -> None:
    state = sampling()
    state.observe([seen(0, (0, 0.5), (1, 0.51))], 0)
    state.share()
    assert [label for label, _ in entries(state.pool)[0][2]] == [1]


def test_the_released_code_fills_the_pool_after_its_warmup_only() -> None:
    state = sampling(OFFICIAL, iterations=180_000)
    state.observe([seen(0, (0, 0.9))], 11_999)
    state.observe([seen(1, (0, 0.9))], 12_000)
    state.share()
    assert state.pool.images.tolist() == [1]


box = st.tuples(st.integers(0, 2), st.sampled_from([0.5625, 0.75, 0.875]))
look = st.tuples(st.integers(0, 6), st.lists(box, max_size=3))
looks = st.lists(look, min_size=1, max_size=25, unique_by=lambda one: one[0])


@given(st.lists(looks, min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_pool_and_copies_do_not_depend_on_ranks_order_or_when_they_were_shared(windows: list[Any], data: Any) -> None:
    """An iteration shows an image once here; several ranks in any order, sharing now and then or only at the end."""
    one, ranks, merged = sampling(), [sampling() for _ in range(3)], EMPTY
    for iteration, window in enumerate(windows):
        one.observe([seen(index, *boxes) for index, boxes in window], iteration)
        placed: list[list[Detections]] = [[], [], []]
        for index, boxes in data.draw(st.permutations(window)):
            placed[data.draw(st.integers(0, 2))].append(seen(index, *boxes))
        for rank, own in zip(ranks, placed, strict=True):
            if own:
                rank.observe(own, iteration)
        if data.draw(st.booleans()):
            merged = merge([merged, *(rank.keeper.unshared() for rank in ranks)])
    one.share()
    merged = merge([merged, *(rank.keeper.unshared() for rank in ranks)])
    assert entries(merged) == entries(one.pool)
    ranks[0].keeper.pool = merged
    for generation in (1, 9):
        expected = one.copies(THETA, generation, 10, since=0)
        np.testing.assert_array_equal(ranks[0].copies(THETA, generation, 10, since=0), expected)
        assert (expected >= 1).all()


def test_of_two_looks_in_one_iteration_the_lower_ranks_counts() -> None:
    low, high = pool_of([4], [7], [[(0, 0.75)]]), pool_of([4], [7], [[(1, 0.875)]])
    assert entries(merge([EMPTY, low, high])) == [(4, 7, [(0, 0.75)])]
    later = pool_of([4], [8], [[(2, 0.5625)]])
    assert entries(merge([EMPTY, low, high, later])) == [(4, 8, [(2, 0.5625)])]


def test_sharing_gathers_the_looks_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    other = pool_of([2], [5], [[(1, 0.75)]])
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [own, other])
    state = sampling()
    state.observe([seen(1, (0, 0.875))], 5)
    state.share()
    assert [image for image, _, _ in entries(state.pool)] == [1, 2]


def test_pool_and_numbers_survive_a_checkpoint(tmp_path: Any) -> None:
    state = sampling()
    state.observe([seen(3, (0, 0.875), (1, 0.9)), seen(5)], 10)
    state.share()
    state.copies(THETA, 2, 10, since=5)
    state.observe([seen(5, (2, 0.75))], 11)
    torch.save(state.state(), tmp_path / "state.pth")
    again = sampling()
    again.load(torch.load(tmp_path / "state.pth", weights_only=True))
    assert entries(again.pool) == entries(state.pool)
    assert [c.dtype for c in vars(again.pool).values()] == [c.dtype for c in vars(state.pool).values()]
    assert again.numbers == state.numbers
    np.testing.assert_array_equal(again.copies(THETA, 3, 10, since=0), state.copies(THETA, 3, 10, since=0))


def test_coverage_says_which_share_was_seen_at_all_and_in_the_last_generation() -> None:
    state = sampling(unlabelled=10)
    state.observe([seen(0), seen(1)], 3)
    state.observe([seen(2, (2, 0.9))], 8)
    state.share()
    for since, fresh in ((5, 0.1), (8, 0.1), (9, 0.0)):  # iteration 8 is the first of its generation
        state.copies(THETA, 1, 10, since=since)
        assert (state.numbers["pool_coverage"], state.numbers["pool_fresh"]) == (0.3, fresh)


def test_many_iterations_are_kept_in_few_arrays() -> None:
    state = sampling()
    for iteration in range(3000):
        state.observe([seen(iteration % 50, (iteration % 3, 0.75))], iteration)
    assert len(state.keeper._own) == 1
    assert len(state.keeper._fresh) < 256
    state.share()
    assert len(state.pool.images) == 50
    assert state.pool.iterations.min() == 2950
