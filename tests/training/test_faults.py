"""Faults of long runs, met in the code of real ones: full disks, stops, poor data, dead ranks."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import ranks_of
from short_runs import execute, numbers_of, wait_for_lines
from tiny import CHANGES, tiny_plan, tiny_task, tiny_training
from watched_trainings import losses_of

from cissod_bench import distributed
from cissod_bench.cli.common import Output
from cissod_bench.errors import BenchError, EnvironmentFault, Interrupted, PeerLost
from cissod_bench.files import whole_files as atomic
from cissod_bench.loading import loaders as data
from cissod_bench.loading import sources, workers
from cissod_bench.records import run_folder as runs
from cissod_bench.running import assembly, run
from cissod_bench.running.progress import Bar
from cissod_bench.training import checkpoint

SHORT = ("iterations=4", "generations=2", "checkpoint_every=2", "log_every=1")


class NearlyFull(io.FileIO):
    """A file on a disk that has ten bytes left."""

    left = 10

    def write(self, data: Any) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(bytes(data)[: self.left])
        self.left -= written
        return written


@contextmanager
def full_disk(name: str, number: int) -> Iterator[None]:
    """Let the disk be full when a file of this name is opened for the n-th time, counted from 1."""
    seen: list[str] = []

    def opened(path: Path, mode: str, **options: Any) -> Any:
        if f".{name}." in f".{Path(path).name}.":
            seen.append(mode)
            if len(seen) == number:
                return NearlyFull(path, mode) if mode == "ab" else io.BufferedWriter(NearlyFull(path, mode))
        return open(path, mode, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "open", opened, raising=False)
        yield


@pytest.mark.slow
def test_a_disk_that_is_full_at_whatever_file_leaves_a_run_that_continues(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", *SHORT)
    for name, number, kept in (
        ("checkpoint.pth", 2, 0),  # the first is that of iteration 0
        ("log.jsonl", 4, 2),  # on the way from 0 again; its third line is the last that fits
        ("pseudo_labels.jsonl", 2, 2),  # of the second generation, after those of the first were looked through
        ("predictions.json.gz", 1, 4),
        ("run.json", 2, 4),  # the first says "running", this one "done"
    ):
        with full_disk(name, number), pytest.raises(EnvironmentFault) as fault:
            execute(plan)
        assert fault.value.exit_code == 4
        assert str(fault.value) == (
            f"Cannot write {plan.folder / name}: No space left on device.\n"
            "  -> free some space or pass another --work-dir"
        )
        assert checkpoint.read(plan.folder / runs.CHECKPOINT)["iteration"] == kept, name
        assert not list(plan.folder.glob(".*.tmp"))
        for lines in (runs.LOG, runs.PSEUDO_LABELS):  # no half line
            text = (plan.folder / lines).read_text() if (plan.folder / lines).exists() else ""
            assert all(isinstance(json.loads(line), dict) for line in text.splitlines())
        expected = "running" if name == "run.json" else "failed"
        assert runs.read_record(plan.folder).status == expected
    execute(plan)
    record = runs.read_record(plan.folder)
    assert record.status == "done"
    log = numbers_of(plan.folder / runs.LOG)
    pseudo = (plan.folder / runs.PSEUDO_LABELS).read_bytes()
    execute(plan, restart=True)
    assert numbers_of(plan.folder / runs.LOG) == log
    assert (plan.folder / runs.PSEUDO_LABELS).read_bytes() == pseudo
    assert runs.read_record(plan.folder).ap == record.ap


def test_a_checkpoint_that_the_system_cuts_short_leaves_the_one_before(tmp_path: Path) -> None:
    """Not imitated: the system refuses files of more than 100 kB."""
    training = tiny_training(tmp_path, "supervised", "iterations=1", "generations=1")
    training.save()
    before = training.file.read_bytes()
    assert len(before) > 100_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(EnvironmentFault, match=r"Cannot write .*checkpoint\.pth: File too large") as fault:
            training.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fault.value.exit_code == 4
    assert training.file.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    atomic.append(path, b"first\n")
    with full_disk("log.jsonl", 1), pytest.raises(EnvironmentFault, match="No space left"):
        atomic.append(path, b"a second line of more than ten bytes\n")
    assert path.read_bytes() == b"first\n"
    atomic.append(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_what_killed_writers_left_in_the_folder_is_removed_when_the_run_continues(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "supervised", "iterations=1", "generations=1")
    plan.folder.mkdir(parents=True)
    left = plan.folder / ".checkpoint.pth.123-abcdef01.tmp"
    left.write_bytes(b"half")
    execute(plan)
    assert not left.exists()
    assert (plan.folder / runs.CHECKPOINT).exists()


def test_sigterm_while_predicting_ends_the_run_between_two_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Bar):
        def advance(self, steps: int = 1, note: str = "") -> None:
            super().advance(steps, note)
            if self.title == "predict" and self.done == 8:
                os.kill(os.getpid(), signal.SIGTERM)

    plan = tiny_plan(tmp_path, "supervised", "iterations=2", "generations=1")
    with monkeypatch.context() as patch:
        patch.setattr(run, "Bar", Stopping)
        words = "Stopped after 8 of 12 predictions; the training is done and kept."
        with pytest.raises(Interrupted, match=re.escape(words)) as fault:
            execute(plan)
    assert fault.value.exit_code == 5
    assert runs.read_record(plan.folder).status == "interrupted"
    assert not (plan.folder / runs.PREDICTIONS).exists()  # teacher and student see an image after one load
    assert not (plan.folder / runs.STUDENT_PREDICTIONS).exists()
    log = (plan.folder / runs.LOG).read_bytes()
    assert "Continuing after iteration 2 of 2." in execute(plan)
    assert runs.read_record(plan.folder).status == "done"
    assert (plan.folder / runs.LOG).read_bytes() == log


def test_a_stop_within_a_pass_over_all_unlabelled_images_does_not_wait_for_its_end(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "ours", "iterations=4", "generations=2", variant="full-pass")
    passes: list[int] = []
    training.stop = lambda: training.position.iteration == 2 and passes.append(1) is None and len(passes) == 4
    with pytest.raises(Interrupted, match="Stopped before iteration 3 of 4, in a pass over D_u"):
        training.run()
    assert len(training.dataset.sources[1]) > 10


def _poor(folder: Path) -> None:
    """One labelled image without any box and one unlabelled image."""
    for name in ("labelled", "unlabelled"):
        path = folder / f"{name}.json"
        content = json.loads(path.read_text())
        content |= {"images": content["images"][:1], "annotations": []}
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("method", "variant"),
    [
        ("soft-teacher", ""),
        ("rfs", ""),
        ("supervised", ""),
        ("ours", ""),
        ("ours", "full-pass"),
        ("ours", "labelmatch"),
    ],
)
def test_one_image_of_each_kind_no_box_and_no_pseudo_label_give_finite_losses(
    tmp_path: Path, method: str, variant: str
) -> None:
    poor = ("initial_threshold=0.99", "rpn_threshold=0.99", "theta=0.99", "unlabelled_per_gpu=4")
    plan = tiny_plan(tmp_path, method, "iterations=4", "generations=2", *poor, variant=variant, task=tiny_task())
    _poor(plan.split)
    plan.folder.mkdir(parents=True)
    training = assembly.prepare(plan, torch.device("cpu"))
    lines = losses_of(training)
    assert len(lines) == 4
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert training.position.skipped == 0
    assert all(value == 0 for line in lines for name, value in line.items() if name.startswith("pseudo_"))
    assert checkpoint.read(training.file)["iteration"] == 4


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:38402", True),
        ("Application timeout caused pair closure", False),
        ("NCCL error: remote process exited or there was a network error", True),
        ("The size of tensor a (3) must match the size of tensor b (4)", False),
    ],
)
def test_the_end_of_another_rank_is_told_from_a_fault_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, said: str, lost: bool
) -> None:
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    kind, words = (Interrupted, "another process of this run is gone") if lost else (RuntimeError, re.escape(said))
    with pytest.raises(kind, match=words), distributed.watched_peers():
        raise RuntimeError(said)
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match=re.escape(said)), distributed.watched_peers():
        raise RuntimeError(said)


@pytest.fixture
def started() -> Iterator[Callable[[list[str]], subprocess.Popen[str]]]:
    """Start ``cissod-bench`` with some words; what still runs at the end of the test is ended."""
    processes: list[subprocess.Popen[str]] = []

    def start(words: list[str]) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "cissod_bench", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()  # its ranks end with it
        process.communicate()


@pytest.mark.parametrize(("fault", "news"), [(ConnectionResetError(), 0), (EOFError(), 0), (OSError("no space"), 1)])
def test_a_worker_says_nothing_of_a_main_process_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, news: int
) -> None:
    """The thread that hands a batch over tells sys.excepthook; the rest of the workers' faults come back with it."""
    said: list[object] = []
    ignored: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda *words: said.append(words))
    monkeypatch.setattr(signal, "signal", lambda number, action: ignored.append((number, action)))
    workers.begin_worker(0)
    sys.excepthook(type(fault), fault, None)
    assert len(said) == news
    assert ignored == [(signal.SIGTERM, signal.SIG_IGN), (signal.SIGINT, signal.SIG_IGN)]


