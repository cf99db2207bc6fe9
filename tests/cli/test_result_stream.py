"""With --json stdout holds one JSON value, whatever else the process, its libraries and its children print there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called
from fake_runs import SCHEMA1

from cissod_bench.records.run_folder import RECORD, run_folder

ROOT = Path(__file__).resolve().parents[2]
# Prints in every way that there is; what C's printf keeps in its buffer comes when the process ends.
NOISE = """
import atexit, ctypes, logging, os, subprocess, sys
kept = sys.stdout
handler = logging.StreamHandler(sys.stdout)
def noise():
    print("noise of print")
    sys.__stdout__.write("noise of a buffer")
    kept.write("noise of a stream that was kept")
    handler.emit(logging.LogRecord("noise", 20, "", 0, "noise of a handler", None, None))
    os.write(1, b"noise of a descriptor")
    ctypes.CDLL(None).printf(b"noise of C")
    subprocess.run([sys.executable, "-S", "-c", "print('noise of a child')"], check=True)
    atexit.register(print, "noise at the exit")
"""
EVERY_BODY = """
import click
before = click.Command.invoke
def invoke(self, ctx):
    if isinstance(self, click.Group):
        return before(self, ctx)
    noise()
    try:
        return before(self, ctx)
    finally:
        noise()
click.Command.invoke = invoke
from cissod_bench.cli import entry
entry()
"""
METHOD = f"""{NOISE}
from cissod_bench.contract.method import Method
from cissod_bench.loading import sources
from cissod_bench.contract.parts import Parts

read = sources.read_image
def noisy(*words, **options):  # in a loader worker
    noise()
    return read(*words, **options)
sources.read_image = noisy

class Noisy(Parts):
    def enter_stage(self, model, context):
        model.backbone.register_forward_pre_hook(lambda *words: noise())

def parts(facts):
    noise()
    return Noisy(len(facts.classes))

METHOD = Method(title="Noisy", source="a test", citation="-", parts=parts)
"""
NOISES = (
    "noise of print", "noise of a buffer", "noise of a stream", "noise of a handler", "noise of a descriptor",
    "noise of C", "noise of a child", "noise at the exit",
)  # fmt: skip


def program(text: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program with a command line; Python's own buffers are as in a pipe."""
    command = [sys.executable, "-c", text, *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONUNBUFFERED", "CISSOD_DATA")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def work(split: Callable[..., Called], tmp_path: Path) -> Path:
    """Return a work folder with a split and a run in it."""
    assert split().code == 0
    folder = run_folder(tmp_path / "work", "toy", 0, "ours", "", "mini", "default", 0)
    folder.mkdir(parents=True)
    shutil.copy(SCHEMA1, folder / RECORD)
    return tmp_path / "work"


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_no_command_lets_noise_into_its_json(work: Path, tiny_coco: Path, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[]")
    folder = work / "splits" / "tiny" / "seed0"
    data, below, toml = ("--data-root", tiny_coco), ("--work-dir", work), tiny_coco / "tiny.toml"
    parts = ("--labelled", folder / "labelled.json", "--unlabelled", folder / "unlabelled.json")
    for words in (
        ("make-splits", "--task", toml, *data, *below),
        ("run", "--task", toml, "--method", "supervised", "--preset", "smoke", "--dry-run", *data, *below),
        ("sweep", "--task", "toy", "--method", "ours", "--status", *below),
        ("report", *below),
        ("evaluate", "--split", folder, "--predictions", tmp_path / "found.json", *data, *below),
        ("splits", "list", *below),
        ("splits", "show", folder, *below),
        ("splits", "verify", folder, *below),
        ("splits", "diff", folder, folder, *below),
        ("splits", "plot", folder, "--format", "csv", *below),
        ("splits", "import", "--task", toml, *parts, "--split-seed", "5", *data, *below),
        ("data", "check", "--task", toml, *data, *below),
        ("tasks",),
        ("tasks", "toy"),
        ("methods",),
        ("presets",),
        ("doctor", *below),
    ):
        done = program(NOISE + EVERY_BODY, *words, "--json")
        json.loads(done.stdout)
        assert [one for one in NOISES if one not in done.stderr] == [], words


def test_a_refusal_leaves_stdout_empty_whatever_libraries_print(tmp_path: Path) -> None:
    done = program(NOISE + EVERY_BODY, "evaluate", "--json", "--split", tmp_path, "--predictions", tmp_path / "none")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Error: " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launched", [(), ("--gpus", "2", "--launcher", "pytorch")], ids=["one process", "two ranks"])
@pytest.mark.usefixtures("forked")
def test_a_run_with_a_noisy_backbone_and_noisy_workers_prints_one_json_value(
    launched: tuple[str, ...], tiny_coco: Path, tmp_path: Path
) -> None:
    (tmp_path / "noisy.py").write_text(METHOD)
    short = [word for change in ("iterations=2", "generations=1", "workers=1") for word in ("--set", change)]
    names = ("--task", tiny_coco / "tiny.toml", "--method", tmp_path / "noisy.py", "--preset", "smoke")
    folders = ("--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    text = "from cissod_bench.cli import entry; entry()"
    done = program(text, "run", "--json", *names, *folders, *short, *launched)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["status"] == "done"
    assert [one for one in NOISES if one not in done.stderr] == []


def test_without_json_stdout_is_as_before(tmp_path: Path) -> None:
    done = program(NOISE + EVERY_BODY, "tasks")
    assert "noise of print" in done.stdout
    assert done.stderr == ""


def test_a_reader_that_has_gone_ends_the_command_without_a_traceback() -> None:
    command = f"{sys.executable} -m cissod_bench methods ours --json | head -c 0; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 128 + 13)
