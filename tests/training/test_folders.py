"""Two ranks on machines that share no disk: rank 0's folder counts, its checkpoint reaches the other, both are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import same
from ranks import two_processes

from cissod_bench.records import run_folder as runs
from cissod_bench.training import checkpoint
from cissod_bench.training.folders import Work, work_in

START = """
import sys, json, torch
from contextlib import contextmanager
from pathlib import Path
from tiny import tiny_plan
from cissod_bench.errors import BenchError
from cissod_bench import distributed
from cissod_bench.running import run
distributed.start(torch.device("cpu"))
rank, folder = distributed.rank(), Path({folder!r})
todo = json.loads((folder / "todo.json").read_text())
asked = []
@contextmanager
def stop_signals():
    yield lambda: asked.append(1) is None and len(asked) == todo["stop"]
run.stop_signals = stop_signals
work = folder / todo["works"][rank]
settings = "iterations=4", "generations=2", "checkpoint_every=100", "log_every=1", "workers=0"
plan = tiny_plan(work, "ours", *settings, name="tiny")
said, warned, fault = [], [], None
try:
    run.execute(plan, restart=False, say=said.append, quiet=True, warn=warned.append)
except BenchError as error:
    fault = [type(error).__name__, str(error), error.on_all_ranks]
torch.save({{"said": said, "warned": warned, "fault": fault}}, folder / f"rank{{rank}}.pth")
distributed.stop()
"""
PLACE = "runs/tiny/split0/ours/smoke-default+tiny/seed0"


def started(folder: Path, *works: str, stop: int = 0) -> list[dict[str, Any]]:
    (folder / "todo.json").write_text(json.dumps({"works": works, "stop": stop}))
    return two_processes(START, folder)


@pytest.mark.slow
def test_ranks_without_a_shared_disk_continue_from_rank_0s_checkpoint_and_are_told(tmp_path: Path) -> None:
    for name in ("shared", "a", "b", "c"):  # each machine has its own copy of the data
        (tmp_path / name).mkdir()
    whole = started(tmp_path, "shared", "shared")
    assert [one["warned"] for one in whole] == [[], []]

    first = started(tmp_path, "a", "b", stop=2)
    assert all(one["fault"][0] == "Interrupted" for one in first)
    kept = tmp_path / "a" / PLACE / runs.CHECKPOINT
    assert checkpoint.iteration_of(kept) == 3  # ranks agree on a stop in the iteration after it
    assert not (tmp_path / "b" / PLACE / runs.CHECKPOINT).exists()
    shutil.copytree(tmp_path / "a", tmp_path / "swapped")

    second = started(tmp_path, "a", "b")
    assert [one["fault"] for one in second] == [None, None]
    assert second[0]["said"] == ["Continuing after iteration 3 of 4."]
    for one in second:
        (words,) = one["warned"]
        assert words.startswith("Rank 1 sees another folder ")
        assert "its checkpoint (after iteration 3) is sent to all ranks" in words
    states = [checkpoint.read(tmp_path / name / PLACE / runs.CHECKPOINT) for name in ("shared", "a")]
    assert same(*states)
    assert [path.name for path in (tmp_path / "a" / PLACE).glob(".*.tmp")] == []

    before = (tmp_path / "swapped" / PLACE / runs.CHECKPOINT).read_bytes()
    swapped = started(tmp_path, "c", "swapped", stop=1)
    assert all("it holds no checkpoint, so the run begins with iteration 1" in one["warned"][0] for one in swapped)
    assert all(
        "Rank 1's folder is further: it holds a checkpoint (after iteration 3)" in one["warned"][0] for one in swapped
    )
    assert (tmp_path / "swapped" / PLACE / runs.CHECKPOINT).read_bytes() == before

    (tmp_path / "a" / PLACE / runs.RECORD).unlink()
    kept.write_bytes(b"half a file")
    broken = started(tmp_path, "a", "b")
    assert broken[0]["fault"] == broken[1]["fault"]
    kind, words, on_all_ranks = broken[0]["fault"]
    assert (kind, on_all_ranks) == ("DataFault", True)
    assert "checkpoint.pth is not a sound checkpoint" in words
    assert kept.read_bytes() == b"half a file"


def test_work_in_a_folder_is_what_its_checkpoint_log_or_record_says(tmp_path: Path) -> None:
    assert work_in(tmp_path, 5) == Work(0, 5, finished=False)
    assert not work_in(tmp_path, 5).is_much
    (tmp_path / runs.LOG).write_text('{"iteration": 3}\n{"iteration": 6}\n{"itera')
    assert work_in(tmp_path, 5) == Work(6, 5, finished=False)
    torch.save({"iteration": 9}, tmp_path / runs.CHECKPOINT)
    assert work_in(tmp_path, 5) == Work(9, 5, finished=False)
    assert work_in(tmp_path, 5).is_much
    (tmp_path / runs.CHECKPOINT).write_bytes(b"half a file")
    (tmp_path / runs.LOG).write_text("no number\n")
    assert work_in(tmp_path, 5).iterations == 0
