"""Settings: the paper's numbers stand once, changes are checked, departures are named."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cissod_bench.contract import fidelity
from cissod_bench.contract.changes import checked, with_changes
from cissod_bench.contract.presets import MINI, PRESETS, preset
from cissod_bench.contract.settings import (
    FULL,
    SETTINGS,
    Settings,
    departures,
    learning_rate,
    learning_rate_for,
)
from cissod_bench.errors import UsageFault

BOUNDED = {name: setting for name, setting in SETTINGS.items() if setting.bounds}
TUPLES = {one.name for one in fields(Settings) if isinstance(getattr(FULL, one.name), tuple)}


def test_full_is_the_papers_section_4_2() -> None:
    full = preset("full", task_iterations=180_000)
    assert (full.iterations, full.generations, full.milestones) == (180_000, 10, (0.75, 0.90))
    assert (full.labelled_per_gpu, full.unlabelled_per_gpu, full.reference_images) == (1, 4, 40)
    assert (full.optimiser, full.lr, full.momentum, full.weight_decay) == ("sgd", 0.01, 0.9, 1e-4)
    assert (full.depth, full.long_side, full.test_short_side, full.theta) == (50, 1333, 800, 0.9)


def test_no_setting_of_full_departs_from_the_paper_on_eight_gpus() -> None:
    assert departures(preset("full", task_iterations=360_000), task_iterations=360_000, world_size=8) == {}


def test_a_smaller_batch_is_a_departure_with_its_learning_rate() -> None:
    found = departures(preset("full", task_iterations=180_000), task_iterations=180_000, world_size=1)
    assert found == {"images_per_iteration": [40, 5], "lr_used": [0.01, 0.00125]}


def test_mini_names_every_setting_it_changes() -> None:
    found = departures(MINI, task_iterations=180_000, world_size=1)
    changed = {f.name for f in fields(Settings) if getattr(MINI, f.name) != getattr(FULL, f.name)}
    assert changed <= set(found)
    assert found["depth"] == [50, 18]


def test_learning_rate_warms_up_and_falls_at_75_and_90_percent() -> None:
    full = preset("full", task_iterations=180_000)
    rates = [learning_rate(i, full, 8) for i in (0, 250, 500, 134_999, 135_000, 161_999, 162_000, 179_999)]
    expected = [1e-5, 0.01 * (0.001 + 0.999 / 2), 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    assert rates == pytest.approx(expected)


def test_a_stage_after_the_first_has_no_warm_up() -> None:
    full = preset("full", task_iterations=180_000)
    assert learning_rate(120, full, 8, (100, 1000)) == pytest.approx(0.01)


def test_learning_rate_is_scaled_with_the_images_per_iteration() -> None:
    assert learning_rate_for(FULL, 8) == pytest.approx(0.01)
    assert learning_rate_for(FULL, 2) == pytest.approx(0.0025)


def test_set_changes_a_setting_and_keeps_its_type() -> None:
    changed = with_changes(
        MINI,
        ["lr=0.5", "short-side=50,60", "amp=bf16", "teacher_ramp=false", "optimiser=sgd", "milestones=0.5", "depth=34"],
    )
    assert (changed.lr, changed.short_side, changed.amp, changed.teacher_ramp) == (0.5, (50, 60), "bf16", False)
    assert (changed.optimiser, changed.milestones, changed.depth) == ("sgd", (0.5,), 34)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("teta=0.5", "There is no setting 'teta'. Did you mean 'theta'"),
        ("theta", "--set needs key=value. Got 'theta' instead"),
        ("theta=high", "Setting 'theta' must be a number. Got 'high' instead"),
        ("iterations=1.5", "Setting 'iterations' must be an integer"),
        ("optimiser=lion", "Setting 'optimiser' must be one of sgd, adamw"),
        ("short_side=100", "must be 2 numbers separated by commas"),
        ("teacher_ramp=maybe", "must be true or false"),
        ("amp=true", "Setting 'amp' must be one of off, bf16, fp16. Got 'true' instead"),
        ("theta=1.5", "Setting 'theta' must be in [0, 1]. Got 1.5 instead"),
        ("iterations=0", "Setting 'iterations' must be at least 1. Got 0 instead"),
        ("iterations=3", "Setting 'generations' must be at most 'iterations' (3). Got 10 instead"),
        ("test_batch=-1", "Setting 'test_batch' must be in [1, 4096]"),
        ("roi_samples=0", "Setting 'roi_samples' must be"),
        ("lr=inf", "Setting 'lr' must be"),
        ("weight_decay=nan", "Setting 'weight_decay' must be"),
        ("jitter_times=1", "Setting 'jitter_times' must be in [2, 1000]"),
        ("strides=4", "Setting 'strides' must be four or more rising numbers"),
        ("base_channels=12", "Setting 'base_channels' must be a multiple of 8"),
        ("warmup_iterations=-5", "Setting 'warmup_iterations' must be at least 0"),
        ("short_side=90,80", "Setting 'short_side' must be (low, high)"),
        ("__class__=int", "There is no setting"),
    ],
)
def test_a_bad_change_is_refused_with_place_and_rule(change: str, message: str) -> None:
    with pytest.raises(UsageFault, match=re.escape(message)):
        with_changes(MINI, [change])


def test_an_unknown_preset_is_answered_with_near_matches() -> None:
    with pytest.raises(UsageFault, match=r"There is no preset 'mimi'\. Did you mean 'mini'"):
        preset("mimi", task_iterations=1)


def test_every_preset_keeps_the_rules() -> None:
    for chosen in PRESETS.values():
        checked(replace(chosen, iterations=chosen.iterations or 1000))


def test_every_number_has_its_bounds() -> None:
    numbers = {f.name for f in fields(Settings) if type(getattr(FULL, f.name)) in (int, float, tuple)}
    assert numbers - {"depth"} == BOUNDED.keys()
    for setting in BOUNDED.values():
        assert "ge" in setting.bounds
        assert setting.kind is int or "le" in setting.bounds, "an infinite number would be none too large"


def test_every_setting_is_documented() -> None:
    described = {line.strip().split(":")[0] for line in (Settings.__doc__ or "").splitlines()}
    assert {f.name for f in fields(Settings)} <= described


def test_departures_that_no_setting_tells_stand_in_the_docs_too() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
    listed = text.split("## Departures of the presets")[1]
    assert all(f"| {point} |" in listed for point in fidelity.NOT_SOFT_TEACHERS)


def test_official_names_every_difference_it_does_not_reproduce() -> None:
    """D1-D28 are the differences between text and release; the profile's file names those it has."""
    profiles_text = (Path(__file__).resolve().parents[2] / "method" / "profiles.py").read_text(encoding="utf-8")
    left_out = {point for point in fidelity.NOT_REPRODUCED if point.startswith("D")}
    assert left_out == {"D8", "D12", "D15", "D16", "D17", "D25", "D26", "D27", "D28"}
    assert all(point in profiles_text for point in left_out)
    assert {"RFS on LVIS", "batches"} <= fidelity.NOT_REPRODUCED.keys()


@pytest.mark.parametrize("name", BOUNDED)
def test_the_remedy_of_a_wrong_setting_mends_it(name: str) -> None:
    low = BOUNDED[name].bounds["ge"]
    wrong = ",".join([str(low - 1)] * 4) if name == "strides" else f"{low - 1},{low - 1}" if name in TUPLES else low - 1
    start = preset("full", task_iterations=180_000)
    for text in (f"{name}={wrong}", f"{name}=words"):
        with pytest.raises(UsageFault, match=f"Setting '{name}' must be") as fault:
            with_changes(start, [text])
        told = re.match(r"--set (\S+) is", str(fault.value.remedy))
        assert told is not None
        assert with_changes(start, [told[1]]) == start


def test_the_remedies_of_settings_that_do_not_go_together_mend_them() -> None:
    start = preset("full", task_iterations=180_000)
    for text in ("iterations=5", "short_side=900,400", "strides=8,4,16,32", "base_channels=12"):
        changes = [text, "norm=gn", "frozen_stages=-1"]
        with pytest.raises(UsageFault) as fault:
            with_changes(start, changes)
        told = re.match(r"--set (\S+) ", str(fault.value.remedy))
        assert told is not None
        with_changes(start, [*changes, told[1]])
