"""What the suite does with memory that its tests have freed (tests/support/kept_memory.py)."""

from __future__ import annotations

import gc

import kept_memory
import pytest
from kept_memory import Watch, shown


def test_memory_is_given_back_above_a_bound_and_again_when_more_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, calls = iter([90, 101, 60, 60, 100, 101, 98, 97, 106, 108, 105, 103]), list[str]()
    monkeypatch.setattr(kept_memory, "resident", lambda: next(sizes))
    monkeypatch.setattr(kept_memory, "give_back", lambda: calls.append("trim"))
    monkeypatch.setattr(gc, "collect", lambda: calls.append("collect"))
    watch = Watch(bound=100, step=10)
    assert [watch.look() for _ in range(6)] == [False, True, False, True, False, True]
    assert calls == ["trim", "trim", "trim", "collect", "trim"]
    assert watch.bound == 113


def test_the_most_memory_is_told_by_process() -> None:
    peaks = {"gw0": 1_203_000_000, "gw1": 990_000_000}
    assert shown(peaks, 0) == "most memory: gw0 1,203 MB, gw1 990 MB"
    assert shown({"tests": 500_000_000}, 7_000_000) == "most memory: tests 500 MB, largest fork 7 MB"


def test_the_most_is_no_less_than_what_is_taken_now() -> None:
    assert kept_memory.peak() >= kept_memory.resident() > 10 << 20
