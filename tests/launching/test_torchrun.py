"""A run of several machines: two agents of torchrun on this one are one run, die as one, and continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forks import ranks_of
from short_runs import TINY_FOLDER, numbers_of, run_words, wait_for_lines

from cissod_bench.launching.ranks import free_port
from cissod_bench.records import run_folder as runs

SHORT = ("--set", "iterations=10", "--set", "generations=2", "--set", "checkpoint_every=2", "--set", "log_every=1")
Agents = Callable[[Path, int], list["subprocess.Popen[str]"]]


@pytest.fixture
def agents(tiny_coco: Path, forked: None) -> Iterator[Agents]:
    """Start the same run by some agents with two processes in all; what is left at the end is killed."""
    begun: list[subprocess.Popen[str]] = []

    def start(work: Path, number: int) -> list[subprocess.Popen[str]]:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "one"]
        words = ["torch.distributed.run", "--nnodes", str(number), "--nproc-per-node", str(2 // number), *meeting]
        words += ["--local-addr", "127.0.0.1", "-m", "cissod_bench", *run_words(work, tiny_coco, *SHORT)]
        for _ in range(number):
            process = subprocess.Popen(
                [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            begun.append(process)
        return begun[-number:]

    yield start
    for process in begun:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.mark.slow
def test_two_agents_are_one_run_and_the_loss_of_one_ends_the_other_by_name(tmp_path: Path, agents: Agents) -> None:
    (alone,) = agents(tmp_path / "one", 1)
    _, errors = alone.communicate(timeout=300)
    assert alone.returncode == 0, errors
    folders = [tmp_path / work / TINY_FOLDER for work in ("one", "two")]

    first, second = agents(tmp_path / "two", 2)
    wait_for_lines(folders[1] / runs.LOG, 3)
    ((lost, rank),) = ranks_of(second.pid).items()
    for process in (second.pid, rank):  # as its machine would end
        os.kill(process, signal.SIGKILL)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 1
    assert f"Rank {1 - lost} ends: another process of this run is gone: rank {lost} on {os.uname().nodename}" in errors

    both = agents(tmp_path / "two", 2)  # the same command
    told = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    one, two = (runs.read_record(folder) for folder in folders)
    assert (two.status, two.ap, two.hardware["world_size"]) == ("done", one.ap, 2)
    assert numbers_of(folders[0] / runs.LOG) == numbers_of(folders[1] / runs.LOG)
    assert len({(folder / runs.PREDICTIONS).read_bytes() for folder in folders}) == 1
