"""A child is the command itself, which ends with its parent where the parent asks it to."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence

import pytest

from cissod_bench import cli, signals
from cissod_bench.launching.child import run_command


@pytest.mark.parametrize("asked", [True, False])
def test_a_program_follows_its_parent_only_if_asked_and_is_called_by_its_name_then(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[str]] = []
    words = run_command(["tasks", "--json"])[3:] if asked else ["tasks", "--json"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/cissod_bench/__main__.py", *words])
    monkeypatch.setattr(signals, "follow_parent", lambda: calls.append(["followed"]))
    monkeypatch.setattr(cli, "entry", lambda: calls.append(list(sys.argv)))
    runpy.run_module("cissod_bench", run_name="__main__")
    if asked:
        assert calls == [["followed"], ["cissod-bench", "tasks", "--json"]]
    else:
        assert calls == [["/somewhere/cissod_bench/__main__.py", "tasks", "--json"]]


def test_a_child_answers_as_the_command_does() -> None:
    words = ["tasks", "--json"]
    answers = []
    for command in (run_command(words), [sys.executable, "-m", "cissod_bench", *words]):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            answers.append((process.stdout.read(), process.wait()))
    assert answers[0] == answers[1]
    assert answers[0][1] == 0