def _sleeps(*_: Any) -> None:
    time.sleep(3600)


def _dies(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGBUS)  # as where the shared memory is full


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        pytest.param(_sleeps, "timed out after 1", marks=pytest.mark.slow),  # torch waits ten seconds for it to end
        (_dies, "worker .pid.+ (exited|killed)"),
    ],
)
def test_a_loader_worker_that_is_stuck_or_dead_ends_the_run_with_one_message_and_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: Callable[..., None], words: str
) -> None:
    training = tiny_training(tmp_path, "soft-teacher", *SHORT, "workers=1")
    training.run(until=2)
    before = set(multiprocessing.active_children())
    monkeypatch.setattr(data, "PATIENCE", 1.0)
    monkeypatch.setattr(sources, "read_image", reading)
    with pytest.raises(EnvironmentFault, match=words) as found:
        training.run()
    assert "repeat the same command" in str(found.value.remedy)
    assert training.position.iteration == 2
    for worker in set(multiprocessing.active_children()) - before:
        worker.join(5)
        assert not worker.is_alive()


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_ranks_die_and_stop_as_one_run(
    tmp_path: Path, tiny_coco: Path, started: Callable[[list[str]], subprocess.Popen[str]]
) -> None:
    changes = [f"--set={change}" for change in (*CHANGES, "iterations=2000", "generations=2")]
    words = ["run", "--task", str(tiny_coco / "tiny.toml"), "--method", "soft-teacher", "--preset", "smoke"]
    words += ["--data-root", str(tiny_coco), "--work-dir", str(tmp_path), "--name", "tiny", *changes]
    log = tmp_path / "runs/tiny/split0/soft-teacher/smoke-default+tiny/seed0/log.jsonl"

    killed = started([*words, "--launcher", "pytorch", "--gpus", "2"])
    wait_for_lines(log, 6)
    rank = ranks_of(killed.pid)[1]
    os.kill(rank, signal.SIGKILL)
    begun = time.monotonic()
    _, errors = killed.communicate(timeout=300)
    assert time.monotonic() - begun < 100  # on a busy machine; else about a second
    assert killed.returncode == 1, errors
    assert f"Error: Rank 1 (process {rank}) was killed by SIGKILL." in errors
    assert errors.count("Error: ") == 1, errors
    assert "Traceback" not in errors
    assert runs.read_record(log.parent).status == "interrupted"
    assert checkpoint.read(log.parent / "checkpoint.pth")["iteration"] >= 5

    again = started([*words, "--launcher", "pytorch", "--gpus", "2"])
    lines = len(log.read_bytes().splitlines())
    assert again.stdout is not None
    assert any("Continuing after iteration" in line for line in iter(again.stdout.readline, ""))
    wait_for_lines(log, lines + 2)
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 5, errors
    (said,) = re.findall(r"Error: Stopped after iteration (\d+) of 2000; a checkpoint is written", errors)
    assert errors.count("Error: ") == 1
    assert runs.read_record(log.parent).status == "interrupted"
    assert checkpoint.read(log.parent / "checkpoint.pth")["iteration"] == int(said)


def test_the_fault_of_another_rank_than_the_first_names_the_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "3")
    shared = BenchError("said by all")
    shared.on_all_ranks = True
    for fault in (BenchError("broken"), shared, PeerLost("another process of this run is gone.")):
        Output().fault(fault)
    assert capsys.readouterr().err == "Error: rank 3: broken\nRank 3 ends: another process of this run is gone.\n"
