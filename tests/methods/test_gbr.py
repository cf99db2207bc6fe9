"""GbR (Eq. 1-8): closed forms against autograd and brute force, worked numbers, the invariants of the equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gradient_rows import batch, close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from method import gbr

# Five proposals, two foreground classes and background.
LOGITS = torch.tensor(
    [[2.0, 0.0, 1.0], [0.5, 1.0, 0.0], [1.0, -1.0, 2.0], [0.0, 0.0, 3.0], [-1.0, 2.0, 0.5]], dtype=torch.float64
)
LABELS = torch.tensor([0, 1, 2, 2, 0])
V = torch.tensor([1, 1, 0.8, 0.9, 1], dtype=torch.float64)

# gamma -> loss rows, G, the weights that balance it, the Jacobi target from w = 1.
WORKED: dict[int, dict[str, Any]] = {
    0: {
        "rows": [0.407605964, 0.680269671, 0.279209773, 0.085430661, 3.241311297],
        "matrix": [
            [-1.295646471, 0.307195886, 0.248347819],
            [0.875627608, -0.493519609, 0.068845872],
            [0.420018863, 0.186323723, -0.317193691],
        ],
        "weights": [0.525261936, 1.120817998, 1.353920067],
        "target": [0.42877723, 1.913750665, 0.657472105],
    },
    1: {
        "rows": [0.136449783, 0.335726422, 0.082259523, 0.007736344, 3.114535271],
        "matrix": [
            [-1.247957738, 0.257449462, 0.119477373],
            [0.909016078, -0.413600454, 0.022402127],
            [0.33894166, 0.156150992, -0.1418795],
        ],
        "weights": [0.349351927, 0.864551474, 1.786096599],
        "target": [0.302034935, 2.251975782, 0.445989283],
    },
    2: {
        "rows": [0.045677799, 0.165687572, 0.02423493, 0.00070058, 2.992717782],
        "matrix": [
            [-1.219585408, 0.179291593, 0.049104748],
            [0.943177968, -0.288037441, 0.007485468],
            [0.27640744, 0.108745848, -0.056590216],
        ],
        "weights": [0.183548131, 0.657143685, 2.159308184],
        "target": [0.187273756, 3.300485637, -0.487759394],
    },
}
FREE: dict[str, Any] = {"bounds": (-float("inf"), float("inf")), "background_bounds": (-float("inf"), float("inf"))}
CLAMPED: dict[str, Any] = {"bounds": (1 / 3, 5.0), "background_bounds": (1 / 3, 1.0)}
FLOOR: dict[str, Any] = {"bounds": (1e-3, float("inf")), "background_bounds": (1e-3, float("inf"))}


def balancing_weights(matrix: Tensor) -> Tensor:
    """Eq. 3 with Eq. 4 in the place of the background's row, solved directly."""
    system, right = matrix.clone(), torch.zeros(len(matrix), dtype=matrix.dtype)
    system[-1], right[-1] = 1.0, len(matrix)
    weights: Tensor = torch.linalg.solve(system, right)
    return weights


def autograd_matrix(logits: Tensor, labels: Tensor, label_weights: Tensor, gamma: float) -> Tensor:
    """Eq. 1-2 by automatic differentiation of the textbook focal loss, one source class at a time."""
    columns = []
    for source in range(logits.shape[1]):
        x = logits.clone().requires_grad_()
        p = x.softmax(1)[torch.arange(len(x)), labels]
        loss = label_weights * (1 - p) ** gamma * -p.log()
        (gradient,) = torch.autograd.grad(loss[labels == source].sum(), x)
        columns.append(gradient.sum(0))
    return torch.stack(columns, dim=1)


def brute_force_matrix(logits: Tensor, labels: Tensor, label_weights: Tensor, gamma: float) -> Tensor:
    """Eq. 1-2 entry by entry, with q = -df/dp written out."""
    matrix = torch.zeros(logits.shape[1], logits.shape[1], dtype=logits.dtype)
    for x, c, v in zip(logits, labels.tolist(), label_weights, strict=True):
        probabilities = x.exp() / x.exp().sum()
        p = probabilities[c]
        q = (1 - p) ** gamma / p + gamma * (1 - p) ** (gamma - 1) * -p.log()
        for i in range(len(x)):
            matrix[i, c] += v * q * p * (probabilities[i] - float(i == c))
    return matrix


