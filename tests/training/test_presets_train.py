"""The presets build and train: `full` one step at full image size, `smoke` from command to record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called
from ranks import run_processes
from short_runs import TINY_FOLDER, numbers_of, run_words, wait_for_lines


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cissod_bench", *words],
        capture_output=True, text=True, timeout=600, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_full_makes_an_optimiser_step_at_full_image_size(tmp_path: Path) -> None:
    """In a process of its own, whose memory ends with it."""
    code = f"from pathlib import Path\nfrom full_step import check_full_step\ncheck_full_step(Path({str(tmp_path)!r}))"
    run_processes(code, tmp_path, [{}], patience=900)


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_run_that_is_killed_continues_and_ends_as_if_it_had_not(
    tmp_path: Path, tiny_coco: Path, call: Callable[..., Called]
) -> None:
    sets = ("--set", "iterations=12", "--set", "generations=3", "--set", "checkpoint_every=2")
    straight = call("--json", *run_words(tmp_path / "a", tiny_coco, *sets))
    assert straight.code == 0, straight.err
    words = [sys.executable, "-m", "cissod_bench", *run_words(tmp_path / "b", tiny_coco, *sets)]
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "b" / TINY_FOLDER / "log.jsonl"
    wait_for_lines(log, 5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert json.loads((log.parent / "run.json").read_text())["status"] == "running"
    again = call("--json", *run_words(tmp_path / "b", tiny_coco, *sets))
    assert again.code == 0, again.err
    assert "Continuing after iteration" in again.err
    one, other = (json.loads(run.out)[0] for run in (straight, again))
    assert other["status"] == "done"
    assert one["ap"] == other["ap"]
    assert one["per_class"] == other["per_class"]
    lines = [numbers_of(tmp_path / name / log.relative_to(tmp_path / "b")) for name in "ab"]
    assert lines[0] == lines[1]
    assert [line["iteration"] for line in lines[0]] == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_sigterm_to_the_whole_process_group_ends_resumable(tmp_path: Path, tiny_coco: Path) -> None:
    """As schedulers send it: loader workers get the signal, too."""
    sets = ("--set", "iterations=2000", "--set", "workers=1")
    words = [sys.executable, "-m", "cissod_bench", *run_words(tmp_path, tiny_coco, *sets)]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / TINY_FOLDER / "log.jsonl"
    wait_for_lines(log, 2)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 5, errors
    assert "repeat the same command to continue" in errors
    assert json.loads((log.parent / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again_and_a_changed_one_is_refused(
    tmp_path: Path, tiny_coco: Path, call: Callable[..., Called]
) -> None:
    sets = ("--set", "iterations=2", "--set", "generations=1")
    first = call("--json", *run_words(tmp_path, tiny_coco, *sets))
    assert first.code == 0, first.err
    record = json.loads(first.out)[0]
    assert set(record["ap"]) == {"teacher", "student"}
    assert set(record["ap"]["teacher"]) == {"all", "maj", "min"}
    assert len(record["per_class"]["teacher"]) == 5
    assert record["departures"]["depth"] == [50, 18]
    folder = Path(record["dir"])
    assert {"run.json", "log.jsonl", "settings.json", "predictions.json.gz", "checkpoint.pth"} <= {
        p.name for p in folder.iterdir()
    }
    again = call(*run_words(tmp_path, tiny_coco, *sets))
    assert again.code == 0
    assert "Already done" in again.out
    other = call(*run_words(tmp_path, tiny_coco, *sets, "--set", "theta=0.4"))
    assert other.code == 2
    assert "holds a run with other settings (theta)" in other.err
    assert "or pass another --name" in other.err


@pytest.mark.slow
def test_a_run_in_two_processes_ends_with_one_record(
    tmp_path: Path, tiny_coco: Path, call: Callable[..., Called]
) -> None:
    sets = ("--set", "iterations=2", "--set", "generations=1")
    done = command(*run_words(tmp_path, tiny_coco, *sets, "--launcher", "pytorch", "--gpus", "2"))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("run.json")
    record = json.loads(path.read_text())
    assert record["status"] == "done"
    assert record["hardware"]["world_size"] == 2
    assert record["departures"]["images_per_iteration"] == [40, 6]
    assert done.stdout.count("Run folder:") == 1
    one_alone = call(*run_words(tmp_path, tiny_coco, *sets, "--set", "iterations=3"))
    assert one_alone.code == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--task", "toi", "--method", "soft-teacher"], 2, "There is no task 'toi'. Did you mean 'toy'"),
        (
            ["run", "--task", "toy", "--method", "soft-techer"],
            2,
            "There is no method 'soft-techer'. Did you mean 'soft-teacher'",
        ),
        (["run", "--task", "toy", "--method", "soft-teacher", "--preset", "huge"], 2, "There is no preset 'huge'"),
        (["run", "--task", "toy", "--method", "soft-teacher", "--profile", "mine"], 2, "There is no profile 'mine'"),
        (
            ["run", "--task", "toy", "--method", "soft-teacher", "--variant", "x"],
            2,
            "There is no variant of soft-teacher 'x'",
        ),
        (["run", "--task", "toy", "--method", "soft-teacher", "--set", "tetha=1"], 2, "Did you mean 'theta'"),
        (["run", "--task", "toy", "--method", "soft-teacher", "--seed", "-1"], 2, "--seed"),
        (["run", "--task", "coco-split1", "--method", "soft-teacher", "--data-root", "nowhere"], 3, "nowhere"),
        (["run", "--task", "missing.toml", "--method", "soft-teacher"], 2, "missing.toml"),
        (["run", "--method", "soft-teacher"], 2, "--task"),
        (["run", "--task", "toy", "--method", "soft-teacher", "--gpus", "2"], 2, "add --launcher pytorch"),
        (
            ["run", "--task", "toy", "--method", "soft-teacher", "--launcher", "pytorch", "--gpus", "no"],
            2,
            "--gpus must be",
        ),
    ],
)
def test_bad_input_of_run_is_one_message_with_its_exit_code(
    tmp_path: Path, call: Callable[..., Called], words: list[str], code: int, message: str
) -> None:
    done = (
        call(*words, "--work-dir", str(tmp_path / "w"), "--dry-run")
        if code != 3
        else call(*words, "--work-dir", str(tmp_path / "w"))
    )
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "w" / "runs").exists()
