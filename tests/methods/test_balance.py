"""The state of GbR: rank independence, warm-up, convergence to the balance, the profiles' ways, no NaN anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradient_rows import batch, close
from torch import Tensor

from method import gbr
from method.balance import Balance
from method.profiles import DEFAULT, OFFICIAL, PAPER, Profile


def balance(profile: Profile = DEFAULT, iterations: int = 100, channels: int = 5, **fields: Any) -> Balance:
    fields = {"gamma": 1.0, "milestones": (0.75, 0.9), "unsup_weight": 4.0, **fields}
    return Balance(channels, profile.gbr, iterations=iterations, **fields).double()


def feed(state: Balance, sums: Tensor, seed: int, rows: slice = slice(None), only: str = "") -> Tensor:
    """Add both branches' batches of an iteration, or some rows of them."""
    for place, branch in enumerate(("sup", "unsup_cls")):
        if only in ("", branch):
            logits, labels, v = (part[rows] for part in batch(2 * seed + place, 24, state.channels))
            v = torch.ones_like(v) if branch == "sup" else v
            row_weights = state.row_weights(labels, branch)  # type: ignore[arg-type]
            state.collect(sums, branch, logits, labels, v, v.sum(), row_weights)  # type: ignore[arg-type]
    return sums


def train(state: Balance, iterations: range, seed: Callable[[int], int] = lambda i: i) -> None:
    for iteration in iterations:
        state.update(feed(state, torch.zeros(state.size, dtype=torch.float64), seed(iteration)), iteration)


@pytest.mark.parametrize("profile", [DEFAULT, PAPER, OFFICIAL], ids=["default", "paper", "official"])
def test_the_state_is_that_of_one_rank_however_rows_are_spread(profile: Profile) -> None:
    whole, ranks = balance(profile), [balance(profile), balance(profile)]
    for iteration in range(30):
        train(whole, range(iteration, iteration + 1))
        halves = [torch.zeros(whole.size, dtype=torch.float64) for _ in ranks]
        for state, sums, rows in zip(ranks, halves, (slice(0, 7), slice(7, None)), strict=True):
            feed(state, sums, iteration, rows)
        total = halves[0] + halves[1]
        for state in ranks:
            state.update(total.clone(), iteration)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, ranks[0].state_dict()[name], rtol=0, atol=1e-12)
        assert torch.equal(ranks[0].state_dict()[name], ranks[1].state_dict()[name]), name
    assert whole.logits.any()


def test_weights_stay_one_during_the_warmup_and_move_after_it() -> None:
    state = balance(iterations=180)  # warm-up: 8 iterations
    train(state, range(8))
    assert torch.equal(state.weights, torch.ones(5, dtype=torch.float64))
    train(state, range(8, 9))
    assert (state.weights - 1).abs().max() > 0
    close(state.weights.sum(), 5.0, 1e-12)


def test_a_class_whose_proposals_all_weigh_0_has_not_been_seen() -> None:
    state, (logits, labels, v) = balance(), batch(3, 40, 5)
    v = torch.where(labels == 2, 0.0, v)
    sums = torch.zeros(state.size, dtype=torch.float64)
    state.collect(sums, "unsup_cls", logits, labels, v, v.sum(), None)
    state.update(sums, 0)
    assert (labels == 2).any()
    assert state.seen.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("profile", [DEFAULT, PAPER], ids=["default", "paper"])