@pytest.mark.parametrize("gamma", [0, 1, 2])
def test_worked_numbers_of_losses_matrix_weights_and_targets(gamma: int) -> None:
    expected = WORKED[gamma]
    close(V * gbr.focal_loss(LOGITS, LABELS, gamma), expected["rows"])
    matrix = gbr.gradient_matrix(LOGITS, LABELS, V, gamma)
    close(matrix, expected["matrix"])
    close(balancing_weights(matrix), expected["weights"])
    close(gbr.jacobi_targets(matrix, torch.ones(3, dtype=torch.float64), **FREE), expected["target"])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_matrix_equals_autograd_and_brute_force(gamma: float, weighted: bool) -> None:
    logits, labels, v = batch(1, 60, 7)
    v = v if weighted else torch.ones_like(v)
    found = gbr.gradient_matrix(logits, labels, v, gamma)
    close(found, autograd_matrix(logits, labels, v, gamma), 1e-10)
    close(found, brute_force_matrix(logits, labels, v, gamma), 1e-10)


@given(st.integers(0, 2**31), st.integers(0, 40), st.integers(2, 9), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]))
@settings(max_examples=60, deadline=None)
def test_columns_sum_to_zero_and_only_the_diagonal_is_negative(
    seed: int, rows: int, channels: int, gamma: float
) -> None:
    matrix = gbr.gradient_matrix(*batch(seed, rows, channels), gamma)
    close(matrix.sum(0), torch.zeros(channels), 1e-10)
    assert (matrix.diagonal() <= 0).all()
    assert (matrix - matrix.diagonal().diag() >= 0).all()


@given(st.integers(0, 2**31), st.randoms())
@settings(max_examples=30, deadline=None)
def test_renaming_classes_permutes_matrix_and_weights_alike(seed: int, random: Any) -> None:
    logits, labels, v = batch(seed, 50, 5)
    order = torch.tensor([*random.sample(range(4), 4), 4])  # background stays last
    renamed = torch.argsort(order)[labels]
    matrix = gbr.gradient_matrix(logits, labels, v, 1.0)
    other = gbr.gradient_matrix(logits[:, order], renamed, v, 1.0)
    close(other, matrix[order][:, order], 1e-10)
    close(balancing_weights(other), balancing_weights(matrix)[order], 1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_certain_and_hopeless_proposals_give_no_nan(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[100.0, 0, 0], [-100.0, 0, 0], [0, 0, 0]], dtype=dtype, requires_grad=True)
    labels, v = torch.tensor([0, 0, 2]), torch.ones(3)
    losses = gbr.focal_loss(logits, labels, gamma)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()
    matrix = gbr.gradient_matrix(logits, labels, v, gamma)
    assert torch.isfinite(matrix).all()
    assert matrix.dtype == torch.promote_types(dtype, torch.float32)


def test_focal_loss_with_gamma_0_is_cross_entropy() -> None:
    logits, labels, _ = batch(3, 20, 5)
    assert torch.equal(gbr.focal_loss(logits, labels, 0.0), F.cross_entropy(logits, labels, reduction="none"))


def test_an_empty_batch_and_an_absent_class_leave_zeros() -> None:
    assert not gbr.gradient_matrix(LOGITS[:0], LABELS[:0], V[:0], 1.0).any()
    background = gbr.gradient_matrix(LOGITS, torch.full((5,), 2), V, 1.0)
    assert not background[:, :2].any()
    assert background[2, 2] < 0


def test_a_small_step_against_the_weighted_gradient_keeps_mean_logits_level() -> None:
    """Eq. 3 is what it claims: with the balancing weights the summed gradient on every foreground logit vanishes."""
    logits, labels, v = batch(5, 80, 6)
    weights = balancing_weights(gbr.gradient_matrix(logits, labels, v, 1.0))
    x = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weights[labels] * v * gbr.focal_loss(x, labels, 1.0)).sum(), x)
    close(gradient.sum(0), torch.zeros(6), 1e-9)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_scaling_the_matrix_changes_nothing_and_the_balance_is_a_fixed_point(seed: int, scale: float) -> None:
    logits, labels, v = batch(seed, 200, 5, scale=1.0)
    matrix = gbr.gradient_matrix(logits, labels, v, 1.0)
    weights = balancing_weights(matrix)
    assert (weights > 0).all()
    close(gbr.jacobi_targets(matrix, weights, **FREE), weights, 1e-9)
    targets = gbr.jacobi_targets(matrix, torch.ones(5, dtype=torch.float64), **CLAMPED)
    close(gbr.jacobi_targets(scale * matrix, torch.ones(5, dtype=torch.float64), **CLAMPED), targets, 1e-9)
    seen = torch.ones(5, dtype=torch.bool)
    for factor in (1.0, scale, 1e-15):
        assert not gbr.without_gradient(factor * matrix, seen).any()


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=30))
def test_weights_are_positive_and_sum_to_their_number(logits: list[float]) -> None:
    weights = gbr.weights_from_logits(torch.tensor(logits, dtype=torch.float64))
    assert (weights > 0).all()
    close(weights.sum(), len(logits), 1e-9)


