"""Kendall's tau of our rows with the paper's, and what its uncertainty holds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau
from score_records import report_of, scored

from cissod_bench.catalogue import Entry, list_reports, load_report
from cissod_bench.reporting.paper_tables import METHODS, TABLES
from cissod_bench.reporting.rank_agreement import exact_p, interval, kendall

ENTRIES = {name: Entry(name, title, "", "") for name, title in METHODS.items()}
PRINTED = {method: TABLES[0].value("coco-split1", method, "min") or 0.0 for method in METHODS}


def by_pairs(ours: list[float], theirs: list[float]) -> float:
    """tau-b as its definition counts it."""
    pairs = list(itertools.combinations(range(len(ours)), 2))
    signs = [(np.sign(ours[a] - ours[b]), np.sign(theirs[a] - theirs[b])) for a, b in pairs]
    told = math.sqrt(sum(bool(one) for one, _ in signs) * sum(bool(other) for _, other in signs))
    return float(sum(one * other for one, other in signs)) / told


@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_that_of_all_pairs_and_scipys(ties: bool) -> None:
    dice = np.random.default_rng(1)
    for _ in range(20):
        ours, theirs = (dice.integers(4, size=7) if ties else dice.permutation(7) for _ in range(2))
        if len(set(ours)) > 1 < len(set(theirs)):
            tau = float(kendall(ours.astype(float), theirs.astype(float)))
            assert tau == pytest.approx(by_pairs(ours.tolist(), theirs.tolist()))
            assert tau == pytest.approx(kendalltau(ours, theirs).statistic)
            if not ties:
                exact = kendalltau(ours, theirs, method="exact").pvalue
                assert exact_p(ours.astype(float), theirs.astype(float)) == pytest.approx(exact)


def test_lists_without_an_order_have_no_tau() -> None:
    printed = np.arange(4.0)
    assert np.isnan(kendall(np.ones(4), printed))
    assert np.isnan(exact_p(np.ones(4), printed))
    assert interval([[1.0, 1.0]] * 4, printed) is None


def test_means_of_the_same_numbers_are_a_tie_in_whatever_order_they_were_summed() -> None:
    means = np.array([np.mean(aps) for aps in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [1.0], [2.0])])
    assert means[0] != means[1]
    printed = np.array([1.0, 2.0, 3.0, 4.0])
    assert kendall(means, printed) == kendall(np.array([0.2, 0.2, 1.0, 2.0]), printed) < 1.0
    assert kendall(printed, means) == kendall(means, printed)


def test_the_interval_is_of_seeds_drawn_anew_and_needs_two() -> None:
    printed = np.array([1.0, 2.0, 3.0, 4.0])
    assert interval([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1], [4.0, 4.1]], printed) == (1.0, 1.0)
    low, high = interval([[1.0, 3.05], [2.0, 2.1], [3.5, 3.6], [4.0, 4.1]], printed) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(2 / 3), 1.0)  # the first is above the second in a quarter of the draws
    assert interval([[1.0], [2.0, 2.1]], printed[:2]) is None


def test_the_interval_does_not_depend_on_how_the_draws_begin() -> None:
    """All classes of the toy long tail beside Table 3: tau takes few values, and one of them ends the interval."""
    seeds = [
        [49.64, 52.43, 50.4], [57.86, 58.02, 57.88], [55.64, 60.37, 54.04], [57.1, 62.44, 59.95], [52.75, 54.87, 54.98],
        [56.83, 59.12, 58.21],
    ]  # fmt: skip
    printed = np.array([7.6, 8.0, 8.1, 8.6, 8.7, 8.9])
    ends = [interval(seeds, printed, start=start) for start in range(6)]
    assert ends == [pytest.approx((1 / 15, 7 / 15))] * 6


def test_rows_in_the_papers_order_have_tau_1_beside_its_table() -> None:
    runs = [
        scored(method, seed, (ap, 90.0 - ap, 2 * ap + seed / 9)) for method, ap in PRINTED.items() for seed in (0, 1)
    ]
    report = report_of("ranking", *runs, methods=ENTRIES)
    (listing,) = report.listings
    assert listing.title == "Order of the methods: Toy shapes"
    assert [line[0] for line in listing.lines if line[0]] == [
        "Table 1, MS-COCO split 1", "Table 1, MS-COCO split 2", "Table 2, MS-COCO → Objects365"
    ]  # fmt: skip
    smallest = 2 / math.factorial(8)
    (line,) = [
        line for line in listing.data.to_dict("records") if (line["beside"], line["column"]) == ("coco-split1", "min")
    ]
    assert [line[name] for name in ("methods", "tau", "low", "high", "p")] == [
        8,
        1.0,
        1.0,
        1.0,
        pytest.approx(smallest),
    ]
    assert listing.lines[1][3:] == ("–", "–", "–")  # all have 45 on the majority
    assert listing.lines[2] == ("", "min", "8", "+1.00", "+1.00 to +1.00", "<0.001")
    assert len(report.notes) == 2


@pytest.mark.parametrize("changes", [{"settings": {"lr": 0.5}}, {"variant": "x"}, {"preset": "smoke"}])
def test_other_settings_variants_and_scales_do_not_count(changes: dict[str, Any]) -> None:
    four = [scored(method, 0, (ap, ap, ap)) for method, ap in list(PRINTED.items())[:4]]
    odd = scored("ours", 0, (1.0, 1.0, 1.0), **changes)
    (listing,) = report_of("ranking", *four, odd, scored("oracle", 0, (99.0,) * 3), methods=ENTRIES).listings
    assert {line[2] for line in listing.lines} == {"4"}
    assert {line[4] for line in listing.lines} == {"–"}  # one seed


def test_a_method_that_makes_its_constant_of_a_setting_counts() -> None:
    """Ours asks for theta = .775 in a short run whose setting is .9."""
    other = {"settings": {"theta": 0.9}}
    runs = [scored(method, 0, (ap, ap, ap), **other) for method, ap in list(PRINTED.items())[:4]]
    ours = scored("ours", 0, (50.0, 50.0, 50.0), **other, departures={"theta": [0.9, 0.775]})
    (listing,) = report_of("ranking", *runs, ours, methods=ENTRIES).listings
    assert {line[2] for line in listing.lines} == {"5"}
    odd = scored("ours", 0, (50.0, 50.0, 50.0), settings={"theta": 0.5}, departures={"theta": [0.9, 0.5]})
    (listing,) = report_of("ranking", *runs, odd, methods=ENTRIES).listings
    assert {line[2] for line in listing.lines} == {"4"}


@pytest.mark.parametrize("odd", ["soft-teacher", "rfs", "ours"])
def test_the_settings_of_most_methods_count_whichever_was_run_with_others_too(odd: str) -> None:
    runs = [scored(method, 0, (ap, ap, ap), settings={"lr": 0.01}) for method, ap in PRINTED.items()]
    others = [scored(odd, seed, (99.0, 99.0, 99.0), settings={"lr": 0.001}) for seed in range(2)]
    (listing,) = report_of("ranking", *others, *runs, methods=ENTRIES).listings
    assert {line[2] for line in listing.lines} == {"8"}
    assert listing.lines[2][3] == "+1.00"


def test_three_methods_have_no_order_to_speak_of() -> None:
    three = [scored(method, 0, (ap, ap, ap)) for method, ap in list(PRINTED.items())[:3]]
    report = report_of("ranking", *three, methods=ENTRIES)
    assert (report.listings, report.notes) == ((), ())


def test_every_report_has_a_place_of_its_own_on_the_page() -> None:
    places = [load_report(name)([], ()).order for name in list_reports()]
    assert len(set(places)) == len(places) > 5
