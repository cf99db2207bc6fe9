"""Repeat factors: worked numbers, their invariants, and the RFS baseline's copies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_task, tiny_training

from cissod_bench.catalogue import load_method
from cissod_bench.contract.repeat_factors import (
    class_factors,
    copies_of,
    image_factors,
    images_with_class,
    labelled_copies,
)

# MS-COCO split 1: t = 0.1, 10170 labelled images.
IMAGES = {"person": 170, "train": 8, "sheep": 2, "toaster": 24, "cup": 936, "bench": 578, "dining table": 30}
FACTORS = (2.445884899, 11.274972284, 22.549944568, 6.509608283, 1.042371556, 1.326467328, 5.822370651)

images = st.lists(st.lists(st.integers(0, 4), max_size=4).map(lambda c: tuple(sorted(set(c)))), min_size=1, max_size=40)


def reference(classes_of_images: list[tuple[int, ...]], threshold: float) -> list[float]:
    """r_i, as the formula reads: max over the image's classes of max(1, sqrt(t / f_c))."""
    count = Counter(channel for classes in classes_of_images for channel in classes)
    return [
        max([1.0, *(max(1.0, (threshold / (count[c] / len(classes_of_images))) ** 0.5) for c in classes)])
        for classes in classes_of_images
    ]


def test_worked_factors_of_split_1() -> None:
    np.testing.assert_allclose(class_factors(list(IMAGES.values()), 10170, 0.1), FACTORS, atol=2e-9)


@given(images, st.floats(0.001, 1))
def test_image_factors_are_the_formulas(classes_of_images: list[tuple[int, ...]], threshold: float) -> None:
    counts = images_with_class(classes_of_images, 5)
    factors = class_factors(counts, len(classes_of_images), threshold)
    found = image_factors(classes_of_images, factors)
    np.testing.assert_allclose(found, reference(classes_of_images, threshold), rtol=1e-12)
    assert (found >= 1).all()
    assert all(r == 1 for r, classes in zip(found, classes_of_images, strict=True) if not classes)


@given(images, st.floats(0.001, 1), st.integers(2, 50))
def test_only_the_shares_matter(classes_of_images: list[tuple[int, ...]], threshold: float, times: int) -> None:
    counts, number = images_with_class(classes_of_images, 5), len(classes_of_images)
    seen = counts > 0
    one, other = class_factors(counts, number, threshold), class_factors(counts * times, number * times, threshold)
    np.testing.assert_allclose(one[seen], other[seen], rtol=1e-12)
    assert (one[seen & (counts / number >= threshold)] <= 1 + 1e-12).all()


@given(images)
def test_an_image_without_boxes_lowers_all_frequencies_by_one_ratio(classes_of_images: list[tuple[int, ...]]) -> None:
    number = len(classes_of_images)
    # With t = 1 a factor is 1 / sqrt(f_c).
    before = class_factors(images_with_class(classes_of_images, 5), number, 1.0) ** -2
    after = class_factors(images_with_class([*classes_of_images, ()], 5), number + 1, 1.0) ** -2
    np.testing.assert_allclose(after, before * number / (number + 1), rtol=1e-12)


def test_a_class_in_no_image_has_a_finite_factor() -> None:
    assert class_factors([0, 1], 100, 0.5).tolist() == class_factors([1, 1], 100, 0.5).tolist()


def test_copies_are_rounded_up_but_not_past_an_integer_by_rounding() -> None:
    factor = class_factors([6], 1800, 0.1 * 3 / 10)  # sqrt(9)
    assert factor[0] > 3
    assert copies_of(factor).tolist() == [3]
    assert copies_of(np.array([1.0, 1.01, 2.0000001, 0.2, 7.5])).tolist() == [1, 2, 3, 1, 8]


def test_labelled_copies_repeat_images_of_rare_classes() -> None:
    rare_once = [(0,)] * 99 + [(0, 1)]
    copies = labelled_copies(rare_once, 2, 0.1)
    assert copies.tolist() == [1] * 99 + [4]  # sqrt(0.1 / 0.01) = 3.16
    assert copies.dtype == np.int32


def test_images_without_any_box_are_drawn_once() -> None:
    assert labelled_copies([(), (), ()], 3, 0.1).tolist() == [1, 1, 1]


def test_rfs_repeats_labelled_images_in_every_generation_and_leaves_the_unlabelled_alone(tmp_path: Path) -> None:
    task = tiny_task(repeat_threshold=1.0)
    training = tiny_training(tmp_path, "rfs", "iterations=2", "generations=2", task=task)
    training.run()
    expected = labelled_copies(training.dataset.sources[0].classes_of_images(), 4, 1.0)
    assert training.position.generation == 1
    assert training.position.copies.keys() == {0}
    np.testing.assert_array_equal(training.position.copies[0], expected)
    assert expected.max() > 1


def test_a_threshold_made_for_80_classes_repeats_little_where_there_are_6() -> None:
    """The minority's copies: MS-COCO split 1 (five of its classes, see above) and voc-animals, split seed 0."""
    many = copies_of(class_factors(list(IMAGES.values()), 10170, 0.1)).tolist()
    assert many == [3, 12, 23, 7, 2, 2, 6]
    few = copies_of(class_factors([105, 84, 61, 9, 6, 3], 228, 0.1)).tolist()  # dog, cat, person; horse, cow, sheep
    assert few == [1, 1, 1, 2, 2, 3]
    assert any("2 to 3 times" in departure for departure in load_method("rfs").departures)


def test_rfs_states_the_papers_numbers() -> None:
    method = load_method("rfs")
    assert method.reported["coco-split1"] == {"all": 23.9, "maj": 30.2, "min": 4.8}
    assert "CVPR 2019" in method.citation
    assert method.images == "semi"


@pytest.mark.parametrize(("task", "threshold"), [("coco-split1", 0.1), ("coco-split2", 0.1)])
def test_the_tasks_state_the_released_thresholds(task: str, threshold: float) -> None:
    from cissod_bench.catalogue import load_task

    assert load_task(task).repeat_threshold == threshold
