"""Records of older versions keep their meaning: settings that came later, values that are called otherwise now."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_plan

from cissod_bench.contract.presets import MINI
from cissod_bench.contract.settings import FULL, Settings, departures
from cissod_bench.records import run_folder as runs
from cissod_bench.records.older_records import LACKING, as_first_written, brought_up_to_date
from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import deciding_settings

ROOT = Path(__file__).resolve().parents[2]


def record(settings: Settings, **changed: Any) -> RunRecord:
    """A record as this version writes it, or with the settings of an older one."""
    used = json.loads(json.dumps({**asdict(settings), **changed}))
    told = departures(settings, task_iterations=180_000, world_size=8)
    return RunRecord(
        task="toy", method="m", preset="p", profile="default", split_seed=0, seed=0, split_sha256="0", status="done",
        settings={name: value for name, value in used.items() if value is not None}, departures=told,
        hardware={"world_size": 8},
    )  # fmt: skip


def older(settings: Settings, views: str, told: dict[str, list[Any]]) -> RunRecord:
    """A record from before Soft Teacher's own views and the teacher's proposals were settings."""
    made = record(settings, strong_views=views, teacher_proposals=None)
    kept = {name: pair for name, pair in made.departures.items() if name not in {"strong_views", "teacher_proposals"}}
    return replace(made, departures={**kept, **told})


def test_a_run_of_full_before_had_mmdets_views_and_proposals(tmp_path: Path) -> None:
    settings = replace(FULL, iterations=180_000)
    runs.write_record(tmp_path, older(settings, "full", {}))
    read = runs.read_record(tmp_path)
    assert (read.settings["strong_views"], read.settings["teacher_proposals"]) == ("mmdet", "test")
    assert read.departures == {"strong_views": ["soft-teacher", "mmdet"], "teacher_proposals": ["train", "test"]}
    assert deciding_settings(read) != deciding_settings(record(settings))
    as_before = replace(settings, strong_views="mmdet", teacher_proposals="test")
    assert deciding_settings(read) == deciding_settings(record(as_before))


def test_departures_of_an_older_record_stand_in_one_order_in_every_process() -> None:
    read = brought_up_to_date(older(FULL, "full", {}))
    assert list(read.departures)[-2:] == ["strong_views", "teacher_proposals"]


def test_a_run_of_mini_before_is_a_repetition_of_one_today() -> None:
    settings = replace(MINI, iterations=900)
    read = brought_up_to_date(older(settings, "light", {"strong_views": ["full", "light"]}))
    assert read == record(settings)
    assert deciding_settings(read) == deciding_settings(record(settings))


def test_records_of_today_and_records_without_settings_stay_as_they_are() -> None:
    for one in (record(FULL), record(MINI), replace(record(MINI), settings={}, departures={"theta": [0.9, 0.5]})):
        assert brought_up_to_date(one) == one


def test_kept_records_state_what_a_run_of_mini_states_today() -> None:
    found = [run.record for run in runs.find_runs(ROOT / "results") if run.record.preset == "mini"]
    assert found
    today = json.loads(json.dumps(asdict(replace(MINI, workers=0))))
    assert all({**one.settings, "workers": 0} == today for one in found)
    assert {json.dumps([one.departures[k] for k in ("strong_views", "teacher_proposals")]) for one in found} == {
        '[["soft-teacher", "light"], ["train", "test"]]'
    }


@pytest.mark.parametrize(
    ("written", "device", "amp"),
    [(True, "cuda", "fp16"), (True, "cpu", "off"), (False, "cuda", "off"), (False, "cpu", "off")],
)
def test_mixed_precision_of_older_records_means_what_it_meant(written: bool, device: str, amp: str) -> None:
    one = record(replace(FULL, amp=amp), amp=written)
    one = replace(one, hardware={"world_size": 8, "type": device}, departures={} if written else {"amp": [True, False]})
    read = brought_up_to_date(one)
    assert read.settings["amp"] == amp
    assert read.departures == ({} if amp == "fp16" else {"amp": ["fp16", amp]})


def test_mixed_precision_is_hashed_as_it_was() -> None:
    found = [as_first_written(asdict(replace(MINI, amp=amp)))["amp"] for amp in ("off", "fp16", "bf16")]
    assert found == [False, True, "bf16"]


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"strong_views": "mmdet", "teacher_proposals": "test"}, {"strong_views": "full"}),
        ({"strong_views": "light", "teacher_proposals": "test"}, {"strong_views": "light"}),
        ({}, {"strong_views": "soft-teacher", "teacher_proposals": "train"}),
    ],
)
def test_settings_are_hashed_as_they_were_so_that_checkpoints_from_before_continue(
    changes: dict[str, Any], written: dict[str, Any]
) -> None:
    found = as_first_written(asdict(replace(FULL, **changes)))
    assert {name: found[name] for name in ("strong_views", "teacher_proposals") if name in found} == written


def test_the_identity_of_a_small_run_is_what_it_was(tmp_path: Path) -> None:
    """The hash in checkpoints of runs that began before."""
    from hashlib import sha256

    plan = tiny_plan(tmp_path)
    kept = {k: v for k, v in asdict(plan.settings).items() if k not in {*runs_free(), *LACKING}}
    kept["amp"] = False  # as "off" was written then
    names = (plan.task.name, plan.method.name, plan.variant, plan.profile, str(plan.seed))
    text = json.dumps([names, kept], sort_keys=True)
    assert plan.identity()["settings"] == sha256(text.encode()).hexdigest()


def runs_free() -> frozenset[str]:
    from cissod_bench.records.record import FREE_SETTINGS

    return FREE_SETTINGS
