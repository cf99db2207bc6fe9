"""What a run is called by the settings that were changed, where it lies, and runs from before that."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from score_records import finished, runs_of, scored
from tiny import CHANGES, tiny_plan, tiny_task

from cissod_bench.contract.presets import resolved
from cissod_bench.errors import UsageFault
from cissod_bench.keeping.pack_format import place_of
from cissod_bench.records.record import FREE_SETTINGS
from cissod_bench.records.run_folder import read_record, run_folder, write_record
from cissod_bench.records.run_names import check_name, name_of_settings
from cissod_bench.reporting.averaging import marks, newest
from cissod_bench.sweeping.cells import Folders, cells_of

SMOKE = asdict(resolved(tiny_task(), "smoke"))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, ""),
        ({"lr": 0.002}, "lr=0.002"),
        ({"theta": 0.7, "lr": 1e-5}, "lr=1e-05+theta=0.7"),
        ({"short_side": (176, 208), "teacher_ramp": False}, "short_side=176,208+teacher_ramp=false"),
        ({"checkpoint_every": 7, "workers": 0}, ""),  # change no number
        ({"pretrained": ""}, ""),  # as in the preset
    ],
)
def test_a_run_is_called_as_the_settings_that_differ_from_its_preset(changed: dict[str, Any], name: str) -> None:
    assert name_of_settings({**SMOKE, **changed}, SMOKE) == name


def test_a_path_in_a_setting_becomes_its_last_part_and_a_hash() -> None:
    first, second = (name_of_settings({**SMOKE, "pretrained": f"/{one}/my net.pth"}, SMOKE) for one in "ab")
    assert first.startswith("pretrained=my-net.pth-")
    assert first != second
    assert "/" not in first + second


def test_many_changes_are_counted_and_told_apart_by_a_hash() -> None:
    names = {name_of_settings({**SMOKE, "depth": 34, "theta": t, "lr": 0.1, "norm": "x", "backbone": "y"}, SMOKE)
             for t in (0.1, 0.2)}  # fmt: skip
    assert len(names) == 2
    assert all(name.startswith("5-settings-") and len(name) == 19 for name in names)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "lr=0.1", "a b", "x" * 65, "ü"])
def test_a_name_that_could_be_no_folder_or_that_settings_give_is_refused(name: str) -> None:
    with pytest.raises(UsageFault, match="--name becomes part of a folder") as fault:
        check_name(name)
    assert fault.value.remedy


def test_two_learning_rates_have_two_folders_and_a_name_of_ones_own_takes_their_place(tmp_path: Path) -> None:
    plain = tiny_plan(tmp_path)
    slow, fast = (tiny_plan(tmp_path, "soft-teacher", f"lr={lr}") for lr in (0.001, 0.1))
    assert len({plan.folder for plan in (plain, slow, fast)}) == 2 + (plain.folder != slow.folder)
    own = tiny_plan(tmp_path, "soft-teacher", "lr=0.1", name="fast")
    assert own.folder.parent.name == "smoke-default+fast"
    assert (own.name, plain.folder.parent.name) == ("fast", f"smoke-default+{plain.name}")
    assert tiny_plan(tmp_path, "soft-teacher", "lr=0.1", "workers=3").folder == fast.folder


def older_record(plan: Any) -> Any:
    """A record as an older version wrote it: without a name, whatever its settings."""
    names = {"task": "tiny", "method": "soft-teacher", "preset": "smoke", "split_sha256": plan.split_sha256}
    settings = json.loads(json.dumps(asdict(plan.settings)))
    return replace(finished(), **names, settings=settings)


def test_a_run_that_was_begun_before_settings_were_part_of_its_folder_is_found_there(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    older = run_folder(tmp_path, "tiny", 0, "soft-teacher", "", "smoke", "default", 0)
    assert older != plan.folder
    write_record(older, older_record(plan))
    again, other = tiny_plan(tmp_path), tiny_plan(tmp_path, "soft-teacher", "lr=0.5")
    assert (again.folder, again.name) == (older, "")
    assert other.folder not in (older, plan.folder)
    assert place_of(read_record(older)) == "tiny/split0/soft-teacher/smoke-default/seed0"
    write_record(plan.folder, replace(older_record(plan), name=plan.name))
    assert tiny_plan(tmp_path).folder == plan.folder
    assert place_of(read_record(plan.folder)) == plan.folder.relative_to(tmp_path / "runs").as_posix()


def test_a_sweep_finds_runs_by_name_and_older_ones_by_their_settings(tmp_path: Path) -> None:
    (cell,) = cells_of(["soft-teacher"], ["toy"], preset_name="smoke", changes=["lr=0.5"])
    assert (cell.name, cell.place) == ("lr=0.5", Path("toy/split0/soft-teacher/smoke-default+lr=0.5/seed0"))
    assert "--name" not in cell.words()
    (named,) = cells_of(["soft-teacher"], ["toy"], preset_name="smoke", changes=["lr=0.5"], name="fast")
    assert named.place == Path("toy/split0/soft-teacher/smoke-default+fast/seed0")
    assert named.words()[named.words().index("--name") + 1] == "fast"
    found = finished(preset="smoke")
    folders = Folders(tmp_path, tmp_path / "kept")
    older = replace(found, settings=dict(cell.settings), status="done")
    write_record(tmp_path / "kept" / cell.older_place, older)
    assert folders.recorded(cell).state == "done"
    assert folders.recorded(named).state == "waiting"
    other = replace(cell, settings={**cell.settings, "lr": 0.6}, name="lr=0.6")
    assert folders.recorded(other).state == "waiting"
    write_record(folders.run(named), replace(older, name="fast"))
    assert folders.recorded(named).state == "done"


def test_runs_of_one_method_are_told_apart_by_their_names_and_else_by_numbers() -> None:
    wide, narrow = {"settings": {"lr": 0.1}}, {"settings": {"lr": 0.2}}
    runs = runs_of(scored(), scored(name="lr=0.1", **wide), scored(name="lr=0.2", **narrow))
    assert list(marks(runs).values()) == ["", "lr=0.1", "lr=0.2"]
    mixed = runs_of(scored(name="mine", **wide), scored(name="mine", **narrow))
    assert sorted(marks(mixed).values()) == ["mine 1", "mine 2"]
    assert len(newest(runs_of(scored(name="a"), scored(name="b"), scored(name="b")))) == 2


def test_settings_that_change_no_number_are_in_no_name() -> None:
    assert not any(name in name_of_settings({**SMOKE, name: "x"}, SMOKE) for name in FREE_SETTINGS)
    assert len(CHANGES) > 4
