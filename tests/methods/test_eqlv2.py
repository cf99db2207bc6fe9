"""EQLv2: its formulas against worked numbers and written-out loops, and its state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eqlv2_parts import eql
from hypothesis import given
from hypothesis import strategies as st
from run_facts import rows
from torch import Tensor

from baselines import eqlv2
from baselines.eqlv2 import METHOD, EqualisationLoss
from cissod_bench.catalogue import load_method
from cissod_bench.contract.parts import Context
from cissod_bench.contract.stock import Stock
from cissod_bench.reporting.paper_tables import METHODS, TABLES
from cissod_bench.using.plugins.sigmoid_scores import SigmoidScores

# Five RoIs, two foreground classes and background.
LOGITS = torch.tensor(
    [[2.0, 0.0, 1.0], [0.5, 1.0, 0.0], [1.0, -1.0, 2.0], [0.0, 0.0, 3.0], [-1.0, 2.0, 0.5]], dtype=torch.float64
)
LABELS = torch.tensor([0, 1, 2, 2, 0])
V = torch.tensor([1, 1, 0.8, 0.9, 1], dtype=torch.float64)
ONES = torch.ones(5, dtype=torch.float64)
# g -> f(g) and 1 + 4 (1 - f(g)).
GATE = {
    100.0: (1.0, 1.0),
    1.0: (0.916827304, 1.332690786),
    0.8: (0.5, 3.0),
    0.5: (0.026596994, 4.893612026),
    0.1: (0.000224817, 4.999100733),
}
# The same rows twice, with gradients collected without v.
STEPS: tuple[dict[str, Any], ...] = (
    {
        "negative": [1.0, 1.0, 1.0],
        "positive": [1.0, 1.0, 1.0],
        "sup": 2.343284503,
        "unsup": 2.387711503,
        "gradients": [[0.850261501, 0.268941421], [1.85351791, 2.149738499]],
        "ratio": [0.458728505, 0.125104249],
    },
    {
        "negative": [0.016378721, 0.000303827, 1.0],
        "positive": [4.934485115, 4.998784693, 1.0],
        "sup": 2.375700542,
        "unsup": 2.519740655,
        "gradients": [[5.045864219, 1.613321682], [1.883876163, 2.150391647]],
        "ratio": [2.678447935, 0.750245512],
    },
)
ACTIVATION = [
    [0.236882818, 0.134470711, 0.731058579],
    [0.311229666, 0.365529289, 0.5],
    [0.087144319, 0.032058603, 0.880797078],
    [0.023712937, 0.023712937, 0.952574127],
    [0.101536324, 0.332536718, 0.622459331],
]


def close(found: Tensor, expected: Any, tolerance: float = 2e-9) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def reference(logits: Tensor, labels: Tensor, v: Tensor, positive: Tensor, negative: Tensor) -> tuple[float, Any]:
    """sum_r v_r sum_j W_rj BCE(x_rj, y_rj) and the two sums of v W |sigmoid(x) - y|, entry by entry."""
    total, n = 0.0, logits.shape[1] - 1
    sums = [[0.0] * n, [0.0] * n]
    for x, c, own in zip(logits.tolist(), labels.tolist(), v.tolist(), strict=True):
        for j, value in enumerate(x):
            p, y = 1 / (1 + math.exp(-value)), float(j == c)
            weight = float(positive[j] if y else negative[j])
            total += own * weight * -(y * math.log(p) + (1 - y) * math.log(1 - p))
            if j < n:
                sums[0 if y else 1][j] += own * weight * abs(p - y)
    return total, sums


def loss_of(parts: EqualisationLoss, data: tuple[Tensor, Tensor, Tensor], branch: Any = "sup", **own: Any) -> Tensor:
    logits, labels, v = data
    context = Context(0, 40, branch=branch, **{"collect": True, **own})
    return parts.classification_loss(logits, labels, v, v.sum().clamp(min=1), context)


# Formulas.


@pytest.mark.parametrize("ratio", GATE)
def test_worked_gates_and_weights(ratio: float) -> None:
    gate, weight = GATE[ratio]
    close(eqlv2.gate(torch.tensor(ratio, dtype=torch.float64)), gate)
    positive, negative = eqlv2.class_weights(torch.tensor([ratio, ratio], dtype=torch.float64))
    close(positive, [weight, weight, 1.0])
    close(negative, [gate, gate, 1.0])


def test_worked_losses_gradients_and_ratios_of_two_steps() -> None:
    targets = eqlv2.one_hot(LABELS, LOGITS)
    gradients = torch.zeros(2, 2, dtype=torch.float64)
    for step in STEPS:
        positive, negative = eqlv2.class_weights(eqlv2.gradient_ratio(*gradients))
        close(positive, step["positive"])
        close(negative, step["negative"])
        weights = eqlv2.target_weights(targets, positive, negative)
        close(eqlv2.weighted_loss(LOGITS, targets, weights, ONES, ONES.sum()), step["sup"])
        close(eqlv2.weighted_loss(LOGITS, targets, weights, V, V.sum()), step["unsup"])
        gradients += eqlv2.class_gradients(LOGITS, targets, weights, ONES)
        close(gradients, step["gradients"])
        close(eqlv2.gradient_ratio(*gradients), step["ratio"])


def test_the_first_iteration_adds_half_of_all_rois_to_the_negative_gradients() -> None:
    """Preset photo: 768 RoIs at bias 0, of which 4 show the class; the next weights hardly know negatives."""
    labels = torch.full((768,), 4)
    labels[:4] = 0
    parts = eql()
    loss_of(parts, (torch.zeros(768, 5, dtype=torch.float64), labels, torch.ones(768, dtype=torch.float64)))
    parts.after_iteration(Context(0, 40))
    close(parts.gradients[:, 0], [2.0, 382.0])
    _, negative = eqlv2.class_weights(parts.ratio)
    assert negative[0].item() < 1e-4
    assert any("a tenth of what a minority class sums up" in departure for departure in METHOD.departures)


def test_a_threshold_on_the_product_of_two_sigmoids_asks_for_its_root_of_each() -> None:
    root = math.sqrt(0.9)
    logits = torch.tensor([[math.log(root / (1 - root)), -math.log(root / (1 - root))]], dtype=torch.float64)
    close(eqlv2.scores(logits)[:, 0], [0.9])
    assert any(".949 of each" in departure for departure in METHOD.departures)


def test_in_short_runs_theta_is_the_product_of_two_such_probabilities_and_a_departure() -> None:
    logit = math.log(0.9 / 0.1)
    score = eqlv2.scores(torch.tensor([[logit, -logit]], dtype=torch.float64))[0, 0].item()
    assert eqlv2.product_threshold(0.9, 1) == pytest.approx(score, abs=1e-5) == pytest.approx(0.81, abs=1e-5)
    assert [eqlv2.product_threshold(0.9, iterations) for iterations in (180_000, 360_000)] == [0.9, 0.9]
    assert eqlv2.product_threshold(0.9, 90_000) == pytest.approx(0.855)
    assert [eqlv2.product_threshold(theta, 900) for theta in (0.0, 0.15, 0.5)] == [0.0, 0.15, 0.5]
    short = eql(iterations=1000)
    assert short.theta_fixed.tolist() == pytest.approx([0.8105] * 4, abs=1e-4)
    assert short.rpn_threshold(0.9) == pytest.approx(0.8105, abs=1e-4)
    assert short.departures() == {
        "theta": [0.9, pytest.approx(0.8105, abs=1e-4)],
        "rpn_threshold": [0.9, pytest.approx(0.8105, abs=1e-4)],
    }
    assert eql().theta_fixed.tolist() == pytest.approx([0.9] * 4)
    assert eql().departures() == {}


def test_worked_scores() -> None:
    close(eqlv2.scores(LOGITS), ACTIVATION)


def test_scores_of_the_classes_alone_are_their_sigmoids_here_and_in_an_exported_detector() -> None:
    variant = METHOD.variants["class-scores"]
    for parts, expected in (
        (eql(variant=variant), LOGITS.sigmoid()),
        (eql(), torch.tensor(ACTIVATION, dtype=torch.float64)),
    ):
        close(parts.activation(LOGITS), expected)
        stock = parts.stock(Stock({"roi_head": {"bbox_head": {}}}, {}))
        settings = {name: value for name, value in stock.box_head["loss_cls"].items() if name != "type"}
        close(SigmoidScores(**settings).get_activation(LOGITS), expected)


@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradients_are_the_formulas_written_out(seed: int) -> None:
    logits, labels, v = rows(seed, 30)
    targets = eqlv2.one_hot(labels, logits)
    positive, negative = eqlv2.class_weights(torch.tensor([2.0, 0.9, 0.5, 0.0], dtype=torch.float64))
    weights = eqlv2.target_weights(targets, positive, negative)
    loss, sums = reference(logits, labels, v, positive, negative)
    close(eqlv2.weighted_loss(logits, targets, weights, v, v.sum()), loss / float(v.sum()), 1e-11)
    close(eqlv2.class_gradients(logits, targets, weights, v), sums, 1e-11)


def test_collected_gradients_are_the_sizes_of_the_losses_own() -> None:
    logits, labels, v = rows(7, 25)
    logits.requires_grad_()
    targets = eqlv2.one_hot(labels, logits.detach())
    weights = eqlv2.target_weights(targets, *eqlv2.class_weights(torch.tensor([0.7, 0.9, 1.0, 0.1]).double()))
    (gradient,) = torch.autograd.grad(eqlv2.weighted_loss(logits, targets, weights, v, torch.tensor(1.0)), logits)
    expected = torch.stack([(gradient.abs() * own).sum(0)[:-1] for own in (targets, 1 - targets)])
    close(eqlv2.class_gradients(logits.detach(), targets, weights, v), expected, 1e-12)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=6))
def test_positive_weights_lie_in_1_to_5_negative_ones_in_0_to_1_and_the_background_keeps_1(ratios: list[float]) -> None:
    positive, negative = eqlv2.class_weights(torch.tensor(ratios, dtype=torch.float64))
    assert ((positive >= 1) & (positive <= 5)).all()
    assert ((negative >= 0) & (negative <= 1)).all()
    assert positive[-1] == negative[-1] == 1
    torch.testing.assert_close(positive, 1 + 4 * (1 - negative))


def test_a_class_without_any_gradient_keeps_the_ratio_100_and_one_without_positives_has_0() -> None:
    positive, negative = torch.tensor([0.0, 0.0, 3.0, 3.0]), torch.tensor([0.0, 5.0, 0.0, 6.0])
    found = eqlv2.gradient_ratio(positive.double(), negative.double())
    assert found[:2].tolist() == [100, 0]
    assert eqlv2.gate(found)[2] == 1
    close(found[3], 0.5)


def test_the_ratio_100_is_plain_binary_cross_entropy() -> None:
    logits, labels, v = rows(3, 20)
    targets = F.one_hot(labels, 5).double()
    expected = (v[:, None] * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).sum() / v.sum()
    torch.testing.assert_close(loss_of(eql(), (logits, labels, v)), expected)


def test_scores_are_probabilities_below_the_foregrounds_sigmoid() -> None:
    logits, _, _ = rows(5, 50)
    found = eqlv2.scores(logits)
    assert ((found > 0) & (found < 1)).all()
    torch.testing.assert_close(found[:, -1], logits[:, -1].sigmoid())
    assert (found[:, :-1] < logits[:, :-1].sigmoid()).all()
    assert not torch.allclose(found.sum(dim=1), torch.ones(50, dtype=torch.float64))


# State.


def test_the_gradients_of_both_branches_enter_the_state_once_an_iteration() -> None:
    parts, before = eql(), rows(0, 20)
    after = rows(1, 30)
    loss_of(parts, before)
    loss_of(parts, after, "unsup_cls")
    assert not parts.gradients.any()
    parts.after_iteration(Context(0, 40))
    ones = torch.ones(5, dtype=torch.float64)
    expected = sum(torch.tensor(reference(*data, ones, ones)[1], dtype=torch.float64) for data in (before, after))
    close(parts.gradients, expected, 1e-11)
    assert not parts.sums.any()
    parts.after_iteration(Context(1, 40))
    close(parts.gradients, expected, 1e-11)


def test_the_next_iteration_is_weighted_by_the_state() -> None:
    parts, data = eql(), rows(0, 20)
    loss_of(parts, data)
    parts.after_iteration(Context(0, 40))
    positive, negative = eqlv2.class_weights(eqlv2.gradient_ratio(*parts.gradients))
    assert positive[:-1].min() > 1.5
    close(loss_of(parts, data), reference(*data, positive, negative)[0] / float(data[2].sum()), 1e-11)


def test_losses_that_may_not_collect_leave_the_state_untouched() -> None:
    parts, data = eql(), rows(0, 20)
    loss_of(parts, data, "sup", collect=False)
    loss_of(parts, data, "unsup_cls", collect=False)
    assert not parts.sums.any()
    parts.after_iteration(Context(0, 40))
    assert not parts.gradients.any()


def test_a_row_that_weighs_0_is_in_neither_loss_nor_state() -> None:
    logits, labels, v = rows(2, 20)
    v[4] = 0
    rest = torch.arange(20) != 4
    one, other = eql(), eql()
    torch.testing.assert_close(
        loss_of(one, (logits, labels, v)), loss_of(other, (logits[rest], labels[rest], v[rest])), rtol=0, atol=1e-12
    )
    close(one.sums, other.sums, 1e-12)


@pytest.mark.parametrize(
    ("fields", "weighted"),
    [
        ({}, True),
        ({"profile": "paper"}, True),
        ({"profile": "official"}, False),
        ({"variant": METHOD.variants["unweighted-gradients"]}, False),
    ],
)
def test_gradients_count_v_except_as_in_the_released_code(fields: dict[str, Any], weighted: bool) -> None:
    parts, (logits, labels, v) = eql(**fields), rows(2, 20)
    loss = loss_of(parts, (logits, labels, v), "unsup_cls")
    ones = torch.ones(5, dtype=torch.float64)
    counted = v if weighted else torch.ones_like(v)
    close(parts.sums, reference(logits, labels, counted, ones, ones)[1], 1e-11)
    close(loss, reference(logits, labels, v, ones, ones)[0] / float(v.sum()), 1e-11)  # the loss counts v always


def test_a_loss_that_is_not_finite_leaves_no_trace_in_the_state() -> None:
    parts, (logits, labels, v) = eql(), rows(0, 20)
    loss_of(parts, (logits, labels, v))
    parts.after_iteration(Context(0, 40))
    before = parts.gradients.clone()
    loss_of(parts, (logits * float("nan"), labels, v))
    parts.after_iteration(Context(1, 40))
    assert torch.equal(parts.gradients, before)
    assert not parts.sums.any()


def test_weights_carry_no_gradient_and_the_logits_are_left_as_they_were() -> None:
    parts, (logits, labels, v) = eql(), rows(0, 20)
    before = logits.clone()
    logits.requires_grad_()
    loss_of(parts, (logits, labels, v)).backward()
    assert torch.equal(logits.detach(), before)
    expected = v[:, None] * (before.sigmoid() - F.one_hot(labels, 5)) / v.sum()
    torch.testing.assert_close(logits.grad, expected)
    assert not parts.sums.requires_grad


def test_the_checkpoint_holds_the_sums_of_the_training_and_nothing_of_an_iteration() -> None:
    parts, other = eql(), eql()
    loss_of(parts, rows(0, 20))
    parts.after_iteration(Context(0, 40))
    assert set(parts.state_dict()) == {"gradients"}
    other.load_state_dict(parts.state_dict())
    assert torch.equal(other.ratio, parts.ratio)


def test_the_row_is_the_papers() -> None:
    method = load_method("eqlv2")
    assert method.title == METHODS["eqlv2"]
    assert "CVPR 2021" in method.citation
    printed = {
        task: {column: table.value(task, "eqlv2", column) for column in table.columns}
        for table in TABLES
        for task in table.tasks
    }
    assert method.reported == printed
