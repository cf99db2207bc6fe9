"""The live line of a run where there is no terminal."""

from __future__ import annotations

import io
import time

import pytest

from cissod_bench.running.progress import Bar


def test_what_comes_before_the_first_step_has_no_pace_and_is_not_counted_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped at an evaluation makes it before its first step."""
    clock, stream = [100.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Bar("train", 300, done=200, stream=stream) as bar:
        clock[0] += 1800
        bar.advance(0, "evaluating 5/10")
        clock[0] += 25
        bar.advance(50, "loss 1.0")
    assert stream.getvalue() == "    train 200/300  evaluating 5/10\n    train 250/300  2.00/s  25 s left  loss 1.0\n"
