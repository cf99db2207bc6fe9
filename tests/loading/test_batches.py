"""Which images are scored together: those of one padded size, near their places, whatever the number of ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cissod_bench.contract.presets import MINI
from cissod_bench.contract.settings import FULL
from cissod_bench.loading import batches as module
from cissod_bench.loading.batches import Batches, Chosen, InOrder, arranged, divisor_of, padded_sizes


def drawn_sizes(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 900, (number, 2)).astype(np.int32)


def parts(batches: Batches) -> list[list[int]]:
    return [batches.rows[batches.span(number)].tolist() for number in range(len(batches))]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_every_image_is_in_one_batch_of_its_padded_size_and_within_a_window_of_its_place(size: int) -> None:
    padded = padded_sizes(drawn_sizes(500), FULL, 256)
    indices = np.random.default_rng(1).permutation(500)[:301].tolist()
    batches = arranged(indices, padded, size)
    assert sorted(batches.rows.tolist()) == sorted(indices)
    assert [indices[place] for place in batches.places] == batches.rows.tolist()
    for rows in parts(batches):
        assert 1 <= len(rows) <= size
        assert len({tuple(padded[row]) for row in rows}) == 1
    assert np.abs(batches.places - np.arange(301)).max() < module.WINDOW * size
    if size == 1:
        assert batches.rows.tolist() == indices, "alone, none changes its place"
    else:
        assert len(batches) < 301


def test_a_limit_of_pixels_makes_small_batches_of_large_images() -> None:
    padded = np.array([[64, 64]] * 8 + [[128, 128]] * 3 + [[512, 512]] * 2)
    batches = arranged(range(13), padded, 8, pixels=2 * 128 * 128)
    assert parts(batches) == [[*range(8)], [8, 9], [10], [11], [12]]


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1)])
def test_a_side_has_a_pixel_at_least_however_thin_the_image(size: tuple[int, int]) -> None:
    padded = padded_sizes(np.array([size]), replace(MINI, long_side=100, test_short_side=80), 32)
    assert (padded >= 32).all()
    assert parts(arranged([0], padded, 4, pixels=100)) == [[0]]


def test_no_image_makes_no_batch() -> None:
    assert len(arranged([], padded_sizes(drawn_sizes(3), FULL, 32), 4)) == 0


def test_the_padded_size_is_that_of_the_view() -> None:
    mmcv = pytest.importorskip("mmcv")
    sizes = drawn_sizes(400)
    for settings in (FULL, MINI, replace(MINI, long_side=100, test_short_side=200)):
        scale = (settings.long_side, settings.test_short_side)
        expected = [mmcv.rescale_size((int(w), int(h)), scale) for w, h in sizes]
        assert padded_sizes(sizes, settings, 1).tolist() == [list(size) for size in expected]
        assert (padded_sizes(sizes, settings, 32) % 32 == 0).all()
        assert (padded_sizes(sizes, settings, 32) - padded_sizes(sizes, settings, 1) < 32).all()


def test_where_group_norm_has_counted_padding_in_training_all_are_scored_on_one_square() -> None:
    toy = np.array([(128, 96), (96, 128), (112, 112), (128, 112)])
    assert divisor_of(toy, MINI, 32) == 128
    assert padded_sizes(toy, MINI, 128).tolist() == [[128, 128]] * 4
    assert divisor_of(toy, replace(MINI, norm="frozen-bn"), 32) == 32
    assert divisor_of(toy, replace(MINI, group_by_aspect=True), 32) == 32
    assert divisor_of(toy[:0], MINI, 32) == 32


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_batches_of_all_ranks_are_those_of_one_and_come_back_in_order(ranks: int) -> None:
    padded = padded_sizes(drawn_sizes(101), FULL, 512)
    batches = arranged(range(101), padded, 4)
    shares = [range(rank, len(batches), ranks) for rank in range(ranks)]
    drawn = [[[draw.index for draw in draws] for draws in Chosen(batches, share)] for share in shares]
    assert sorted(rows for own in drawn for rows in own) == sorted(parts(batches))
    assert [len(Chosen(batches, share)) for share in shares] == [len(own) for own in drawn]
    held, order = InOrder[int](), list[int]()
    for share in reversed(shares):
        for number in share:
            for place in batches.places[batches.span(number)].tolist():
                held.add(place, None if place == 50 else place)
            order += held.ready()
    assert order == [place for place in range(101) if place != 50]
