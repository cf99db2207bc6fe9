"""The two-source sampler: complete passes, rank partition, copies, exact position at any iteration."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cissod_bench.loading.sampler import TwoSourceSampler


def drawn(sampler: TwoSourceSampler, begin: int, end: int, source: int) -> list[int]:
    return [d.index for batch in sampler.batches(begin, end) for d in batch if d.source == source]


def test_every_batch_takes_one_labelled_and_four_unlabelled_images() -> None:
    sampler = TwoSourceSampler((7, 23), (1, 4), seed=0)
    for batch in sampler.batches(0, 50):
        assert [d.source for d in batch] == [0, 1, 1, 1, 1]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_each_pass_shows_every_image_once(size: int, number: int, seed: int) -> None:
    sampler = TwoSourceSampler((size,), (number,), seed=seed)
    indices = drawn(sampler, 0, size * 3, 0)
    for at in range(0, len(indices) - size + 1, size):
        assert sorted(indices[at : at + size]) == list(range(size))


def test_copies_repeat_an_image_that_often_and_zero_leaves_it_out() -> None:
    sampler = TwoSourceSampler((4,), (1,), seed=3)
    sampler.set_copies({0: np.array([1, 0, 3, 2], np.int32)}, generation=1, start=10)
    assert Counter(drawn(sampler, 10, 16, 0)) == {0: 1, 2: 3, 3: 2}


def test_passes_are_shuffled_differently() -> None:
    sampler = TwoSourceSampler((50,), (1,), seed=0)
    assert drawn(sampler, 0, 50, 0) != drawn(sampler, 50, 100, 0)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_ranks_together_draw_what_one_process_with_their_images_draws(world_size: int, grouped: bool) -> None:
    aspects = [np.arange(11) % 2, np.arange(40) % 3 % 2] if grouped else None
    ranks = [TwoSourceSampler((11, 40), (1, 2), 5, rank, world_size, aspects) for rank in range(world_size)]
    one = TwoSourceSampler((11, 40), (world_size, 2 * world_size), 5, aspects=aspects)
    for iteration in range(60):
        together = sorted((d.source, d.index) for rank in ranks for d in rank.batch(iteration))
        assert together == sorted((d.source, d.index) for d in one.batch(iteration))


def test_an_iteration_is_the_same_however_it_is_reached() -> None:
    straight = TwoSourceSampler((9, 31), (1, 4), seed=1, aspects=[np.arange(9) % 2, np.arange(31) % 2])
    batches = list(straight.batches(0, 40))
    jumped = TwoSourceSampler((9, 31), (1, 4), seed=1, aspects=[np.arange(9) % 2, np.arange(31) % 2])
    assert jumped.batch(37) == batches[37]
    assert list(jumped.batches(20, 40)) == batches[20:]


def test_a_source_with_one_orientation_or_one_image_is_drawn_from() -> None:
    aspects = [np.zeros(1, np.int8), np.ones(5, np.int8)]
    sampler = TwoSourceSampler((1, 5), (1, 4), seed=0, aspects=aspects)
    assert drawn(sampler, 0, 3, 0) == [0, 0, 0]
    assert sorted(drawn(sampler, 0, 5, 1)) == sorted(list(range(5)) * 4)


def test_a_source_fills_its_images_of_an_iteration_with_one_orientation() -> None:
    aspects = np.arange(40, dtype=np.int8) % 2
    sampler = TwoSourceSampler((40,), (4,), seed=2, aspects=[aspects])
    seen = set()
    for batch in sampler.batches(0, 60):
        (group,) = {int(aspects[d.index]) for d in batch}
        seen.add(group)
    assert seen == {0, 1}


def test_augmentation_keys_never_repeat() -> None:
    ranks = [TwoSourceSampler((5, 20), (1, 4), 0, rank, 2) for rank in range(2)]
    keys = [d.key for rank in ranks for batch in rank.batches(0, 100) for d in batch]
    assert len(set(keys)) == len(keys)


def test_seeds_and_generations_change_the_order() -> None:
    first, other = (TwoSourceSampler((50,), (1,), seed=s) for s in (0, 1))
    start = drawn(first, 0, 50, 0)
    assert start != drawn(other, 0, 50, 0)
    first.set_copies({}, generation=1, start=0)
    assert start != drawn(first, 0, 50, 0)


@pytest.mark.parametrize("copies", [[1, 1], [1, -1, 1], [0, 0, 0]])
def test_copies_that_do_not_fit_are_refused(copies: list[int]) -> None:
    sampler = TwoSourceSampler((3,), (1,), seed=0)
    with pytest.raises(ValueError, match="Copies of source 0 must be 3 integers"):
        sampler.set_copies({0: np.array(copies)}, generation=1, start=0)


def test_an_empty_source_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Source 1 has no image"):
        TwoSourceSampler((3, 0), (1, 4), seed=0)
