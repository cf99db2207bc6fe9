"""The table of expectations in docs/league.md: differences, their uncertainty, and when one is decided."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from expectations import (
    EXPECTED,
    LIMITS,
    RULES,
    SEEDS,
    Expectation,
    Seen,
    difference,
    expectations_of,
    is_clear,
    scores_of,
)
from score_records import finished, runs_of

from cissod_bench.sweeping.queue_file import read_queue

ROOT = Path(__file__).resolve().parents[1]
MINORITY = {"a": (10.0, 12.0, 11.0), "b": (9.0, 9.0, 9.0), "c": (5.0, 14.0, 10.0), "few": (90.0, 90.0)}
SCORES = {
    name: {seed: {"min": value, "maj": 50 - value} for seed, value in enumerate(values)}
    for name, values in MINORITY.items()
}


def test_a_difference_is_the_mean_of_those_seed_by_seed_with_its_standard_error() -> None:
    """1, 3, 2: mean 2, standard deviation 1."""
    found = difference(SCORES, Expectation(1, "a", "b", "min", "above"))
    assert found == ("b", pytest.approx(2.0), pytest.approx(1 / math.sqrt(3)), 3)
    other = difference(SCORES, Expectation(1, "a", "b", "maj", "above"))
    assert other == ("b", pytest.approx(-2.0), pytest.approx(1 / math.sqrt(3)), 3)


def test_of_several_the_one_with_the_highest_mean_is_taken() -> None:
    found = difference(SCORES, Expectation(1, "a", ("b", "c"), "min", "higher"))
    assert found is not None
    assert found[:2] == ("c", pytest.approx(11 - 29 / 3))


@pytest.mark.parametrize(
    ("left", "right"), [("a", "few"), ("few", "a"), ("a", "none"), ("none", "a"), ("a", ("b", "few"))]
)
def test_fewer_than_three_seeds_decide_nothing(left: str, right: str | tuple[str, ...]) -> None:
    assert difference(SCORES, Expectation(1, left, right, "min", "above")) is None


@pytest.mark.parametrize(
    ("rule", "holds", "fails"),
    [
        ("above", (0.6, 0.5), (0.5, 0.5)), ("not above", (0.5, 0.5), (0.6, 0.5)), ("below", (-0.6, 0.5), (-0.5, 0.5)),
        ("higher", (0.1, 9.0), (0.0, 9.0)), ("not lower", (0.0, 9.0), (-0.1, 9.0)), ("15 or more", (15, 9), (14.9, 9)),
        ("less than 2", (1.9, 9), (2, 9)), ("less than 1", (0.9, 9), (1, 9)), ("-1 or less", (-1, 9), (-0.9, 9)),
        ("-1 or more", (-1, 9), (-1.1, 9)), ("within 1", (-1, 9), (1.1, 9)),
    ],
)  # fmt: skip
def test_a_rule_holds_up_to_its_limit(rule: str, holds: tuple[float, float], fails: tuple[float, float]) -> None:
    assert RULES[rule](*holds)
    assert not RULES[rule](*fails)


@pytest.mark.parametrize(
    ("rule", "mean", "clear"),
    [
        ("above", 4.4, True), ("above", 4.2, False), ("above", -4.4, True), ("higher", -4.2, False),
        ("15 or more", 19.4, True), ("15 or more", 10.9, False), ("-1 or more", 3.4, True), ("-1 or more", -1.0, False),
        ("within 1", 5.4, True), ("within 1", 5.2, False), ("within 1", 0.0, False),
    ],
)  # fmt: skip
def test_a_yes_or_no_is_clear_if_no_limit_lies_within_4_3_standard_errors(rule: str, mean: float, clear: bool) -> None:
    """Student's t with two degrees of freedom; the standard error is 1."""
    assert is_clear(Seen("b", mean, 1.0, 3), rule) is clear


def test_more_seeds_need_fewer_standard_errors() -> None:
    """2.57 with five degrees of freedom."""
    assert not is_clear(Seen("b", 2.5, 1.0, 6), "above")
    assert is_clear(Seen("b", 2.6, 1.0, 6), "above")


def test_every_rule_changes_its_word_at_its_limits() -> None:
    assert RULES.keys() == LIMITS.keys()
    for rule, limits in LIMITS.items():
        for limit in limits:
            assert RULES[rule](limit - 0.1, 0.0) != RULES[rule](limit + 0.1, 0.0), rule


def test_every_line_of_the_page_is_in_the_table_and_every_row_is_run_by_the_queue() -> None:
    page = (ROOT / "docs" / "league.md").read_text(encoding="utf-8")
    listed = page.split("### What the paper leads us to expect")[1].split("The first thing to look for")[0]
    assert {expected.number for expected in EXPECTED} == set(map(int, re.findall(r"^(\d+)\. ", listed, re.MULTILINE)))
    cells = read_queue(ROOT / "results" / "league.toml").cells
    queued = {
        (cell.task, f"{cell.method}{cell.variant and f'+{cell.variant}'}", cell.split_seed, cell.seed) for cell in cells
    }
    for expected in EXPECTED:
        rights = (expected.right,) if isinstance(expected.right, str) else expected.right
        for name in (expected.left, *rights):
            assert {(expected.task, name, 0, seed) for seed in range(SEEDS)} <= queued, name
        assert expected.rule in RULES


def test_the_table_has_what_is_decided_and_counts_the_rest() -> None:
    minority = {"oracle": (30.0, 31.0, 32.0), "supervised": (10.0, 12.0, 11.0)}
    records = [
        finished(name, seed, task="voc-animals", ap={"teacher": {"min": value, "maj": 30.0}})
        for name, values in minority.items()
        for seed, value in enumerate(values)
    ]
    elsewhere = replace(records[0], split_seed=1, ap={"teacher": {"min": 0.0, "maj": 0.0}})
    runs = runs_of(*records, elsewhere)
    assert scores_of(runs, "voc-animals")["oracle"][0]["min"] == 30.0
    (table,) = expectations_of(runs).values()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert rows == [
        ["1", "Oracle − Supervised", "minority", "15 or more", "+20.0 ± 0.6", "yes", "clear"],
        ["", f"{len(EXPECTED) - 1} more", "", "", "–", "not yet", ""],
    ]
