"""CReST: worked numbers of its rates and of the alignment, the selection's invariants, the labelled images it makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_facts import facts

from baselines.crest import (
    METHOD,
    WINDOW,
    CReST,
    align,
    class_rates,
    promote,
    select,
    target_distribution,
    temperature,
    union_copies,
)
from cissod_bench.catalogue import load_method
from cissod_bench.contract.parts import Context, Detections, Promoted
from cissod_bench.contract.pool import Pool, merge, observed
from cissod_bench.contract.repeat_factors import labelled_copies

# CReST, Eq. 3: mu_l = (N_{L+1-l} / N_1)^alpha with N_1 >= ... >= N_L and alpha = 1/3.
N = (100, 50, 20, 10, 1)
MU = (0.215443469, 0.464158883, 0.584803548, 0.793700526, 1.0)
TARGETS = {
    0: (0.552486, 0.276243, 0.110497, 0.055249, 0.005525),
    1: (0.522862, 0.280195, 0.122833, 0.065824, 0.008287),
    2: (0.491665, 0.282388, 0.135673, 0.077924, 0.012350),
    3: (0.458918, 0.282497, 0.148750, 0.091566, 0.018270),
    4: (0.424670, 0.280178, 0.161685, 0.106672, 0.026795),
    5: (0.389022, 0.275080, 0.173976, 0.123020, 0.038902),
}


def seen(index: int, *boxes: tuple[int, float], side: float = 10.0) -> Detections:
    labels, scores = torch.tensor([b[0] for b in boxes], dtype=torch.int64), torch.tensor([b[1] for b in boxes])
    places = torch.arange(len(boxes), dtype=torch.float32)[:, None] + torch.tensor([index, 0, index + side, side])
    return Detections(1000 + index, index, places, labels, scores)


def pool_with(*images: tuple[tuple[int, float], ...]) -> Pool:
    """The pool after one look at images 0, 1, ... with these (label, score)."""
    return merge([observed([seen(i, *boxes) for i, boxes in enumerate(images)], 0, 0.5, with_boxes=True)])


def test_worked_rates_and_counts() -> None:
    rates = class_rates(N)
    np.testing.assert_allclose(rates, MU, atol=1e-9)
    pool = pool_with(*(tuple((c, 0.91 + 0.0001 * i) for c in range(5)) for i in range(90)))
    chosen = select(pool, rates, 0.9)
    assert np.bincount(pool.labels[chosen], minlength=5).tolist() == [19, 41, 52, 71, 90]


def test_an_exact_product_is_not_rounded_down() -> None:
    pool = pool_with(*(((0, 0.95),) for _ in range(90)))
    rates = np.array([np.nextafter(1 / 3, 0), 1.0])
    assert select(pool, rates, 0.9).sum() == 30


def test_equal_counts_take_everything() -> None:
    assert class_rates((7, 7, 7)).tolist() == [1.0, 1.0, 1.0]


def test_rank_comes_from_sorting_and_ties_stand_in_channel_order() -> None:
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_array_equal(class_rates(np.array(N)[order]), class_rates(N)[order])
    np.testing.assert_allclose(class_rates((8, 8, 1)), [0.5, 1.0, 1.0])
    assert class_rates((8, 0)).tolist() == [0.5, 1.0]  # no box counts as one


@pytest.mark.parametrize("g", TARGETS)
def test_worked_temperatures_and_targets(g: int) -> None:
    """t_g = 1 - (1 - t_min) g / (G - 1), target = N^t / sum N^t."""
    t = temperature(g, 6)
    assert t == pytest.approx(1 - 0.1 * g, abs=1e-12)
    target = target_distribution(torch.tensor(N, dtype=torch.float64), t)
    np.testing.assert_allclose(target, TARGETS[g], atol=6e-7)
    powers = np.array(N, np.float64) ** t
    np.testing.assert_allclose(target, powers / powers.sum(), rtol=1e-12)


def test_a_single_generation_keeps_the_labelled_distribution() -> None:
    assert temperature(0, 1) == 1.0


def test_worked_alignment_moves_the_foreground_only() -> None:
    scores = torch.tensor([[0.42, 0.28, 0.10, 0.20]], dtype=torch.float64)
    target, model = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.7, 0.2, 0.1]))
    aligned = align(scores, target, model)
    np.testing.assert_allclose(aligned[0], [0.260870148, 0.365217389, 0.173912463, 0.20], atol=1e-9)
    assert (scores.argmax(), aligned.argmax()) == (0, 1)
    # q' = q (target + 1e-6) / (model + 1e-6) / its sum, q = P / (1 - P_bg)
    q = scores[:, :3] / 0.8 * (target + 1e-6) / (model + 1e-6)
    torch.testing.assert_close(aligned[:, :3], 0.8 * q / q.sum(), rtol=1e-12, atol=0)


def test_alignment_to_the_models_own_distribution_is_the_identity() -> None:
    torch.manual_seed(0)
    scores = torch.randn(50, 6, dtype=torch.float64).softmax(dim=1)
    model = torch.rand(5, dtype=torch.float64).softmax(dim=0)
    torch.testing.assert_close(align(scores, model, model), scores, rtol=1e-12, atol=0)
    other = align(scores, torch.rand(5, dtype=torch.float64), model)
    torch.testing.assert_close(other.sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert torch.equal(other[:, -1], scores[:, -1])


def test_a_certain_background_stays_finite() -> None:
    scores = torch.tensor([[0.0, 0.0, 1.0]])
    assert align(scores, torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])).tolist() == [[0.0, 0.0, 1.0]]


box = st.tuples(st.integers(0, 3), st.sampled_from([0.5625, 0.75, 0.90625, 0.9375, 0.96875]))
looks = st.lists(st.lists(box, max_size=5), min_size=1, max_size=12)


def reference(images: list[list[tuple[int, float]]], rates: np.ndarray, theta: float) -> list[bool]:
    """The best int(mu_c count_c) boxes of every class c, as it reads."""
    boxes = [
        (label, -score, image, place) for image, own in enumerate(images) for place, (label, score) in enumerate(own)
    ]
    chosen = set()
    for c in range(len(rates)):
        own = sorted(one for one in boxes if one[0] == c and -one[1] > theta)
        chosen |= set(own[: int(rates[c] * len(own) + 1e-9)])
    return [one in chosen for one in boxes]


@given(looks, st.permutations([40, 9, 3, 1]))
@settings(max_examples=30, deadline=None)
def test_the_best_share_of_every_class_is_selected(images: list[list[tuple[int, float]]], counts: list[int]) -> None:
    pool, rates = pool_with(*(tuple(own) for own in images)), class_rates(counts)
    chosen = select(pool, rates, 0.9)
    assert chosen.tolist() == reference(images, rates, 0.9)
    assert not chosen[pool.scores <= 0.9].any()
    more = select(pool, np.minimum(rates * 1.5, 1), 0.9)
    assert (more | ~chosen).all()  # nested: a larger share adds boxes
    for c in range(4):
        own = pool.labels == c
        left = own & ~chosen & (pool.scores > 0.9)
        if (own & chosen).any() and left.any():
            assert pool.scores[own & chosen].min() >= pool.scores[left].max()


@given(looks, st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_permuted_classes_give_the_same_boxes(images: list[list[tuple[int, float]]], names: list[int]) -> None:
    counts = np.array([40, 9, 3, 1])
    renamed = [[(names[label], score) for label, score in own] for own in images]
    other = np.empty(4, np.int64)
    other[names] = counts
    one = select(pool_with(*map(tuple, images)), class_rates(counts), 0.9)
    np.testing.assert_array_equal(select(pool_with(*map(tuple, renamed)), class_rates(other), 0.9), one)


TWELVE = facts(num_unlabelled=12)


@given(st.lists(looks, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_selection_does_not_depend_on_which_rank_saw_an_image(windows: list[Any], random: Any) -> None:
    whole, *ranks = (CReST(TWELVE) for _ in range(4))
    for iteration, window in enumerate(windows):
        detections = [seen(i, *own) for i, own in enumerate(window)]
        whole.observe_detections(detections, Context(iteration, 10))
        for one in random.sample(detections, len(detections)):
            random.choice(ranks).observe_detections([one], Context(iteration, 10))
    expected = whole.promoted(Context(5, 10, 1, 2))
    ranks[0].keeper.pool = merge([rank.keeper.unshared() for rank in ranks])
    found = ranks[0].promoted(Context(5, 10, 1, 2))
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        for name, column in vars(expected).items():
            np.testing.assert_array_equal(vars(found)[name], column)
    np.testing.assert_array_equal(ranks[0].copies(Context(5, 10, 1, 2))[0], whole.copies(Context(5, 10, 1, 2))[0])


def test_selected_boxes_are_labels_and_the_others_of_their_images_ignore_regions() -> None:
    pool = pool_with(((0, 0.95), (1, 0.92), (0, 0.6)), ((1, 0.99), (0, 0.7)), ((0, 0.94),), ())
    # mu = (0.5, 1): int(0.5 * 2) = 1 of class 0, 2 of class 1
    found = promote(pool, select(pool, class_rates((8, 1)), 0.9), 0.65)
    assert found is not None
    rows = zip(found.images.tolist(), found.labels.tolist(), found.ignored.tolist(), strict=True)
    assert list(rows) == [(0, 0, False), (0, 1, False), (1, 1, False), (1, 0, True)]  # 0.6 is below the floor here
    np.testing.assert_array_equal(found.boxes, pool.boxes[[0, 1, 3, 4]])
    assert [c.dtype for c in vars(found).values()] == [np.int64, np.float32, np.int64, np.bool_]
    assert promote(pool, np.zeros(6, np.bool_), 0.5) is None


def test_boxes_without_an_area_are_neither_counted_nor_promoted() -> None:
    flat = seen(0, (0, 0.99), (0, 0.98), side=0.0)
    pool = merge([observed([flat, seen(1, (0, 0.95))], 0, 0.5, with_boxes=True)])
    assert select(pool, np.array([1.0]), 0.9).tolist() == [False, False, True]
    found = promote(pool, np.array([False, False, True]), 0.5)
    assert found is not None
    assert found.images.tolist() == [1]


D_L = ((0,), (0, 1), (0,), ())


def test_copies_are_repeat_factors_over_d_l_and_the_promoted_images() -> None:
    ignored = np.array([False, False, True, False])
    promoted = Promoted(np.array([2, 2, 2, 4]), np.zeros((4, 4), np.float32), np.array([1, 1, 0, 2]), ignored)
    copies = union_copies(D_L, promoted, unlabelled=6, num_classes=3, threshold=1.0)
    # f = (3, 2, 1) / 6 images: r = sqrt(1 / f) = 1.41, 1.73, 2.45; the ignore region's class does not count
    assert copies.tolist() == [2, 2, 2, 1, 0, 0, 2, 0, 3, 0]
    assert copies[[0, 1, 2, 3, 6, 8]].tolist() == labelled_copies([*D_L, (1,), (2,)], 3, 1.0).tolist()


def test_without_promoted_images_d_l_is_drawn_by_its_repeat_factors() -> None:
    copies = union_copies(D_L, None, unlabelled=6, num_classes=3, threshold=1.0)
    assert copies[:4].tolist() == labelled_copies(D_L, 3, 1.0).tolist()
    assert not copies[4:].any()


def plus(**fields: Any) -> CReST:
    return CReST(facts(variant=METHOD.variants["crest+"], labelled_boxes=(60, 30, 9, 1), **fields))


def alignment_of(parts: CReST) -> Any:
    assert parts.alignment is not None
    return parts.alignment


def scores_of(seed: int, rows: int = 20) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.randn(rows, 5) * 2).softmax(dim=1)


FEATURES = torch.zeros(0, 3)


def iterate(parts: CReST, scores: torch.Tensor, iteration: int = 0, generation: int = 0) -> torch.Tensor:
    context = Context(iteration, 40, generation, 4, branch="teacher", collect=True)
    result = parts.score_transform(scores, FEATURES, context)
    parts.after_iteration(context)
    return result


def test_crest_leaves_scores_alone_and_crest_plus_aligns_them_once_it_has_seen_a_batch() -> None:
    plain, aligned = CReST(facts()), plus()
    scores = scores_of(0)
    assert torch.equal(iterate(plain, scores), scores)
    assert torch.equal(iterate(aligned, scores), scores)
    # pm: mean of q = P / (1 - P_bg) over RoIs with 1 - P_bg > 0.5
    sure = scores[scores[:, -1] < 0.5, :-1]
    model = (sure / sure.sum(dim=1, keepdim=True)).mean(dim=0)
    assert 0 < len(sure) < len(scores)
    found = iterate(aligned, scores_of(1), 1, generation=2)
    target = target_distribution(torch.tensor([60.0, 30, 9, 1]), temperature(2, 4))
    torch.testing.assert_close(found, align(scores_of(1), target, model))


def test_the_models_distribution_is_that_of_the_last_128_batches() -> None:
    parts = plus()
    means = []
    for iteration in range(WINDOW + 10):
        scores = scores_of(iteration, rows=6)
        sure = scores[scores[:, -1] < 0.5, :-1]
        means += [(sure / sure.sum(dim=1, keepdim=True)).mean(dim=0)] if len(sure) else []
        iterate(parts, scores, iteration)
    assert WINDOW < len(means) == int(alignment_of(parts).pushed)
    expected = torch.stack(means[-WINDOW:]).mean(dim=0)
    torch.testing.assert_close(alignment_of(parts).ring.mean(dim=0), expected, rtol=1e-5, atol=1e-6)


def test_batches_without_a_prediction_or_without_sense_are_not_remembered() -> None:
    parts = plus()
    background = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.6]])
    iterate(parts, background)
    iterate(parts, torch.zeros(0, 5))
    iterate(parts, torch.full((2, 5), float("inf")))
    parts.score_transform(scores_of(0), FEATURES, Context(0, 40, branch="teacher", collect=False))
    parts.after_iteration(Context(0, 40))
    assert int(alignment_of(parts).pushed) == 0
    assert torch.equal(iterate(parts, scores_of(0)), scores_of(0))


def test_two_ranks_with_half_the_rois_have_the_ring_of_one_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, ranks = plus(), [plus(), plus()]
    for iteration in range(5):
        scores = scores_of(iteration)
        iterate(whole, scores, iteration)
        context = Context(iteration, 40, branch="teacher", collect=True)
        for rank, place in zip(ranks, (slice(0, 6), slice(6, 20)), strict=True):
            rank.score_transform(scores[place], FEATURES, context)
        total = alignment_of(ranks[0]).sums + alignment_of(ranks[1]).sums
        with monkeypatch.context() as patched:
            patched.setattr(Context, "sum_over_ranks", staticmethod(lambda values, total=total: total.clone()))
            for rank in ranks:
                rank.after_iteration(context)
    torch.testing.assert_close(alignment_of(ranks[0]).ring, alignment_of(whole).ring)
    assert torch.equal(alignment_of(ranks[0]).ring, alignment_of(ranks[1]).ring)


def test_the_first_generation_promotes_nothing_and_the_log_counts_labels_a_group() -> None:
    parts = CReST(facts(labelled_boxes=(1, 1, 1, 1)))
    parts.observe_detections([seen(3, (0, 0.95), (1, 0.97), (3, 0.6)), seen(5, (2, 0.99)), seen(1)], Context(0, 40))
    context = Context(0, 40)
    assert parts.promoted(context) is None
    parts.after_iteration(context)
    assert context.logs == {"promoted_images": 0, "promoted_boxes_maj": 0, "promoted_boxes_min": 0}
    found = parts.promoted(Context(10, 40, 1, 4))
    assert found is not None
    assert (found.images.tolist(), found.ignored.tolist()) == ([3, 3, 3, 5], [False, False, True, False])
    parts.after_iteration(context)
    assert context.logs == {"promoted_images": 2, "promoted_boxes_maj": 2, "promoted_boxes_min": 1}
    assert parts.copies(context)[0].tolist()[4:] == [0, 0, 0, 1, 0, 1]
    assert parts.statistics(context) == {"pool": 3, "pool_coverage": 0.5}


def test_an_empty_pool_promotes_nothing() -> None:
    assert CReST(facts()).promoted(Context(10, 40, 1, 4)) is None


def test_crest_states_the_papers_numbers() -> None:
    method = load_method("crest")
    assert method.reported["coco-split1"] == {"all": 22.2, "maj": 29.3, "min": 1.0}
    assert method.reported["coco-split2"] == {"all": 16.3, "maj": 31.2, "min": 1.4}
    assert method.reported["coco-o365"] == {"all": 6.8, "maj": 21.3, "min": 2.8}
    assert "lvis" not in method.reported
    assert "CVPR 2021" in method.citation
    assert method.images == "promoted"
