"""Lines of log.jsonl: means over the iterations since the last line and over ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import two_processes
from tiny import tiny_plan, tiny_training
from watched_trainings import losses_of

from cissod_bench.errors import Interrupted
from cissod_bench.loading.loaders import training_batches
from cissod_bench.training.interval import GPU_MEMORY, Interval, means

SHORT = ("iterations=6", "generations=2", "checkpoint_every=100")
CPU = torch.device("cpu")


def logged(folder: Path, every: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Train; return the lines of the log and the numbers of every iteration."""
    training = tiny_training(folder, "soft-teacher", *SHORT, f"log_every={every}")
    lines: list[dict[str, float]] = []
    training.log = lines.append
    return lines, losses_of(training)


def test_a_line_holds_means_over_its_iterations_and_a_line_an_iteration_the_numbers_themselves(tmp_path: Path) -> None:
    lines, numbers = logged(tmp_path, 1)
    assert [{**line, **own} for line, own in zip(lines, numbers, strict=True)] == lines  # to the bit
    longer, again = logged(tmp_path, 4)
    assert again == numbers
    assert [line["iteration"] for line in longer] == [4, 6]
    for line, own in zip(longer, (numbers[:4], numbers[4:]), strict=True):
        assert line["lr"] == own[-1]["lr"]
        for name in own[-1].keys() - {"lr"}:
            assert line[name] == pytest.approx(sum(one[name] for one in own) / len(own)), name
    assert longer[0]["loss"] != numbers[3]["loss"]


def test_a_stop_within_an_interval_changes_no_line(tmp_path: Path) -> None:
    whole, _ = logged(tmp_path / "whole", 4)
    lines: list[dict[str, float]] = []
    for stop in (1, 3, 5, 7):
        training = tiny_training(tmp_path / "half", "soft-teacher", *SHORT, "log_every=4")
        training.log, training.stop = lines.append, lambda stop=stop, at=training: at.position.iteration == stop  # type: ignore[misc]
        training.resume()
        if stop < 6:
            with pytest.raises(Interrupted):
                training.run()
        else:
            training.run()
    for line in (*whole, *lines):
        del line["seconds"]
    assert lines == whole


def test_numbers_that_are_missing_or_not_finite_leave_the_mean_of_the_others() -> None:
    interval = Interval()
    interval.add({"loss": torch.tensor(1.0), "lr": 0.1, "late": torch.tensor([4.0])})
    interval.add({"loss": torch.tensor(float("nan")), "lr": 0.2, "never": float("inf")})
    interval.add({"loss": 3.0, "lr": 0.3})
    found = interval.close(CPU)
    assert math.isnan(found.pop("never"))
    assert found == {"loss": 2.0, "lr": 0.3, "late": 4.0}
    assert interval.close(CPU) == {}


def test_ranks_are_averaged_by_their_iterations_and_memory_is_the_most() -> None:
    def rank(sums: dict[str, float], numbers: dict[str, int], memory: float | None) -> dict[str, Any]:
        return {"sums": sums, "numbers": numbers, "memory": memory}

    both = [rank({"loss": 6.0}, {"loss": 3}, 100.0), rank({"loss": 2.0, "own": 5.0}, {"loss": 1, "own": 1}, 300.0)]
    assert means(both) == {"loss": 2.0, "own": 5.0, GPU_MEMORY: 300.0}
    assert GPU_MEMORY not in means([rank({"loss": 1.0}, {"loss": 1}, None)])


def test_a_gpu_tells_the_most_memory_that_tensors_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    interval = Interval()
    interval.add({"loss": 1.0})
    assert interval.close(torch.device("cuda", 0)) == {"loss": 1.0, GPU_MEMORY: 3.0}


def test_loader_workers_start_no_threads_of_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    from cissod_bench.loading import sources

    read = sources.read_image
    monkeypatch.setattr(cv2, "getNumThreads", cv2.getNumThreads)

    def told(*words: Any, **options: Any) -> Any:
        (tmp_path / "threads").write_text(str(cv2.getNumThreads()))
        return read(*words, **options)

    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    monkeypatch.setattr(sources, "read_image", told)
    training = tiny_training(tmp_path, "supervised", "iterations=1", "generations=1")
    try:
        next(training_batches(training.dataset, training.sampler, 0, 1, 1))
        assert cv2.getNumThreads() == 4  # the main process keeps what it had
    finally:
        cv2.setNumThreads(before)
    assert (tmp_path / "threads").read_text() in ("0", "1")


TWO = """
import sys, torch
from pathlib import Path
from watched_trainings import losses_of
from tiny import tiny_training
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
training = tiny_training(Path({folder!r}), "soft-teacher", *{short!r}, "log_every=3")
lines = []
training.log = lines.append
numbers = losses_of(training)
torch.save({{"lines": lines, "numbers": numbers}}, Path({folder!r}) / f"rank{{distributed.rank()}}.pth")
distributed.stop()
"""


@pytest.mark.slow
def test_a_line_holds_means_over_two_ranks(tmp_path: Path) -> None:
    tiny_plan(tmp_path)
    one, other = two_processes(TWO, tmp_path, short=SHORT)
    for line, line_of_other, begin in zip(one["lines"], other["lines"], (0, 3), strict=True):
        own = [*one["numbers"][begin : begin + 3], *other["numbers"][begin : begin + 3]]
        assert line["loss"] == line_of_other["loss"] == pytest.approx(sum(numbers["loss"] for numbers in own) / 6)
    assert one["numbers"][0]["loss"] != other["numbers"][0]["loss"]
