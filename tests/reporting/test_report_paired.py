"""Ours against each baseline over training seeds; the spread over split seeds beside the one over training seeds."""

from __future__ import annotations

import io
import itertools
import json
import math
import statistics
from typing import Any

import pytest
from rich.console import Console
from score_records import report_of, runs_of, scored
from split_folders import made_manifest

from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.rendering.formats import RENDERERS
from cissod_bench.rendering.terminal import print_rich
from cissod_bench.reporting.paired_tests import Paired, least_flip, paired, paired_t, sign_flips, t_two_sided
from reports.split_spread import pooled_std

METHODS = {
    "soft-teacher": Entry("soft-teacher", "Soft Teacher", "", ""),
    "rfs": Entry("rfs", "RFS", "", ""),
    "ours": Entry("ours", "Ours", "", ""),
    "oracle": Entry("oracle", "Oracle", "", "", {"competitor": False}),
}


def flat(method: str, ap: float, seed: int = 0, **changes: Any) -> RunRecord:
    return scored(method, seed, (ap, ap, ap), **changes)


# Quantiles of Student's t as tables print them: P(|T| >= t) with v degrees of freedom.
@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [
        (12.7062047, 1, 0.05), (4.3026527, 2, 0.05), (3.1824463, 3, 0.05), (2.7764451, 4, 0.05), (2.5705818, 5, 0.05),
        (2.2281389, 10, 0.05), (3.1692727, 10, 0.01), (63.6567412, 1, 0.01), (9.9248432, 2, 0.01),
        (2.0422725, 30, 0.05), (0.0, 7, 1.0),
    ],
)  # fmt: skip
def test_t_has_the_tabled_tails(t: float, freedom: int, p: float) -> None:
    assert t_two_sided(t, freedom) == pytest.approx(p, abs=1e-7)
    assert t_two_sided(-t, freedom) == t_two_sided(t, freedom)


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 9])
def test_t_is_the_integral_of_its_density(freedom: int) -> None:
    # f(x) = Gamma((v+1)/2) / (sqrt(v pi) Gamma(v/2)) (1 + x^2/v)^(-(v+1)/2), Simpson's rule on [0, 1.7]
    front = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    steps, end = 400, 1.7
    values = [front * (1 + (end * k / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for k in range(steps + 1)]
    inside = (
        end / steps / 3 * sum(value * (1 if k in (0, steps) else 4 if k % 2 else 2) for k, value in enumerate(values))
    )
    assert t_two_sided(end, freedom) == pytest.approx(1 - 2 * inside, abs=1e-9)


def test_the_paired_t_test_is_that_of_the_differences() -> None:
    differences = [1.0, 2.0, 4.0]
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(3))
    found = paired(differences)
    assert (found.n, found.mean, found.std) == (3, pytest.approx(7 / 3), pytest.approx(1.5275252))
    assert found.p_t == pytest.approx(t_two_sided(t, 2))
    assert found.p_t == pytest.approx(0.1180, abs=1e-4)  # t = 2.6458


def test_without_variation_or_a_second_pair_there_is_no_t_test() -> None:
    assert paired_t([2.0]) is None
    assert paired_t([2.0, 2.0, 2.0]) is None
    assert paired([]) == Paired(0, None, None, None, None)
    assert paired([1.0]) == Paired(1, 1.0, None, None, 1.0)


@pytest.mark.parametrize(
    "differences", [[1.0, 2.0, 4.0], [1.0, -2.0, 0.5, 3.0], [0.0, 0.0], [0.3, 0.1, -0.2, 0.2, 0.2]]
)
def test_sign_flips_are_counted_over_every_choice_of_signs(differences: list[float]) -> None:
    observed = abs(sum(differences))
    choices = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) for signs in choices]
    assert sign_flips(differences) == sum(value >= observed - 1e-9 for value in sums) / len(choices)


def test_three_seeds_give_a_quarter_at_best() -> None:
    assert sign_flips([5.0, 6.0, 7.0]) == least_flip(3) == 0.25
    assert sign_flips([1.0] * 8) == least_flip(8) == 2 / 2**8
    assert sign_flips([1.0] * 17) is None
    report = report_of("paired", flat("ours", 30.0), flat("rfs", 20.0), methods=METHODS)
    assert any("0.25 with 3" in note for note in report.notes)


