"""Ours without a detector: switches of Tables 4-5, profiles and their scaling, the parts one by one and over ranks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ours_parts import choice, iterate, ours
from run_facts import facts, rows
from tiny import tiny_task

from cissod_bench.catalogue import list_methods, load_method
from cissod_bench.contract.parts import Context, Detections
from cissod_bench.contract.settings import FULL, Settings
from method import profiles, short_runs
from method.ours import METHOD, Ours, Switches, resolve

# Table 4: loss, class weights, thresholds, D_l, D_u.
TABLE_4 = {
    "baseline": ("ce", False, "fixed", "uniform", "uniform"),
    "fl": ("focal", False, "fixed", "uniform", "uniform"),
    "crs": ("ce", False, "fixed", "rfs", "crs"),
    "gbt": ("ce", False, "gbt", "uniform", "uniform"),
    "gbr": ("focal", True, "fixed", "uniform", "uniform"),
    "gbr+gbt": ("focal", True, "gbt", "uniform", "uniform"),
    "crs+gbr": ("focal", True, "fixed", "rfs", "crs"),
    "crs+gbt": ("ce", False, "gbt", "rfs", "crs"),
    "": ("focal", True, "gbt", "rfs", "crs"),
}
TABLE_5 = {
    "theta-0.5": ("fixed", 0.5),
    "theta-0.9": ("fixed", 0.9),
    "theta-c": ("theta-c", 0.9),
    "theta-p": ("theta-p", 0.9),
    "labelmatch": ("labelmatch", 0.9),
    "": ("gbt", 0.9),
}


@pytest.mark.parametrize("variant", TABLE_4)
def test_rows_of_table_4(variant: str) -> None:
    found = choice(variant)
    loss, drawn = (
        ("focal" if found.focal else "ce"),
        ("rfs" if found.rfs else "uniform", "crs" if found.crs else "uniform"),
    )
    assert (loss, found.weighted, found.thresholds, *drawn) == TABLE_4[variant]
    assert found.theta == 0.9


@pytest.mark.parametrize("variant", TABLE_5)
def test_rows_of_table_5_differ_in_the_thresholds_only(variant: str) -> None:
    found = choice(variant)
    assert (found.thresholds, found.theta) == TABLE_5[variant]
    assert replace(found, thresholds="gbt", theta=0.9) == choice("")


def test_a_variant_changes_two_fields_at_most_and_all_have_the_papers_numbers() -> None:
    assert all(1 <= len(changed) <= 2 for changed in METHOD.variants.values())
    assert set(METHOD.variants) - set(METHOD.reported_variants) == {"full-pass", "beta-1"}
    table4 = {
        "baseline": 1.5,
        "fl": 3.5,
        "crs": 6.6,
        "gbt": 5.7,
        "gbr": 7.9,
        "gbr+gbt": 10.5,
        "crs+gbr": 11.4,
        "crs+gbt": 10.3,
    }
    table5 = {"theta-0.5": 12.6, "theta-0.9": 11.4, "theta-c": 11.9, "theta-p": 13.8, "labelmatch": 12.1}
    assert {name: own["coco-split1"]["min"] for name, own in METHOD.reported_variants.items()} == table4 | table5


def test_listing_shows_variants_and_reported_numbers_without_importing() -> None:
    literals = list_methods()["ours"].literals
    assert literals["variants"] == METHOD.variants
    assert literals["reported"] == METHOD.reported
    assert literals["reported_variants"] == METHOD.reported_variants


def test_each_switch_can_be_set_alone_for_other_readings_of_the_table() -> None:
    found = resolve(
        Switches(modules=("gbt",), weights=True, labelled="rfs", unlabelled="uniform"), profiles.DEFAULT, 0.7
    )
    assert (found.focal, found.weighted, found.rfs, found.crs, found.theta) == (False, True, True, False, 0.7)


# Profiles.


def test_the_paper_profile_has_the_papers_numbers() -> None:
    paper = profiles.profile_for("paper", "coco-split1", 180_000, 81)
    assert paper == profiles.PAPER
    assert (paper.gbr.matrix_momentum, paper.gbt.score_momentum, paper.gbr.beta) == (0.9995, 0.9995, 0.5)
    assert profiles.departures(paper) == {}


def test_constants_change_with_the_task_as_in_the_released_settings() -> None:
    default = {
        task: profiles.profile_for("default", task, 360_000, 81) for task in ("coco-split1", "coco-o365", "lvis")
    }
    assert [round(p.gbr.warmup, 4) for p in default.values()] == [0.0444, 0.0333, 0.0444]
    assert [round(p.gbt.warmup, 4) for p in default.values()] == [0.0667, 0.0889, 0.0889]
    assert {p.gbr.beta for p in default.values()} == {0.5}
    assert {p.gbt_rule for p in default.values()} == {"gbt"}
    official = {task: profiles.profile_for("official", task, 360_000, 81) for task in default}
    assert [p.gbr.beta for p in official.values()] == [0.5, 0.8, 0.8]
    assert [p.gbt_rule for p in official.values()] == ["gbt", "theta-c", "theta-c"]


def response_time(rate: float, momentum: float, coefficient: float, channels: int) -> float:
    """After how many iterations the class logits have come 63 % of the way: K (1 - mu) / (2 lr coefficient)."""
    return channels * (1 - momentum) / (2 * rate * coefficient)


@pytest.mark.parametrize("iterations", [20, 700, 5000, 100_000])
@pytest.mark.parametrize("channels", [5, 11, 81, 1204])
def test_short_runs_keep_the_windows_share_but_at_least_100_iterations(iterations: int, channels: int) -> None:
    share = iterations / 180_000
    own = profiles.profile_for("default", "toy", iterations, channels).gbr
    assert 1 / (1 - own.matrix_momentum) == pytest.approx(max(2000 * share, 100), rel=0.01, abs=1)
    response = response_time(own.rate, own.momentum, own.coefficient, channels)
    paper = response_time(0.01, 0.9, 1.0, channels)
    assert response == pytest.approx(max(paper * share, 100))
    assert own.rate * own.coefficient * 2 / channels < 0.5


def test_long_runs_keep_the_constants() -> None:
    assert profiles.profile_for("default", "coco-o365", 360_000, 366).gbr.matrix_momentum == 0.9995
    assert short_runs.raised_rate(0.01, 0.9, 1.0, 11, 180_000) == 0.01
    assert short_runs.shortened_count(1000, 360_000) == 1000


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("theta", [0.51, 0.6, 0.75, 0.9, 0.99])
def test_a_threshold_of_a_short_run_is_the_score_at_which_the_expected_focal_loss_is_least(
    theta: float, gamma: float
) -> None:
    scores = np.linspace(0.0005, 0.9995, 9_991)
    expected = -theta * (1 - scores) ** gamma * np.log(scores) - (1 - theta) * scores**gamma * np.log(1 - scores)
    assert short_runs.focal_threshold(theta, gamma, 1) == pytest.approx(scores[expected.argmin()], abs=2e-4)


def test_thresholds_are_the_papers_in_long_runs_under_cross_entropy_and_where_they_are_low() -> None:
    assert short_runs.focal_threshold(0.9, 1.0, 180_000) == 0.9
    assert short_runs.focal_threshold(0.9, 1.0, 360_000) == 0.9
    assert short_runs.focal_threshold(0.9, 0.0, 900) == 0.9
    kept = [0.0, 0.15, 0.5, 1.0]
    assert [short_runs.focal_threshold(theta, 1.0, 900) for theta in kept] == kept
    half = short_runs.focal_threshold(0.9, 1.0, 90_000)
    assert half == pytest.approx((0.9 + short_runs.focal_threshold(0.9, 1.0, 1)) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("variant", "used"), [("", 0.775), ("fl", 0.775), ("gbt", 0.9), ("crs+gbt", 0.9), ("theta-0.5", 0.5)]
)
def test_only_rows_with_the_focal_loss_lower_theta_in_short_runs_and_say_so(variant: str, used: float) -> None:
    parts = Ours(facts(iterations=900, variant=METHOD.variants.get(variant, {})))
    assert parts.theta_fixed.tolist() == pytest.approx([used] * 4, abs=1e-3)
    assert parts.departures().get("theta") == (None if used in (0.9, 0.5) else [0.9, pytest.approx(used, abs=1e-3)])


@pytest.mark.parametrize(("variant", "used"), [("", 0.775), ("fl", 0.775), ("theta-0.5", 0.775), ("gbt", 0.9)])
def test_the_rpns_threshold_is_the_same_probability_as_theta_in_short_runs(variant: str, used: float) -> None:
    parts = Ours(facts(iterations=900, variant=METHOD.variants.get(variant, {})))
    assert parts.rpn_threshold(0.9) == pytest.approx(used, abs=1e-3)
    assert parts.departures().get("rpn_threshold") == (None if used == 0.9 else [0.9, pytest.approx(used, abs=1e-3)])
    assert Ours(facts(variant=METHOD.variants.get(variant, {}))).rpn_threshold(0.9) == 0.9


def test_every_departure_from_the_paper_is_named_and_can_be_written_to_json() -> None:
    found = Ours(facts(iterations=700)).departures()
    assert found["gbr.matrix_momentum"] == [0.9995, pytest.approx(0.99)]
    assert found["gbr.target_bounds"] == [[0.001, None], [pytest.approx(1 / 3), 5.0]]
    assert found["gbt.warmup"] == [0.0, pytest.approx(12 / 180)]
    assert json.loads(json.dumps(found)) == found
    assert "gbr.beta" not in found


def test_beta_1_weights_labelled_images_as_unlabelled_ones_and_is_recorded() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4])
    found, paper = (Ours(facts(variant=METHOD.variants.get(name, {}))) for name in ("beta-1", ""))
    for parts in (found, paper):
        assert parts.balance is not None
        parts.balance.logits.copy_(torch.tensor([-0.2, 0.0, 0.3, 0.6, -0.4]))
        w = parts.balance.weights
        torch.testing.assert_close(parts.balance.row_weights(labels, "unsup_cls"), w)
        torch.testing.assert_close(parts.balance.row_weights(labels, "sup"), w if parts is found else w.sqrt())
    assert found.departures() == {**paper.departures(), "gbr.beta": [0.5, 1.0]}


# The parts without a detector.


@pytest.mark.parametrize("variant", ["", "labelmatch", "gbt"])
def test_two_ranks_with_half_the_data_have_the_state_of_one_with_all(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = METHOD.variants.get(variant, {})
    whole, ranks = ours(variant=fields), [ours(variant=fields) for _ in range(2)]
    for iteration in range(20):
        context = iterate(whole, iteration, slice(0, 40))
        whole.after_iteration(context)
        contexts = [
            iterate(part, iteration, place) for part, place in zip(ranks, (slice(0, 10), slice(10, 40)), strict=True)
        ]
        total = ranks[0].sums + ranks[1].sums
        with monkeypatch.context() as patched:
            patched.setattr(Context, "sum_over_ranks", staticmethod(lambda values, total=total: total.clone()))
            for part, own in zip(ranks, contexts, strict=True):
                part.after_iteration(own)
        assert contexts[0].logs.keys() == context.logs.keys()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(ranks[0].state_dict()[name].double(), value.double(), rtol=0, atol=1e-11)
        assert torch.equal(ranks[0].state_dict()[name], ranks[1].state_dict()[name]), name
    assert not ranks[0].sums.any()
    if whole.balance is not None:
        assert (whole.balance.weights - 1).abs().max() > 1e-3


def test_losses_that_may_not_collect_leave_the_state_untouched() -> None:
    parts = ours()
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    logits, labels, v = rows(0, 20)
    for branch in ("sup", "unsup_cls"):
        context = Context(1, 40, branch=branch, collect=False)  # type: ignore[arg-type]
        parts.classification_loss(logits, labels, v, v.sum(), context)
    assert not parts.sums.any()
    assert all(torch.equal(before[name], value) for name, value in parts.state_dict().items())


def test_a_batch_with_a_loss_that_is_not_finite_leaves_no_trace_in_the_state() -> None:
    parts = ours()
    for iteration in range(6):
        parts.after_iteration(iterate(parts, iteration, slice(0, 40)))
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    context = Context(6, 40, branch="sup", collect=True)
    logits, labels, v = rows(6, 10)
    parts.classification_loss(logits * float("nan"), labels, v, v.sum(), context)
    parts.after_iteration(context)
    assert all(torch.equal(before[name], value) for name, value in parts.state_dict().items())
    parts.after_iteration(iterate(parts, 7, slice(0, 40)))
    assert all(torch.isfinite(value).all() for value in parts.state_dict().values())


def test_labelled_rows_weigh_the_root_of_the_class_weight_and_unlabelled_rows_the_whole() -> None:
    parts = ours()
    assert parts.balance is not None
    parts.balance.logits = torch.tensor([1.0, -1.0, 0.5, 0.0, -0.5], dtype=torch.float64)
    parts.balance.means = torch.tensor([0.8, 1.25], dtype=torch.float64)
    logits, labels, v = rows(4, 30)
    w = (5 * parts.balance.logits.softmax(0)).clamp(1 / 3, 5)[labels]
    p = logits.softmax(1)[torch.arange(30), labels]
    losses = v * (1 - p) * -p.log()
    for branch, weights in (("sup", w.sqrt() / 0.8), ("unsup_cls", w / 1.25)):
        found = parts.classification_loss(logits, labels, v, torch.tensor(7.0), Context(1, 40, branch=branch))  # type: ignore[arg-type]
        torch.testing.assert_close(found, (weights * losses).sum() / 7)


def test_thresholds_are_fixed_during_the_warmup_and_follow_weights_and_scores_after_it() -> None:
    parts = ours()
    assert parts.balance is not None
    assert parts.scores is not None
    parts.balance.logits = torch.tensor([-1.0, 0.0, 0.2, 1.0, 0.0], dtype=torch.float64)
    parts.scores.scores = torch.tensor([0.4, 0.3, 0.3, 0.2], dtype=torch.float64)
    theta = short_runs.focal_threshold(0.9, 1.0, 40)
    assert parts.thresholds(Context(2, 40)).tolist() == pytest.approx([theta] * 4)  # warm-up: 2.67 iterations
    w = 5 * parts.balance.logits.softmax(0)[:4]
    expected = torch.minimum(theta / w, theta * parts.scores.scores / 0.3).clamp(0.5, theta)
    torch.testing.assert_close(parts.thresholds(Context(3, 40)), expected)
    parts.threshold_start = 3.0  # a whole number: the warm-up is over with the iteration before it
    torch.testing.assert_close(parts.thresholds(Context(3, 40)), expected)


def test_labelmatchs_thresholds_have_the_initial_one_below_them_and_none_above() -> None:
    parts = ours(variant=METHOD.variants["labelmatch"])
    assert parts.labelmatch is not None
    parts.labelmatch.theta = torch.tensor([0.2, 0.5, 0.7, 0.95], dtype=torch.float64)
    assert parts.thresholds(Context(39, 40)).tolist() == [0.5, 0.5, 0.7, 0.95]


def test_crs_says_nothing_of_d_u_in_generation_0() -> None:
    for generation, sources in ((0, {0}), (1, {0, 1})):
        copies = ours().copies(Context(10 * generation, 40, generation, 4))
        assert copies is not None
        assert copies.keys() == sources


def test_fresh_images_are_those_of_the_generation_that_ended() -> None:
    box = Detections(0, 0, torch.zeros(1, 4), torch.tensor([2]), torch.tensor([0.8]))
    for iteration, fresh in ((9, 0.0), (10, 1 / 6)):  # of 4 generations of 10 iterations the second ends
        parts = ours()
        parts.observe_detections([box], Context(iteration, 40))
        parts.copies(Context(20, 40, generation=2, generations=4))
        assert parts.rebalancing is not None
        assert parts.rebalancing.numbers["pool_fresh"] == fresh


def test_crs_uses_the_thresholds_of_the_variant_for_its_margin() -> None:
    box = Detections(0, 0, torch.zeros(1, 4), torch.tensor([2]), torch.tensor([0.8]))
    task = tiny_task(crs_gamma=500.0)
    drawn = {}
    for variant in ("theta-0.5", "theta-0.9"):
        parts = Ours(facts(variant=METHOD.variants[variant], task=task))
        parts.observe_detections([box], Context(0, 180_000))
        copies = parts.copies(Context(18_000, 180_000, generation=1, generations=10))
        assert copies is not None
        drawn[variant] = copies[1].tolist()
    assert drawn["theta-0.9"] == [1] * 6
    assert drawn["theta-0.5"][0] > 1
    assert drawn["theta-0.5"][1:] == [1] * 5


def test_the_settings_theta_and_initial_threshold_bound_the_thresholds() -> None:
    settings: Settings = replace(FULL, theta=0.7, initial_threshold=0.3)
    parts = Ours(facts(settings=settings))
    assert parts.balance is not None
    parts.balance.logits = torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0])
    assert parts.scores is not None
    parts.scores.scores = torch.tensor([0.1, 0.5, 0.5, 0.5])
    found = parts.thresholds(Context(20_000, 180_000))
    assert found.tolist() == pytest.approx([0.3, 0.7, 0.7, 0.7])


def test_ours_states_the_papers_numbers() -> None:
    method = load_method("ours")
    assert method.title == "Ours"
    assert method.reported["coco-split1"] == {"all": 26.5, "maj": 30.7, "min": 13.9}
    assert method.reported["lvis"] == {"all": 8.9, "f": 21.7, "c": 12.3, "r": 4.2}
