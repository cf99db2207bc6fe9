"""Fixtures that every test may use: the real data where it lies, a tiny data set drawn by code, the command line."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import forks
import kept_memory
import pytest
from commands import Called
from core_only import MISSING, CoreModule, skip_if_refused, skipping
from forks import Fork
from shapes import copy_shapes
from tiny_files import TINY_TASK

from cissod_bench import cli

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's, before it is imported: tests run in a process a core
gc.disable()  # until all is imported, which stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first: none of them begins when the other processes have nothing left."""
    seconds = Counter[Path]()
    for item in items:
        seconds[item.path] += 5000 if item.get_closest_marker("slow") else 50  # thousandths; what "slow" says
    items.sort(key=lambda item: -seconds[item.path])


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Let a file that imports what is missing here skip; where nothing is missing, all is as usual."""
    return CoreModule.from_parent(parent, path=module_path) if MISSING else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Let a test that needs what is missing here skip."""
    with skipping():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    """Let a test skip whose fixture needs what is missing here."""
    with skipping():
        return (yield)


def pytest_collection_finish() -> None:
    """Let no search for garbage look at imports and tests again: a million objects, half a second each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


_watch = kept_memory.Watch()
_peaks: dict[str, int] = {}  # of the processes of the tests and, as "", of their forks


def pytest_runtest_logfinish() -> None:
    """Keep no memory that tests have freed."""
    _watch.look()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note how much memory this process had; pytest-xdist hands it on."""
    peaks = {kept_memory.process_name(): kept_memory.peak(), "": forks.largest()}
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["peaks"] = peaks
    elif not _peaks:
        _peaks.update(peaks)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process of pytest-xdist had."""
    peaks = dict(getattr(node, "workeroutput", {}).get("peaks", {}))
    _peaks.update(peaks, **{"": max(_peaks.get("", 0), peaks.get("", 0))})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the most memory that each process had: 1.5 GB is the goal."""
    terminalreporter.write_line(kept_memory.shown({k: v for k, v in sorted(_peaks.items()) if k}, _peaks.get("", 0)))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data named by CISSOD_TEST_DATA."""
    named = os.environ.get("CISSOD_TEST_DATA")
    if not named:
        pytest.skip("CISSOD_TEST_DATA is not set: it names a folder with coco/, coco_mini/, evaluator/ and lvis/")
    path = Path(named).resolve()
    if not path.is_dir():
        pytest.skip(f"CISSOD_TEST_DATA names {path}, which is no folder")
    return path


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Path:
    """Return a data root with a task file ``tiny.toml`` and the COCO-style data set it names: 40 + 10 images."""
    root = tmp_path / "data"
    weights = {"circle": 2.0, "square": 1.5, "triangle": 1.0, "heart": 1.0, "arrow": 0.8}
    copy_shapes(root / "tiny", {"train": 40, "val": 10}, weights, seed=7)
    (root / "tiny.toml").write_text(TINY_TASK, encoding="utf-8")
    return root


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Return a function that runs ``cissod-bench`` with the given arguments in this process."""

    def run(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["cissod-bench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        shown = capsys.readouterr()
        code = ended.value.code
        return skip_if_refused(Called(code if isinstance(code, int) else 0, shown.out, shown.err))

    return run


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs of this Python that the test or the code starts be forks: it is not about how they start."""
    monkeypatch.setattr(subprocess, "Popen", Fork)


@pytest.fixture
def split(tiny_coco: Path, tmp_path: Path, call: Callable[..., Called]) -> Callable[..., Called]:
    """Return a function that draws the tiny split below ``tmp_path / "work"`` (or another name)."""

    def run(*options: object, work: str = "work") -> Called:
        task = ("--task", tiny_coco / "tiny.toml")
        return call("make-splits", *task, "--data-root", tiny_coco, "--work-dir", tmp_path / work, *options)

    return run
