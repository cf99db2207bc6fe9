"""What the ranks of a run must agree on before it begins."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from tiny import tiny_plan

from cissod_bench import distributed
from cissod_bench.contract.settings import Settings
from cissod_bench.errors import UsageFault
from cissod_bench.running import run
from cissod_bench.running.agreement import OWN_CHOICE, check_ranks, differences, intentions


def test_a_difference_names_the_thing_its_values_and_the_ranks() -> None:
    own = {"split": "ab", "setting theta": "0.9"}
    assert differences([own, own, own]) == []
    assert differences([own, {**own, "setting theta": "0.4"}, own, {"split": "cd", "setting theta": "0.9"}]) == [
        "split is 'ab' on ranks 0, 1, 2, 'cd' on rank 3",
        "setting theta is '0.9' on ranks 0, 2, 3, '0.4' on rank 1",
    ]
    assert differences([own, {"split": "ab"}]) == ["setting theta is '0.9' on rank 0, 'missing' on rank 1"]


def test_ranks_compare_the_split_its_files_and_every_setting_that_decides_something(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    found = intentions(plan)
    settings = {name.removeprefix("setting ") for name in found if name.startswith("setting ")}
    assert settings == {field.name for field in fields(Settings)} - OWN_CHOICE
    assert found["split"] == plan.split_sha256
    other = replace(plan, settings=replace(plan.settings, theta=0.3, workers=7), seed=1)
    assert [line.partition(" is ")[0] for line in differences([found, intentions(other)])] == ["seed", "setting theta"]
    with (plan.split / "unlabelled.json").open("a") as file:
        file.write(" ")
    (line,) = differences([found, intentions(plan)])
    assert line.startswith("size of the split's unlabelled.json is ")


def test_a_run_of_one_process_has_nobody_to_disagree_with(tmp_path: Path) -> None:
    check_ranks(tiny_plan(tmp_path))


def test_a_run_whose_ranks_disagree_is_refused_before_it_writes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tmp_path)
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [own, {**own, "split": "cd"}])
    with pytest.raises(UsageFault, match=rf"split is '{plan.split_sha256}' on rank 0, 'cd' on rank 1") as fault:
        run.execute(plan, restart=False, say=print)
    assert fault.value.on_all_ranks
    assert not plan.folder.exists()
