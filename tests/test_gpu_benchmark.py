"""The script for a GPU machine runs on a CPU, in tiny sizes, and leaves a whole record."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu
import msgspec
import pytest
import step_time

SMALL = (
    "base_channels=8", "fpn_channels=16", "fc_channels=32", "roi_samples=16", "rpn_samples=16", "proposals_train=50,20",
    "proposals_test=50,20", "labelled_per_gpu=1", "unlabelled_per_gpu=1",
)  # fmt: skip

METHODS = {"soft-teacher", *step_time.with_teacher()}


def test_all_parts_run_on_a_cpu_and_leave_a_whole_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[argparse.Namespace] = []

    def compare(sides: Sequence[str], options: argparse.Namespace) -> Any:
        """Stands for its processes, which tests/test_benchmarks.py starts."""
        asked.append(options)
        return SimpleNamespace(sides=[SimpleNamespace(name=side, wall=500.0, peak=100.0) for side in sides])

    monkeypatch.setattr(step_time, "compare", compare)
    words = ["--device", "cpu", "--preset", "smoke", "--classes", "3", "--threads", "1", "--mixed-steps", "1"]
    words += [word for change in SMALL for word in ("--set", change)]
    gpu.main([*words, "--records", str(tmp_path)])
    (path,) = tmp_path.glob("gpu-smoke-cpu-*.json")
    record = msgspec.json.decode(path.read_bytes(), type=gpu.GpuRecord)
    assert record.left_out == {}
    assert set(record.equal.values()) == {0.0}
    assert record.alone is not None
    assert record.alone < 1e-5
    assert [(one.side, one.images_per_second) for one in record.speed] == [(side, 4.0) for side in gpu.SIDES]
    assert {"amp=off", "labelled_per_gpu=1"} < set(asked[0].changes)
    assert [one.method for one in record.idle] == ["soft-teacher", "ours"]
    assert all(one.share is None and 0 < one.ours <= 22 < one.mmdets for one in record.idle)  # test_waits.py
    assert {one.method for one in record.mixed} == METHODS
    assert all((one.amp, one.steps, one.finite) == ("bf16", 1, 1) for one in record.mixed)


def test_parts_without_time_or_with_a_fault_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(options: Any, record: gpu.GpuRecord) -> Any:
        yield "broken", lambda: 1 / 0
        yield "whole", lambda: record.equal.update(loss=0.0)

    monkeypatch.setattr(gpu, "parts_of", parts)
    words = ["--device", "cpu", "--threads", "1", "--records", str(tmp_path)]  # of this process, for all later tests
    record = gpu.main(words)
    assert record.left_out == {"broken": "ZeroDivisionError: division by zero"}
    assert record.equal == {"loss": 0.0}
    assert record.departures == ("amp=off",)  # of preset full
    assert set(gpu.main([*words, "--minutes", "-1"]).left_out) == {"broken", "whole"}


def test_time_in_which_something_runs_is_counted_once() -> None:
    assert gpu.union([]) == 0
    assert gpu.union([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0