def test_weights_start_at_one() -> None:
    assert torch.equal(gbr.weights_from_logits(torch.zeros(81)), torch.ones(81))


def test_clamped_target_and_alignment_loss() -> None:
    matrix = gbr.gradient_matrix(LOGITS, LABELS, V, 1.0)
    target = gbr.jacobi_targets(matrix, torch.ones(3, dtype=torch.float64), **CLAMPED)
    close(target, [1 / 3, 2.251975782, 0.445989283])
    close(gbr.alignment_loss(torch.zeros(3, dtype=torch.float64), target), 0.839324448)


DAMPED: list[tuple[dict[str, Any], dict[int, tuple[list[float], list[float]]]]] = [
    (
        CLAMPED,
        {
            1: ([-0.007324082, 0.005412053, -0.005383069], [0.995103929, 1.007858758, 0.997037314]),
            2: ([-0.02119101, 0.015626464, -0.015433276], [0.985779158, 1.022749458, 0.991471384]),
            10: ([-0.285355038, 0.199226376, -0.167011204], [0.800186418, 1.299098884, 0.900714698]),
            100: ([-0.949882664, 0.093030456, 0.000209214], [0.467041059, 1.325215404, 1.207743537]),
            4000: ([-0.945098353, 0.092127243, 0.0], [0.469157218, 1.32367009, 1.207172691]),
        },
    ),
    (
        FLOOR,
        {
            1: ([-0.007981417, 0.005412053, -0.005383069], [0.994666831, 1.008078486, 0.997254683]),
            2: ([-0.023061988, 0.015623641, -0.01542037], [0.984537978, 1.023371761, 0.99209026]),
            10: ([-0.301257017, 0.198363808, -0.164278162], [0.790534637, 1.302877159, 0.906588204]),
            100: ([-1.060719925, -0.156853234, 0.587830325], [0.346077901, 0.854512036, 1.799410063]),
            4000: ([-1.051675478, -0.145544434, 0.580032568], [0.349351927, 0.864551474, 1.786096599]),
        },
    ),
]


@pytest.mark.parametrize(("bounds", "steps"), DAMPED, ids=["clamped", "floor"])
def test_damped_iteration_goes_through_the_worked_numbers(bounds: dict[str, Any], steps: dict[int, Any]) -> None:
    matrix = gbr.gradient_matrix(LOGITS, LABELS, V, 1.0)
    a, velocity = torch.zeros(2, 3, dtype=torch.float64)
    for number in range(1, max(steps) + 1):
        target = gbr.jacobi_targets(matrix, gbr.weights_from_logits(a), **bounds)
        a, velocity = gbr.alignment_step(a, velocity, target, rate=0.01, momentum=0.9)
        if number in steps:
            close(a, steps[number][0])
            close(gbr.weights_from_logits(a), steps[number][1])


def test_alignment_step_equals_torchs_sgd_on_the_alignment_loss() -> None:
    a, velocity = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    parameter = a.clone().requires_grad_()
    sgd = torch.optim.SGD([parameter], lr=0.02, momentum=0.8, weight_decay=1e-2)
    for target in torch.tensor([[0.5, 2.0, 1.0], [0.7, 1.0, 3.0], [1.1, 0.4, 0.4]], dtype=torch.float64):
        sgd.zero_grad()
        (5 * gbr.alignment_loss(parameter, target)).backward()  # type: ignore[no-untyped-call]
        sgd.step()
        a, velocity = gbr.alignment_step(a, velocity, target, rate=0.02, momentum=0.8, coefficient=5.0, decay=1e-2)
        close(a, parameter.detach(), 1e-14)


