"""-q prints results and faults only: the result of every command, and no progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Called
from fake_runs import SCHEMA1

from cissod_bench.records import run_folder as runs
from cissod_bench.running import run


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_quiet_run_prints_its_result_once(
    rank: str, tiny_coco: Path, tmp_path: Path, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(*_: object, **options: object) -> object:
        assert options["quiet"]
        record = runs.read_record(SCHEMA1)
        return replace(record, groups={"maj": ["circle"], "min": ["heart"]}, ap={"teacher": {"all": 12.34, "min": 5.0}})

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr("cissod_bench.distributed.start", lambda device: None)  # the other rank is not there
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    words = ("--task", tiny_coco / "tiny.toml", "--method", "supervised", "--preset", "smoke", "--data-root", tiny_coco)
    done = call("run", "-q", *words, "--work-dir", tmp_path / "work")
    assert done.code == 0, done.err
    if rank == "1":  # one rank speaks for all
        assert done.out == ""
        return
    assert "12.3" in done.out
    assert f"Run folder: {tmp_path}" in done.out
    assert "iterations" not in done.out
    assert "12.3" not in call("run", "--json", "-q", *words, "--work-dir", tmp_path / "work").err


def test_quiet_commands_print_their_results(
    split: Callable[..., Called], call: Callable[..., Called], tiny_coco: Path, tmp_path: Path
) -> None:
    drawn = split("-q")
    assert "sha256" in drawn.out
    assert "Reading" not in drawn.out + drawn.err
    folder, below = tmp_path / "work" / "splits" / "tiny" / "seed0", ("--work-dir", tmp_path / "work")
    assert call("splits", "verify", "-q", folder, "--data-root", tiny_coco, *below).out == f"{folder}: sound\n"
    assert "Written: " in call("splits", "plot", "-q", folder, "--format", "csv", *below).out
    assert "There is no split" in call("splits", "list", "-q", "--work-dir", tmp_path / "empty").out
    status = call("sweep", "-q", "--task", "toy", "--method", "ours", "--status", *below)
    assert "waiting" in status.out
    place = runs.run_folder(tmp_path / "work", "toy", 0, "ours", "", "mini", "default", 0)
    place.mkdir(parents=True)
    (place / runs.RECORD).write_bytes(SCHEMA1.read_bytes())
    assert "Written: " in call("report", "-q", "--format", "md", *below).out
