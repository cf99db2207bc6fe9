"""``--restart`` asks before it deletes work, and no remedy proposes what deletes results."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from commands import Called
from tiny import CHANGES

import cissod_bench
from cissod_bench.cli import restart
from cissod_bench.cli.restart import allow_restart
from cissod_bench.errors import UsageFault
from cissod_bench.records import run_folder as runs

ROOT = Path(cissod_bench.__file__).parents[1]
DESTROYS = re.compile(r"--restart|\bdelete\b|\brm -|\berase\b|make clean", re.IGNORECASE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder of 30 iterations; the smoke preset writes a checkpoint every 5."""
    place = tmp_path / "work/runs/tiny/split0/supervised/smoke-default+tiny/seed0"
    place.mkdir(parents=True)
    (place / runs.LOG).write_text('{"iteration": 30}\n')
    return place


def words(tmp_path: Path, tiny_coco: Path, *more: str) -> list[str]:
    sets = [f"--set={change}" for change in (*CHANGES, "iterations=2", "generations=1", "workers=0")]
    task = ["--task", str(tiny_coco / "tiny.toml"), "--data-root", str(tiny_coco), "--work-dir", str(tmp_path / "work")]
    return ["run", "--method", "supervised", "--preset", "smoke", "--name", "tiny", *task, *sets, *more]


@pytest.mark.parametrize("more", [[], ["--launcher", "pytorch", "--gpus", "2"]], ids=["one", "two"])
def test_without_a_terminal_restart_deletes_no_work_and_says_how_to_keep_it(
    tmp_path: Path, tiny_coco: Path, folder: Path, call: Callable[..., Called], more: list[str]
) -> None:
    done = call(*words(tmp_path, tiny_coco, "--restart", *more))
    assert done.code == 2
    assert f"--restart would delete 30 iterations in {folder}" in done.err
    assert "scripts that mean it say --yes" in done.err
    assert "-> leave --restart out to continue" in done.err
    assert (folder / runs.LOG).read_text() == '{"iteration": 30}\n'


@pytest.mark.slow
def test_yes_deletes_it_without_a_question(
    tmp_path: Path, tiny_coco: Path, folder: Path, call: Callable[..., Called]
) -> None:
    done = call(*words(tmp_path, tiny_coco, "--restart", "--yes"))
    assert done.code == 0, done.err
    assert '"iteration": 30' not in (folder / runs.LOG).read_text()
    assert runs.read_record(folder).status == "done"
    again = call(*words(tmp_path, tiny_coco, "--restart"))  # two iterations are less than an interval
    assert again.code == 0, again.err
    assert "Already done" not in again.out


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_user_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    asked: list[str] = []
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(restart, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    monkeypatch.setattr(click, "confirm", lambda text, **options: asked.append(text) is None and answer)
    if answer:
        allow_restart(folder, 5, yes=False, may_ask=True)
    else:
        with pytest.raises(UsageFault, match="Nothing was deleted"):
            allow_restart(folder, 5, yes=False, may_ask=True)
    assert asked == [f"--restart deletes 30 iterations in {folder}. Delete it?"]
    allow_restart(folder, 5, yes=True, may_ask=True)
    allow_restart(folder, 30, yes=False, may_ask=True)
    with pytest.raises(UsageFault, match="Nobody can be asked here"):
        allow_restart(folder, 5, yes=False, may_ask=False)  # one of several ranks
    assert len(asked) == 1


def sources() -> Iterator[Path]:
    for place in ("cissod_bench", "splits", "baselines", "method", "reports"):
        yield from (ROOT / place).rglob("*.py")


def texts(path: Path) -> Iterator[str]:
    """The texts of a module that a user may see: all but documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_text_of_the_program_proposes_what_deletes_results() -> None:
    assert {"run.py", "checkpoint.py"} <= {path.name for path in sources()}
    option = ROOT / "cissod_bench/cli/run.py", ROOT / "cissod_bench/cli/restart.py"
    # `runs clean` deletes checkpoints of finished runs alone, and asks; a job that starts again leaves these words out.
    others = [ROOT / "cissod_bench" / name for name in ("cli/runs.py", "keeping/inventory.py", "launching/job.py")]
    looked_at = [path for path in sources() if path not in {*option, *others}]
    found = [(path, text) for path in looked_at for text in texts(path) if DESTROYS.search(text)]
    named = [text for path in others for text in texts(path) if "--restart" in text]
    assert named == ["--restart"]
    # A pretrained backbone that is broken is no result; it is fetched again.
    downloads = [ROOT / "cissod_bench" / name for name in ("doctor.py", "backbones/pretrained.py")]
    downloads.append(ROOT / "cissod_bench/backbones/safe_loading.py")
    assert [(path.name, text) for path, text in found if path not in downloads or "--restart" in text] == []
    remedies = [text for path in option for text in texts(path) if "leave --restart out" in text]
    assert len(remedies) == 1


@pytest.mark.parametrize(
    "more",
    [[], ["--dry-run"], ["--restart", "--yes"], ["--launcher", "pytorch", "--gpus", "2", "--yes"]],
    ids=["run", "dry run", "restart", "two processes"],
)
def test_weights_that_are_not_here_are_told_before_anything_is_written_or_forgotten(
    tmp_path: Path, tiny_coco: Path, folder: Path, call: Callable[..., Called], more: list[str]
) -> None:
    gone = tmp_path / "gone.pth"
    done = call(*words(tmp_path, tiny_coco, f"--set=pretrained={gone}", *more))
    assert done.code == 4
    assert f"The pretrained backbone {str(gone)!r} cannot be read or fetched: there is no such file." in done.err
    assert (folder / runs.LOG).read_text() == '{"iteration": 30}\n'
    assert not (folder / runs.RECORD).exists()