def test_an_unseen_class_is_held_or_runs_into_the_bound() -> None:
    matrix = gbr.gradient_matrix(LOGITS, LABELS, V, 1.0)
    matrix[:, 1] = 0.0
    ones = torch.ones(3, dtype=torch.float64)
    raw = gbr.jacobi_targets(matrix, ones, epsilon=1e-6, **FREE)
    close(raw[:2], [0.095739, 931419.205244], 1e-6)
    close(raw[2], 3 - 0.095739 - 931419.205244, 1e-5)
    close(gbr.jacobi_targets(matrix, ones, epsilon=1e-6, **CLAMPED), [1 / 3, 5.0, 1 / 3])

    held = gbr.without_gradient(matrix, torch.tensor([True, False, True]))
    assert held.tolist() == [False, True, False]
    assert not gbr.without_gradient(matrix, torch.tensor([True, True, False]))[-1]  # the background has Eq. 4
    target = gbr.jacobi_targets(matrix, ones, held=held, **CLAMPED)
    close(target, [1 / 3, 1.0, 1.0])
    assert torch.equal(gbr.without_gradient(matrix, torch.ones(3, dtype=torch.bool)), held)
    a, velocity = gbr.alignment_step(ones * 0.5, ones, target, rate=0.1, momentum=0.9, held=held)
    assert (float(a[1]), float(velocity[1])) == (0.5, 0.0)
    assert a[0] != 0.5


def test_an_absent_class_leaves_the_other_targets_alone() -> None:
    logits, labels, v = batch(11, 100, 5)
    matrix = gbr.gradient_matrix(logits, labels, v, 1.0)
    without = labels != 1
    partial = gbr.gradient_matrix(logits[without], labels[without], v[without], 1.0)
    ones = torch.ones(5, dtype=torch.float64)
    held = gbr.without_gradient(partial, torch.tensor([True, False, True, True, True]))
    found = gbr.jacobi_targets(partial, ones, held=held, **FREE)
    # The absent class pushes nobody: the others' targets are those of the full matrix without its column.
    expected = (matrix @ ones + -matrix.diagonal() - matrix[:, 1]) / -matrix.diagonal()
    close(found[[0, 2, 3]], expected[[0, 2, 3]], 1e-12)
    assert found[1] == 1.0
    assert torch.isfinite(found).all()


def test_reweighting_numbers_of_both_branches_and_their_running_mean() -> None:
    w = torch.tensor([0.5, 2.0, 0.8], dtype=torch.float64)
    expected = {
        1.0: ([0.5, 2.0, 0.8, 0.8, 0.5], 0.99992, [0.500040003, 2.000160013, 0.640051204, 0.720057605, 0.500040003]),
        0.5: (
            [0.707106781, 1.414213562, 0.894427191, 0.894427191, 0.707106781],
            0.999923456,
            [0.70716091, 1.41432182, 0.715596527, 0.805046093, 0.70716091],
        ),
    }
    for beta, (rows, mean, weights) in expected.items():
        found = gbr.class_weights(w, (1 / 3, 5.0), beta)[LABELS]
        close(found, rows)
        m = gbr.running_mean(torch.ones((), dtype=torch.float64), found.sum(), torch.tensor(5), 0.999)
        close(m, mean)
        close(V * found / m, weights)
    losses = gbr.focal_loss(LOGITS, LABELS, 1.0)
    close((w.sqrt()[LABELS] * losses).sum() / 5, 0.574647964)  # labelled images: every v is 1
    close((V * w[LABELS] * losses).sum() / V.sum(), 0.504030227)


def test_running_mean_stays_where_nothing_was_counted() -> None:
    found = gbr.running_mean(torch.tensor([0.7, 0.7]), torch.tensor([2.0, 0.0]), torch.tensor([4.0, 0.0]), 0.9)
    close(found, [0.68, 0.7], 1e-7)


def test_branches_are_mixed_by_sums_by_rows_or_as_the_loss_does() -> None:
    normalisers, rows = torch.tensor([64.0, 50.0]), torch.tensor([64.0, 256.0])
    close(gbr.branch_scales("plain", normalisers, rows, 4.0), [1.0, 1.0], 0)
    close(gbr.branch_scales("rows", normalisers, rows, 4.0), [100 / 64, 400 / 256], 1e-7)
    close(gbr.branch_scales("loss", normalisers, rows, 4.0), [1 / 64, 4 / 50], 1e-8)
    close(gbr.branch_scales("loss", torch.tensor([64.0, 0.0]), rows, 4.0), [1 / 64, 0.0], 1e-8)


def test_averaging_is_a_plain_mean_in_the_warmup_and_then_exponential() -> None:
    values, mean = [3.0, 5.0, 1.0, 7.0], 0.0
    for iteration, value in enumerate(values):
        mean += gbr.averaging_rate(iteration, 0.9995, 4, True) * (value - mean)
    assert mean == pytest.approx(4.0)
    assert gbr.averaging_rate(4, 0.9995, 4, True) == pytest.approx(5e-4)
    assert gbr.averaging_rate(0, 0.9995, 4, False) == pytest.approx(5e-4)
