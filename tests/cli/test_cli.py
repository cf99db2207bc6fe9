"""The command line itself: help, version, unknown names, exit codes. What the commands do is tested beside them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from core_only import trains

from cissod_bench import __version__, cli
from cissod_bench.errors import BenchError, DataFault, EnvironmentFault, Interrupted, UsageFault
from cissod_bench.records.run_folder import run_folder

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cissod_bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Return a function that runs a command whose body raises the given error, and returns the exit code."""

    def run(error: BaseException, *options: str) -> object:
        @click.command("demo")
        @cli.global_options
        def fails() -> None:
            raise error

        monkeypatch.setattr(cli.importlib, "import_module", lambda _: SimpleNamespace(command=fails))
        monkeypatch.setattr(sys, "argv", ["cissod-bench", "demo", *options])
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        return ended.value.code

    return run


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str) -> None:
    done = call(option)
    assert done.returncode == 0
    assert [name for name in cli.COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f" {command} [OPTIONS]" in done.stdout.splitlines()[0]
    assert "--json" in done.stdout


def test_version_is_the_packages() -> None:
    assert call("--version").stdout == f"cissod-bench, version {__version__}\n"


def test_an_unknown_command_is_answered_with_a_near_match() -> None:
    done = call("make-split")
    assert done.returncode == 2
    assert "There is no command 'make-split'. Did you mean 'make-splits'" in done.stderr
    assert "cissod-bench --help" in done.stderr
    assert done.stdout == ""


def test_an_unknown_option_is_a_usage_fault() -> None:
    done = call("tasks", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BenchError("failed"), 1),
        (UsageFault("no such name"), 2),
        (DataFault("a broken file"), 3),
        (EnvironmentFault("a full disk"), 4),
        (Interrupted("to be continued"), 5),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("wrong"), 2),
        (RuntimeError("a fault of ours"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_kind_of_fault_has_its_exit_code(error: BaseException, code: int, end: Callable[..., object]) -> None:
    assert end(error) == code


def test_a_fault_is_one_message_with_its_remedy(end: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    end(DataFault("a.json: line 3: not a number", remedy="cissod-bench data check"))
    printed = capsys.readouterr()
    assert printed.err == "Error: a.json: line 3: not a number\n  -> cissod-bench data check\n"
    assert printed.out == ""


@pytest.mark.parametrize("error", [DataFault("broken"), RuntimeError("ours")], ids=["the user's", "ours"])
def test_a_traceback_is_shown_with_v_only(
    error: BaseException, end: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    end(error)
    assert "Traceback" not in capsys.readouterr().err
    end(error, "-v")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "behind"])
def test_json_works_before_and_behind_the_commands_name(place: str) -> None:
    done = call("--json", "tasks") if place == "before" else call("tasks", "--json")
    assert done.returncode == 0
    assert done.stdout.lstrip().startswith("[")


@pytest.mark.parametrize("arguments", [["--help"], ["tasks", "--json"]], ids=" ".join)
def test_a_reader_that_went_away_is_no_fault_of_ours(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cissod_bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@trains
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_the_demo_prints_one_value_whatever_its_steps_print(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(name: str) -> click.Command:
        @click.command(name, context_settings={"ignore_unknown_options": True})
        @click.argument("words", nargs=-1, type=click.UNPROCESSED)
        @cli.common.pass_output
        def talks(output: cli.common.Output, words: tuple[str, ...]) -> None:
            output.say(f"{name} says")
            print(f"{name} prints")
            output.result(name)
            if name == "run":
                method = words[words.index("--method") + 1]
                folder = run_folder(tmp_path, "toy", 0, method, "", "smoke", "default", 0)
                folder.mkdir(parents=True)
                (folder / "run.json").write_text('{"task": "toy", "status": "done"}')

        return talks

    names = ("make-splits", "run", "evaluate", "report")
    for name in names:
        module = importlib.import_module(f"cissod_bench.cli.{name.replace('-', '_')}")
        monkeypatch.setattr(module, "command", step(name))
    words = ["demo", "--preset", "smoke", "--work-dir", str(tmp_path), *["--json"] * as_json]
    monkeypatch.setattr(sys, "argv", ["cissod-bench", *words])
    with pytest.raises(SystemExit) as ended:
        cli.entry()
    assert ended.value.code == 0
    shown = capsys.readouterr()
    steps = shown.err if as_json else shown.out
    assert [steps.count(f"{name} says\n{name} prints\n") for name in names] == [1, 2, 2, 1]
    if as_json:
        folders = [tmp_path / f"runs/toy/split0/{name}/smoke-default/seed0" for name in ("soft-teacher", "ours")]
        assert json.loads(shown.out) == {
            "runs": [{"dir": str(folder), "task": "toy", "status": "done"} for folder in folders],
            "report": str(tmp_path / "reports/report.html"),
        }


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--run", "a", "--images", "a.jpg", "b.jpg", "c.jpg"),
        ("export", "--run", "a", "--format", "onnx", "--images", "a.jpg", "b.jpg"),
        ("report", "--runs", "a", "b"),
        ("run", "--method", "ours", "--task", "toy", "b"),
    ],
    ids=lambda words: words[0],
)
def test_a_pattern_that_the_shell_has_expanded_is_told_as_such(words: tuple[str, ...]) -> None:
    done = call(*words)
    assert done.returncode == 2
    said, remedy = done.stderr.splitlines()[-2:]
    assert "unexpected extra argument" in said
    assert remedy == f"  -> {cli.ONE_VALUE}"