def test_gradients_cancel_once_the_weights_have_converged(profile: Profile) -> None:
    state = balance(profile, iterations=10**9)  # no milestone, windows of the paper's length
    state.warmup = 0.0
    sums = torch.zeros(state.size, dtype=torch.float64)
    for iteration in range(1500):
        state.update(feed(state, sums.zero_(), 1), iteration)
    weights, bounds = state.weights, state.constants.target_bounds
    targets = gbr.jacobi_targets(
        state.matrix, weights, bounds=bounds, background_bounds=state.constants.background_bounds
    )
    # Eq. 7 compares ln t with a and not with ln w: where a clamp makes sum t != K the weights are K t / sum t.
    close(weights, 5 * targets / targets.sum(), 1e-5)
    free = (targets > bounds[0]) & (targets < bounds[1])
    # Unclamped, a foreground class's pushes cancel: w_i G_ii + sum_{k != i} w_k G_ik -> 0 (times the common factor).
    residual = state.matrix @ weights + state.matrix.diagonal() * weights * (targets.sum() / 5 - 1)
    assert free[:-1].all()
    assert (residual / state.matrix.diagonal())[:-1].abs().max() < 1e-5
    if profile is PAPER:
        assert targets.sum() == pytest.approx(5)
        assert (state.matrix @ weights / state.matrix.diagonal())[:-1].abs().max() < 1e-5


def test_the_size_of_all_gradients_together_moves_no_weight() -> None:
    state, small = balance(), balance()
    train(state, range(5))
    small.load_state_dict(state.state_dict())
    small.by_source *= 1e-12
    for one in (state, small):
        one._align(50, torch.tensor(True))
    torch.testing.assert_close(small.logits, state.logits, rtol=1e-9, atol=0)


def test_class_weights_do_not_enter_the_estimated_gradients() -> None:
    state, moved = balance(), balance()
    moved.logits = torch.tensor([1.0, -1.0, 0.5, 0.0, -0.5], dtype=torch.float64)
    one, other = (feed(s, torch.zeros(s.size, dtype=torch.float64), 3) for s in (state, moved))
    square = 2 * 5 * 5
    assert torch.equal(one[:square], other[:square])


def test_released_codes_way_averages_the_branches_one_after_the_other() -> None:
    state = balance(OFFICIAL, iterations=100)
    matrices = []
    for iteration in range(2):
        sums = feed(state, torch.zeros(state.size, dtype=torch.float64), iteration)
        parts = sums[:50].view(2, 5, 5).clone()
        matrices += [100 / 24 * parts[0].T, 4 * 100 / 24 * parts[1].T]
        state.update(sums, iteration)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for rate, matrix in zip((1.0, 1.0, 0.5, 0.5), matrices, strict=True):
        expected += rate * (matrix - expected)
    close(state.matrix, expected, 1e-12)


@pytest.mark.parametrize(("profile", "shared"), [(DEFAULT, False), (OFFICIAL, True)], ids=["default", "official"])
def test_only_the_released_codes_running_mean_is_one_for_both_branches(profile: Profile, shared: bool) -> None:
    state = balance(profile)
    state.logits = torch.tensor([1.0, -1.0, 0.5, 0.0, -0.5], dtype=torch.float64)
    train(state, range(1))
    assert (state.means - 1).abs().min() > 0
    assert bool(state.means[0] == state.means[1]) == shared


def test_learning_rate_of_the_logits_falls_with_the_milestones() -> None:
    steps = {}
    for iteration in (74, 75, 90):
        state = balance()
        train(state, range(1))
        before = state.logits.clone()
        state.velocity.zero_()
        train(state, range(iteration, iteration + 1), seed=lambda i: 0)
        steps[iteration] = (state.logits - before).abs().max()
    assert steps[75] / steps[74] == pytest.approx(0.1, rel=1e-6)
    assert steps[90] / steps[74] == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("profile", [DEFAULT, PAPER, OFFICIAL], ids=["default", "paper", "official"])
def test_iterations_without_any_or_with_background_proposals_only_give_no_nan(profile: Profile) -> None:
    state = balance(profile, iterations=10)
    for iteration in range(4):
        sums = torch.zeros(state.size, dtype=torch.float64)
        if iteration >= 2:
            logits, labels, v = batch(iteration, 10, 5)
            labels[:] = 4
            state.collect(sums, "unsup_cls", logits, labels, v, v.sum(), None)
        state.update(sums, iteration)
    for name, value in state.state_dict().items():
        assert torch.isfinite(value).all(), name
    train(state, range(4, 10))
    assert torch.isfinite(state.weights).all()
