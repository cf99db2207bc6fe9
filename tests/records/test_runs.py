"""Run folders and records: layout, atomic writing, old and broken files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.files import whole_files as atomic
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import RECORD, find_runs, read_record, run_folder, write_record

SCHEMA1 = Path(__file__).parents[1] / "data" / "run_schema1.json"


def record(**changes: object) -> RunRecord:
    return dataclasses.replace(read_record(SCHEMA1), **changes)  # type: ignore[arg-type]


def test_a_run_lies_by_task_split_method_scale_and_seed() -> None:
    plain = run_folder(Path("work"), "toy", 0, "ours", "", "mini", "default", 3)
    variant = run_folder(Path("work"), "lvis", 2, "ours", "gbr+gbt", "full", "paper", 0)
    assert plain == Path("work/runs/toy/split0/ours/mini-default/seed3")
    assert variant == Path("work/runs/lvis/split2/ours+gbr+gbt/full-paper/seed0")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb"])
def test_a_name_that_would_leave_its_place_is_refused(name: str) -> None:
    with pytest.raises(UsageFault, match="cannot be a folder"):
        run_folder(Path("work"), name, 0, "ours", "", "mini", "default", 0)


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = record(seed=7, status="running", ap={"teacher": {"all": 1 / 3, "min": None}})
    path = write_record(tmp_path / "deep" / "folder", written)
    assert path == tmp_path / "deep" / "folder" / RECORD
    assert read_record(path) == read_record(path.parent) == written


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_record(tmp_path / name, record()).read_bytes() for name in "ab")
    assert first == second
    assert first.endswith(b"}\n")


def test_paths_and_numpy_numbers_in_the_settings_become_plain(tmp_path: Path) -> None:
    settings = {"weights": Path("a/b.pth"), "momentum": np.float32(0.5), "steps": (1, 2)}
    assert read_record(write_record(tmp_path, record(settings=settings))).settings == {
        "weights": "a/b.pth",
        "momentum": 0.5,
        "steps": [1, 2],
    }


def test_a_failed_write_leaves_the_old_record_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path, record(status="running"))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(Exception, match="No space left"):
        write_record(tmp_path, record(status="done"))
    assert read_record(tmp_path).status == "running"
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_a_record_of_schema_1_loads() -> None:
    loaded = read_record(SCHEMA1)
    assert (loaded.schema, loaded.status, loaded.seed) == (1, "done", 1)
    assert loaded.ap["teacher"] == {"all": 12.5, "maj": 20.0, "min": None}
    assert loaded.departures["iterations"] == [180000, 60]


def test_keys_of_a_newer_schema_are_passed_over_and_missing_ones_take_their_default(tmp_path: Path) -> None:
    content = json.loads(SCHEMA1.read_text())
    del content["skipped"], content["data"]
    (tmp_path / RECORD).write_text(json.dumps(content | {"schema": 9, "colour": {"of": "money"}}))
    loaded = read_record(tmp_path)
    assert (loaded.schema, loaded.skipped, loaded.task) == (9, {}, "toy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b'{"task": "toy", ', "truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `task`"),
        (b'{"task": "\xff"}', "UTF-8|utf-8|byte"),
        (SCHEMA1.read_bytes().replace(b'"all": 12.5', b'"all": "12.5"'), r"\$.ap\[...\]\[...\]|\$.ap"),
        (SCHEMA1.read_bytes().replace(b'"done"', b'"finished"'), r"`\$.status`"),
    ],
)
def test_a_broken_record_is_a_fault_that_names_file_and_place(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(DataFault, match=rf"{RECORD}: .*({message})") as caught:
        read_record(tmp_path)
    assert caught.value.exit_code == 3


def test_a_folder_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DataFault, match=r"no run was recorded here.\n  -> cissod-bench runs list .*: cissod-bench run --method"
    ):
        read_record(tmp_path / RECORD)


def test_runs_are_found_in_order_and_broken_ones_are_handed_over(tmp_path: Path) -> None:
    for seed in (10, 2, 0):
        write_record(
            run_folder(tmp_path, "toy", 0, "ours", "", "mini", "default", seed), record(method="ours", seed=seed)
        )
    broken = tmp_path / "runs" / "toy" / "broken"
    broken.mkdir()
    (broken / RECORD).write_text("{")
    faults: list[DataFault] = []
    found = find_runs(tmp_path / "runs", on_fault=faults.append)
    assert [(run.folder.name, run.record.seed) for run in found] == [("seed0", 0), ("seed2", 2), ("seed10", 10)]
    assert [str(broken) in fault.message for fault in faults] == [True]
    with pytest.warns(UserWarning, match="not a run record"):
        assert len(find_runs(tmp_path)) == 3


def test_a_place_without_runs_holds_none(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"departures": {"lr": [1]}}, r"departures.lr must be \[the paper's value, the value used\], got \[1\]"),
        ({"ap": {"teacher": {"all": -1.0}}}, "ap.teacher.all must be points in 0-100 or null, got -1.0"),
        ({"per_class": {"student": {"disc": 1e9}}}, "per_class.student.disc must be points"),
    ],
)
def test_a_value_that_no_run_writes_is_a_fault(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_record(tmp_path, record(**change))
    with pytest.raises(DataFault, match=message):
        read_record(tmp_path)


def test_the_title_of_a_task_is_kept_and_may_be_missing(tmp_path: Path) -> None:
    assert record().title == ""
    assert read_record(write_record(tmp_path, record(title="My shapes"))).title == "My shapes"
