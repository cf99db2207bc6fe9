"""The presets build and train: `full` one step at full image size, `smoke` from command to record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectors import CLASSES, GROUPS, view
from short_runs import numbers_of, run_words, wait_for_lines

from cissod_bench.contract.parts import Context, Parts
from cissod_bench.contract.presets import preset
from cissod_bench.contract.settings import learning_rate
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.training.loop import make_optimiser


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cissod_bench", *words],
        capture_output=True, text=True, timeout=600, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_full_makes_an_optimiser_step_at_full_image_size() -> None:
    """Sec. 4.2's detector from random weights, on 1 + 1 images to fit a small machine."""
    settings = replace(preset("full", task_iterations=180_000), pretrained="", warmup_iterations=0)
    torch.manual_seed(0)
    model = faster_rcnn(settings, len(CLASSES))
    detector = SemiSupervisedDetector(model, Parts(len(CLASSES)), settings, GROUPS, CLASSES)
    assert sum(p.numel() for p in detector.student.parameters()) > 41_000_000
    frozen = [n for n, p in detector.student.named_parameters() if not p.requires_grad]
    assert any("layer1" in name for name in frozen)
    assert not any("layer2.0.conv1" in name for name in frozen)
    large = {"height": 800, "width": 1333}
    batch = {"sup": [view(0, 3, **large)], "weak": [view(1, **large)], "strong": [view(1, **large)]}
    before = {name: p.clone() for name, p in detector.student.named_parameters() if p.requires_grad}
    optimiser = make_optimiser(settings, detector.student)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(0, settings, 8)
    losses = detector(batch, Context(0, settings.iterations))
    total = torch.stack([value.sum() for value in losses.values()]).sum()
    assert torch.isfinite(total)
    total.backward()
    optimiser.step()
    moved = [
        name for name, p in detector.student.named_parameters() if p.requires_grad and not torch.equal(p, before[name])
    ]
    assert {"backbone.layer2.0.conv1.weight", "roi_head.bbox_head.fc_cls.weight"} <= set(moved)


@pytest.mark.slow
def test_a_run_that_is_killed_continues_and_ends_as_if_it_had_not(tmp_path: Path) -> None:
    sets = ("--set", "iterations=12", "--set", "generations=3", "--set", "checkpoint_every=2")
    straight = command("--json", *run_words(tmp_path / "a", *sets))
    assert straight.returncode == 0, straight.stderr
    words = [sys.executable, "-m", "cissod_bench", *run_words(tmp_path / "b", *sets)]
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "b/runs/toy/split0/soft-teacher/smoke-default/seed0/log.jsonl"
    wait_for_lines(log, 5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert json.loads((log.parent / "run.json").read_text())["status"] == "running"
    again = command("--json", *run_words(tmp_path / "b", *sets))
    assert again.returncode == 0, again.stderr
    assert "Continuing after iteration" in again.stderr
    one, other = (json.loads(run.stdout)[0] for run in (straight, again))
    assert other["status"] == "done"
    assert one["ap"] == other["ap"]
    assert one["per_class"] == other["per_class"]
    lines = [numbers_of(tmp_path / name / log.relative_to(tmp_path / "b")) for name in "ab"]
    assert lines[0] == lines[1]
    assert [line["iteration"] for line in lines[0]] == list(range(1, 13))


@pytest.mark.slow
def test_sigterm_to_the_whole_process_group_ends_resumable(tmp_path: Path) -> None:
    """As schedulers send it: loader workers get the signal, too."""
    sets = ("--set", "iterations=2000", "--set", "workers=1")
    words = [sys.executable, "-m", "cissod_bench", *run_words(tmp_path, *sets)]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "runs/toy/split0/soft-teacher/smoke-default/seed0/log.jsonl"
    wait_for_lines(log, 2)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 5, errors
    assert "repeat the same command to continue" in errors
    assert json.loads((log.parent / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    sets = ("--set", "iterations=2", "--set", "generations=1")
    first = command("--json", *run_words(tmp_path, *sets))
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)[0]
    assert set(record["ap"]) == {"teacher", "student"}
    assert set(record["ap"]["teacher"]) == {"all", "maj", "min"}
    assert len(record["per_class"]["teacher"]) == 10
    assert record["departures"]["depth"] == [50, 18]
    folder = Path(record["dir"])
    assert {"run.json", "log.jsonl", "settings.json", "predictions.json.gz", "checkpoint.pth"} <= {
        p.name for p in folder.iterdir()
    }
    again = command(*run_words(tmp_path, *sets))
    assert again.returncode == 0
    assert "Already done" in again.stdout
    other = command(*run_words(tmp_path, *sets, "--set", "theta=0.4"))
    assert other.returncode == 2
    assert "holds a run with other settings (theta)" in other.stderr
    assert "another --work-dir" in other.stderr


@pytest.mark.slow
def test_a_run_in_two_processes_ends_with_one_record(tmp_path: Path) -> None:
    sets = ("--set", "iterations=2", "--set", "generations=1")
    done = command(*run_words(tmp_path, *sets, "--launcher", "pytorch", "--gpus", "2"))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("run.json")
    record = json.loads(path.read_text())
    assert record["status"] == "done"
    assert record["hardware"]["world_size"] == 2
    assert record["departures"]["images_per_iteration"] == [40, 6]
    assert done.stdout.count("Run folder:") == 1
    one_alone = command(*run_words(tmp_path, *sets, "--set", "iterations=3"))
    assert one_alone.returncode == 2


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
    tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    done = (
        command(*words, "--work-dir", str(tmp_path / "w"), "--dry-run")
        if code != 3
        else command(*words, "--work-dir", str(tmp_path / "w"))
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w" / "runs").exists()