def test_differences_are_taken_seed_by_seed_and_lone_seeds_are_left_out() -> None:
    ours = [flat("ours", ap, seed) for seed, ap in enumerate((30.0, 33.0, 36.0, 99.0))]
    others = [flat("rfs", ap, seed) for seed, ap in [(0, 29.0), (1, 31.0), (2, 32.0), (7, 1.0)]]
    (listing,) = report_of("paired", *ours, *others, methods=METHODS).listings
    assert listing.title == "Paired tests: Ours against the others, Toy shapes"
    assert listing.scale == "preset mini, profile default, split seed 0"
    (line,) = [line for line in listing.data.to_dict("records") if line["column"] == "all"]
    assert [line[name] for name in ("n", "ours_mean", "other_mean")] == [3, 33.0, pytest.approx(92 / 3)]
    assert [line[name] for name in ("difference", "std")] == pytest.approx([7 / 3, 1.5275252])
    assert [line[name] for name in ("p_t", "p_flip", "p_flip_least")] == pytest.approx([0.1180, 0.25, 0.25], abs=1e-4)
    assert listing.lines[0] == ("RFS", "all", "3", "33.0", "30.7", "+2.3 ±1.5", "0.118", "0.250", "0.250")
    assert [line[:2] for line in listing.lines] == [("RFS", "all"), ("", "maj"), ("", "min")]


def test_all_other_methods_are_compared_and_the_references_come_last() -> None:
    runs = [flat(method, 30.0) for method in ("oracle", "rfs", "soft-teacher", "ours")]
    (listing,) = report_of("paired", *runs, flat("ours", 1.0, variant="gbr"), methods=METHODS).listings
    assert [line[0] for line in listing.lines if line[0]] == ["Soft Teacher", "RFS", "Oracle (reference)"]
    assert listing.lines[0][2:] == ("1", "30.0", "30.0", "+0.0", "–", "1.000", "1.000")


@pytest.mark.parametrize(
    "change", [{"preset": "smoke"}, {"profile": "paper"}, {"split_seed": 1}, {"split_sha256": "cd" * 32}, {"task": "x"}]
)
def test_runs_of_another_split_or_scale_are_no_pair(change: dict[str, Any]) -> None:
    report = report_of("paired", flat("ours", 30.0), flat("rfs", 20.0, **change), methods=METHODS)
    assert [listing.lines for listing in report.listings] == []
    assert report.notes == ()


def test_other_settings_are_no_pair_and_the_note_names_them() -> None:
    ours = flat("ours", 30.0, settings={"lr": 0.01, "workers": 1}, hardware={"world_size": 1})
    rfs = flat("rfs", 20.0, settings={"lr": 0.02, "workers": 1}, hardware={"world_size": 1})
    alone = flat("soft-teacher", 20.0, settings={"lr": 0.01, "workers": 5}, hardware={"world_size": 8})
    (listing,) = report_of("paired", ours, rfs, alone, methods=METHODS).listings
    assert listing.lines == ()
    assert listing.notes == (
        "Soft Teacher: not compared, it was run with other settings (world_size).",
        "RFS: not compared, it was run with other settings (lr).",
    )
    free = flat("rfs", 20.0, settings={"lr": 0.01, "workers": 5}, hardware={"world_size": 1})
    constants = flat("ours", 30.0, settings={"lr": 0.01}, hardware={"world_size": 1}, departures={"gbr.rate": [1, 2]})
    assert len(report_of("paired", constants, free, methods=METHODS).listings[0].lines) == 3
    (apart,) = report_of("paired", flat("ours", 30.0), flat("rfs", 20.0, seed=1), methods=METHODS).listings
    assert apart.notes == ("RFS: not compared, no training seed is the same.",)


def test_an_undefined_score_has_no_difference() -> None:
    runs = [scored(method, aps=(30.0, 30.0, None)) for method in ("ours", "rfs")]
    (listing,) = report_of("paired", *runs, methods=METHODS).listings
    assert listing.lines[2] == ("", "min", "0", "–", "–", "–", "–", "–", "–")


def many_splits() -> list[RunRecord]:
    return [
        flat(method, ap, seed, split_seed=split, split_sha256=f"{split}" * 64)
        for method in ("ours", "soft-teacher")
        for split, seed, ap in [(0, 0, 30.0), (1, 0, 33.0), (2, 0, 36.0), (0, 1, 31.0), (0, 2, 32.0), (1, 1, 37.0)]
    ]


def test_the_spread_over_splits_stands_beside_the_one_over_seeds() -> None:
    (listing,) = report_of("split_spread", *many_splits(), methods=METHODS).listings
    assert (listing.title, listing.scale) == ("Spread over splits: Toy shapes", "preset mini, profile default")
    lines = [line for line in listing.data.to_dict("records") if (line["title"], line["column"]) == ("Ours", "all")]
    assert [(line["seed"], line["splits"], line["mean"]) for line in lines] == [(0, 3, 33.0), (1, 2, 34.0)]
    assert [line["std_splits"] for line in lines] == pytest.approx([3.0, statistics.stdev([31.0, 37.0])])
    # split 0: 30, 31, 32, squares 2, v = 2; split 1: 33, 37, squares 8, v = 1; split 2: none
    assert lines[0]["std_seeds"] == pytest.approx(math.sqrt((2 + 8) / 3))
    assert listing.lines[0] == ("Soft Teacher", "all", "0", "3", "33.0", "3.00", "1.83 (3)", "–", "–")
    assert [line[0] for line in listing.lines if line[0]] == ["Soft Teacher", "Ours", "Ours minus Soft Teacher"]
    assert {line[7] for line in listing.lines} == {"–"}  # differences that do not vary have no t test


