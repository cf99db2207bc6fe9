"""Departures from the paper, once per set of settings; words and roles of class groups; runs as keys."""

from __future__ import annotations

from score_records import runs_of, scored

from cissod_bench.reporting.averaging import marks, run_words
from cissod_bench.reporting.departures import change_words, departures
from cissod_bench.reporting.groups import roles


def test_runs_with_the_same_departures_share_one_set() -> None:
    slow, fast = {"lr": [0.01, 0.001]}, {"lr": [0.01, 0.1]}
    runs = runs_of(
        scored("ours", 0, departures=slow),
        scored("ours", 1, departures=fast),
        scored("ours", 2, departures=slow),
        scored("rfs", 0, departures=slow),
        scored("ours", 3),
    )
    first, second = departures(runs)
    assert first.settings == slow
    assert first.runs == {"toy, ours, mini-default": [0, 2], "toy, rfs, mini-default": [0]}
    assert (second.settings, second.runs) == (fast, {"toy, ours, mini-default": [1]})


def test_a_seed_stands_once_for_every_draw_and_name_it_was_used_with() -> None:
    lr = {"lr": [0.01, 0.1]}
    usual = [scored(seed=seed, departures=lr) for seed in (0, 1, 0)]  # a copied folder among them
    others = [scored(departures=lr, split_seed=seed) for seed in (1, 2)] + [scored(departures=lr, name="wide")]
    (only,) = departures(runs_of(*usual, *others))
    assert only.runs == {
        "toy, ours, mini-default": [0, 1],
        "toy, ours, mini-default, split seed 1": [0],
        "toy, ours, mini-default, split seed 2": [0],
        "toy, ours, mini-default+wide": [0],
    }
    words = {run_words(record) for record in (*usual, *others)}
    assert len(words) == 5


def test_a_variant_is_named_and_settings_that_change_no_number_are_no_departure() -> None:
    runs = runs_of(
        scored(variant="gbr", departures={"workers": [5, 0], "lr": [0.01, 0.1]}), scored(departures={"workers": [5, 0]})
    )
    (only,) = departures(runs)
    assert only.settings == {"lr": [0.01, 0.1]}
    assert list(only.runs) == ["toy, ours+gbr, mini-default"]
    assert change_words(only.settings["lr"]) == "0.01 -> 0.1"


def test_the_most_and_the_least_frequent_group_play_the_same_roles_whatever_lies_between() -> None:
    assert roles(["maj", "min"]) == {"maj": 0, "min": 1}
    assert roles(["f", "c", "r"]) == {"f": 0, "c": 2, "r": 1}
    assert roles(["all"]) == {"all": 0}
    assert roles([]) == {}


def test_two_runs_with_equal_records_are_two_keys() -> None:
    runs = runs_of(scored(), scored())
    assert runs[0].record == runs[1].record
    assert marks(runs) == {runs[0]: "", runs[1]: ""}
    assert len(marks(runs)) == 2
