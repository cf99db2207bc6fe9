"""Ctrl-C, SIGTERM and a closed terminal ask for a checkpoint; a second Ctrl-C ends at once; no file is half-written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import same
from short_runs import TINY_FOLDER, execute, numbers_of, run_words, wait_for_lines
from tiny import tiny_plan

from cissod_bench import signals as stopping
from cissod_bench.errors import Interrupted
from cissod_bench.records import run_folder as runs
from cissod_bench.running import run
from cissod_bench.running.plan import Plan
from cissod_bench.running.progress import Bar
from cissod_bench.signals import stop_signals, stopped
from cissod_bench.training import checkpoint

SIX = ("iterations=6", "generations=2", "checkpoint_every=100", "log_every=1", "workers=0")


def send(number: int, times: int = 1) -> None:
    for again in range(times):
        if again:
            time.sleep(0.2)
        os.kill(os.getpid(), number)


def interrupting(title: str, step: int, number: int, times: int = 1) -> type[Bar]:
    """A progress bar at a step of which this process gets a signal."""

    class Interrupting(Bar):
        def advance(self, steps: int = 1, note: str = "") -> None:
            super().advance(steps, note)
            if (self.title, self.done) == (title, step):
                send(number, times)

    return Interrupting


def straight(work: Path) -> Plan:
    plan = tiny_plan(work, "soft-teacher", *SIX)
    execute(plan)
    return plan


@pytest.fixture
def heeded() -> Iterator[None]:
    """Tests under nohup ignore SIGHUP, and the program leaves an ignored signal ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 5), (signal.SIGHUP, 5)], ids=str)
def test_a_first_signal_is_noted_and_gives_the_exit_code(number: signal.Signals, code: int, heeded: None) -> None:
    before = signal.getsignal(number)

    def work() -> None:
        with stop_signals() as stop:
            assert not stop()
            send(number)
            assert stop()
            raise stopped("Stopped.")

    with pytest.raises(Interrupted) as fault:
        work()
    assert fault.value.exit_code == code
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once_and_one_that_a_launcher_repeats_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_signals() as stop:
        monkeypatch.setattr(stopping, "_ECHO", 60.0)
        send(signal.SIGINT, 2)
        assert stop()
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:
        send(signal.SIGINT, 2)


def test_a_program_started_by_nohup_stays_deaf_to_a_closed_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            send(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("title", "step"), [("train", 3), ("predict", 8)])
def test_a_run_that_ctrl_c_ended_continues_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str, step: int, times: int
) -> None:
    whole, plan = straight(tmp_path / "whole"), tiny_plan(tmp_path / "half", "soft-teacher", *SIX)
    with monkeypatch.context() as patch:
        patch.setattr(run, "Bar", interrupting(title, step, signal.SIGINT, times))
        with pytest.raises(Interrupted if times == 1 else KeyboardInterrupt) as ended:
            execute(plan)
    kept = {("train", 1): 3, ("train", 2): 0}.get((title, times), 6)
    assert checkpoint.read(plan.folder / runs.CHECKPOINT)["iteration"] == kept
    if times == 1:
        assert isinstance(ended.value, Interrupted)
        assert ended.value.exit_code == 130
        assert "repeat the same command to continue" in str(ended.value)
    assert runs.read_record(plan.folder).status == "interrupted"
    assert list(plan.folder.glob(".*.tmp")) == []
    execute(plan)
    assert numbers_of(plan.folder / runs.LOG) == numbers_of(whole.folder / runs.LOG)
    states = [checkpoint.read(own.folder / runs.CHECKPOINT) for own in (whole, plan)]
    assert same(*states)
    for name in (runs.PREDICTIONS, runs.STUDENT_PREDICTIONS, runs.PSEUDO_LABELS):
        assert (plan.folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_ctrl_c_in_a_terminal_reaches_run_and_workers_and_the_run_stops_with_a_checkpoint(
    tmp_path: Path, tiny_coco: Path
) -> None:
    sets = ("--set", "iterations=2000", "--set", "workers=1", "--set", "checkpoint_every=5000")
    words = [sys.executable, "-m", "cissod_bench", *run_words(tmp_path, tiny_coco, *sets)]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / TINY_FOLDER / "log.jsonl"
    wait_for_lines(log, 3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    (done,) = re.findall(r"Stopped after iteration (\d+) of 2000; a checkpoint is written", errors)
    assert "a second Ctrl-C ends it at once" in errors
    assert "Traceback" not in errors
    assert checkpoint.read(log.parent / runs.CHECKPOINT)["iteration"] == int(done) >= 3
    assert json.loads((log.parent / runs.RECORD).read_text())["status"] == "interrupted"
    assert list(log.parent.glob(".*.tmp")) == []


def test_a_stop_is_listened_for_where_there_is_no_signal_of_a_closed_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP")  # as on Windows
    with stop_signals() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