def test_ours_is_compared_split_by_split_with_what_has_its_settings() -> None:
    draws = [{"split_seed": split, "split_sha256": f"{split}" * 64} for split in range(4)]
    ours = [flat("ours", ap, **draw) for ap, draw in zip((30.0, 33.0, 36.0, 40.0), draws, strict=True)]
    teacher = [flat("soft-teacher", ap, **draw) for ap, draw in zip((29.0, 30.0, 31.0), draws[:3], strict=True)]
    other = [flat("rfs", 9.0, settings={"lr": 0.5}, **draw) for draw in draws]
    seed = flat("soft-teacher", 0.0, seed=1, **draws[3])  # ours has no run with it
    (listing,) = report_of("split_spread", *ours, *teacher, *other, seed, methods=METHODS).listings
    lines = [line for line in listing.data.to_dict("records") if line["other"] and line["column"] == "all"]
    assert [(line["title"], line["splits"], line["mean"]) for line in lines] == [("Ours minus Soft Teacher", 3, 3.0)]
    assert lines[0]["std_splits"] == pytest.approx(statistics.stdev([1.0, 3.0, 5.0]))
    assert lines[0]["p_t"] == pytest.approx(paired_t([1.0, 3.0, 5.0]))
    assert lines[0]["p_flip"] == 0.25
    row = next(line for line in listing.lines if line[0] == "Ours minus Soft Teacher")
    assert row[1:] == ("all", "0", "3", "+3.0", "2.00", "–", "0.122", "0.250")


def test_one_sample_alone_has_no_pooled_deviation() -> None:
    assert pooled_std([[1.0], [2.0], []]) == (None, 0)
    assert pooled_std([[1.0, 3.0]]) == (pytest.approx(math.sqrt(2)), 1)


def test_one_split_has_no_spread() -> None:
    runs = [flat("ours", 30.0), flat("ours", 31.0, seed=1, split_seed=1, split_sha256="cd" * 32)]  # no seed in common
    report = report_of("split_spread", *runs, methods=METHODS)
    assert report.listings == ()
    assert report.notes == ()


def test_draws_with_other_options_settings_or_scales_are_not_mixed() -> None:
    runs = [flat("ours", 30.0, split_seed=split, split_sha256=f"{split}" * 64) for split in range(4)]
    splits = [
        made_manifest(split_sha256=f"{split}" * 64, cover="uniform", labelled_percent=percent)
        for split, percent in enumerate((10.0, 10.0, 5.0, 5.0))
    ]
    report = report_of("split_spread", *runs, methods=METHODS, splits=splits)
    assert [listing.lines[0][3] for listing in report.listings] == ["2", "2"]
    assert "labelled_percent 10.0" in report.listings[0].scale + report.listings[1].scale
    for change in ({"preset": "smoke"}, {"settings": {"lr": 0.5}}, {"hardware": {"world_size": 2}}):
        other = flat("ours", 30.0, split_seed=1, split_sha256="1" * 64, **change)
        assert report_of("split_spread", runs[0], other, methods=METHODS).listings == ()


def test_a_split_seed_with_two_draws_is_left_out() -> None:
    runs = [flat("ours", 30.0, split_seed=split, split_sha256=f"{split}" * 64) for split in range(3)]
    again = flat("rfs", 30.0, split_seed=2, split_sha256="9" * 64)
    (listing,) = report_of("split_spread", *runs, again, methods=METHODS).listings
    assert {line[3] for line in listing.lines} == {"2"}
    assert listing.notes == ("Split seed 2 is left out: runs have 2 different draws of it.",)


def test_every_format_shows_both() -> None:
    records = many_splits()
    reports = [report_of(name, *records, methods=METHODS) for name in ("paired", "split_spread")]
    for kind, render in RENDERERS.items():
        text = "\n".join(render(reports, runs_of(*records)).values())
        assert "Soft Teacher" in text, kind
        assert ("1.8257" if kind == "csv" else "1.83") in text, kind
    stream = io.StringIO()
    for report in reports:
        print_rich(report, Console(file=stream, width=160))
    assert "1.83 (3)" in stream.getvalue()
    assert "Difference" in stream.getvalue()
    assert json.loads(reports[0].numbers[0].to_json(orient="records"))[0]["other"] == "soft-teacher"
