"""Evaluations in log.jsonl: written, read again, and the best of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cissod_bench.records import log
from cissod_bench.records.evaluation_lines import Evaluation, best_of, read_evaluations
from cissod_bench.records.record import FREE_SETTINGS
from cissod_bench.records.run_folder import LOG


def evaluation(iteration: int, whole: float | None, images: int = 4, **more: Any) -> Evaluation:
    ap = {"teacher": {"all": whole, "my_group": 1.5}, "student": {"all": 2.0, "my_group": None}}
    return Evaluation(iteration=iteration, generation=0, images=images, ap=ap, seconds=0.5, **more)


def test_lines_are_read_as_they_were_written_among_those_of_the_training(tmp_path: Path) -> None:
    written = [evaluation(10, 30.0), evaluation(20, None)]
    log.append(tmp_path / LOG, {"iteration": 10, "loss": 1.0})
    for line in written:
        log.append(tmp_path / LOG, line.written())
    log.append(tmp_path / LOG, {"iteration": 21, "loss": 1.0})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"iteration": 30, "eval_images": 4, "ap_tea')
    assert read_evaluations(tmp_path) == written
    log.rewind(tmp_path / LOG, 10)
    assert read_evaluations(tmp_path) == written[:1]
    assert read_evaluations(tmp_path / "nowhere") == []


def test_the_best_is_the_first_of_equals_on_the_same_images() -> None:
    lines = [evaluation(10, 90.0, images=2), evaluation(20, 30.0), evaluation(30, 40.0), evaluation(40, 40.0)]
    assert best_of(lines, "all") is lines[2]
    assert best_of(lines, "my_group", "student") is None
    assert best_of([], "all") is None


def test_settings_of_evaluations_change_no_number_of_a_table() -> None:
    assert {"eval_every", "eval_images", "keep_checkpoints", "best_by"} <= FREE_SETTINGS
