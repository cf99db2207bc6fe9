"""Scoring by several ranks: the bytes of one process, one load an image, and a clear end whichever rank ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from predicted import NAMES, training_of, written
from ranks import two_processes

from cissod_bench import distributed
from cissod_bench.errors import DataFault, EnvironmentFault, Interrupted
from cissod_bench.loading.batches import arranged
from cissod_bench.loading.sources import Source
from cissod_bench.training import exchange
from cissod_bench.training.predict import detections


class Group:
    """Threads that are the ranks of a run."""

    def __init__(self, ranks: int, patch: pytest.MonkeyPatch) -> None:
        self.ranks, self.own, self.barrier = ranks, threading.local(), threading.Barrier(ranks, timeout=20)
        self.values: dict[int, Any] = {}
        patch.setattr(distributed, "rank", lambda: self.own.rank)
        patch.setattr(distributed, "world_size", lambda: ranks)
        patch.setattr(distributed, "is_distributed", lambda: True)
        patch.setattr(distributed, "gather_objects", self.gathered)

    def gathered(self, value: Any) -> list[Any]:
        self.values[self.own.rank] = value
        self.barrier.wait()
        every = [self.values[rank] for rank in range(self.ranks)]
        self.barrier.wait()
        return every

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        ended: list[Any] = [None] * self.ranks

        def start(rank: int) -> None:
            self.own.rank = rank
            try:
                ended[rank] = work(rank)
            except Exception as fault:
                ended[rank] = fault

        threads = [threading.Thread(target=start, args=(rank,)) for rank in range(self.ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ended


def shares(rank: int, ranks: int, images: int) -> Iterator[list[int]]:
    batches = arranged(range(images), torch.ones(images, 2, dtype=torch.int64).numpy(), 4)
    for number in range(rank, len(batches), ranks):
        yield batches.places[batches.span(number)].tolist()


@pytest.mark.parametrize("period", [0.0, 60.0])
def test_three_ranks_exchange_an_odd_number_of_images_until_all_are_done(
    monkeypatch: pytest.MonkeyPatch, period: float
) -> None:
    monkeypatch.setattr(exchange, "PERIOD", period)
    group = Group(3, monkeypatch)
    told = group.run(lambda rank: list(exchange.exchanged(shares(rank, 3, 29))))
    assert told[0] == told[1] == told[2]
    assert sorted(place for items, _ in told[0] for item in items for place in item) == list(range(29))
    assert not any(asked for _, asked in told[0])
    assert (len(told[0]) > 1) == (period == 0)


def test_a_fault_and_a_stop_of_one_rank_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rank: int) -> Iterator[int]:
        yield rank
        if rank == 2:
            raise DataFault("image 7 is broken")

    group = Group(3, monkeypatch)
    ended = group.run(lambda rank: list(exchange.exchanged(broken(rank))))
    assert [(type(fault), str(fault), fault.on_all_ranks) for fault in ended] == [
        (DataFault, "image 7 is broken", True)
    ] * 3
    told = group.run(lambda rank: list(exchange.exchanged(iter([rank, 9]), lambda: rank == 1)))
    assert [asked for _, asked in told[0]] == [True] * len(told[0])
    assert told[0] == told[1] == told[2]


def test_an_image_is_loaded_once_for_teacher_and_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(tmp_path)
    read, image = list[int](), Source.image
    monkeypatch.setattr(Source, "image", lambda self, index: read.append(index) or image(self, index))
    done = list[int]()
    written(training, tmp_path, progress=done.append)
    images = len(training.dataset.sources[0])
    assert sorted(read) == list(range(images))
    assert sum(done) == 2 * images
    teacher, student = ((tmp_path / name).read_bytes() for name in NAMES)
    assert teacher != student


def test_what_is_detected_does_not_depend_on_the_size_of_the_batches(tmp_path: Path) -> None:
    found = {}
    for grouped in ("true", "false"):
        training = training_of(tmp_path / grouped, f"group_by_aspect={grouped}")
        for size in (1, 5):
            settings = replace(training.settings, test_batch=size)
            source = training.dataset.sources[0]
            found[size] = list(detections(training.detector, source, settings, range(len(source)), teacher=False))
        for one, five in zip(found[1], found[5], strict=True):
            assert one.image_index == five.image_index
            assert torch.equal(one.labels, five.labels)
            assert torch.allclose(one.boxes, five.boxes, atol=1e-2)
            assert torch.allclose(one.scores, five.scores, atol=1e-4)


def test_views_that_do_not_fit_into_the_gpus_memory_are_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(tmp_path)
    detector, source, settings = training.detector, training.dataset.sources[0], training.settings
    expected = list(detections(detector, source, settings, range(len(source))))
    tried, holds = list[int](), 2
    whole = detector.predict

    def small(views: Any, context: Any, *, teacher: bool) -> Any:
        tried.append(len(views))
        if len(views) > holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return whole(views, context, teacher=teacher)

    monkeypatch.setattr(detector, "predict", small)
    found = list(detections(detector, source, settings, range(len(source))))
    assert sum(number > 2 for number in tried) == 1, "what did not fit is not tried again"
    for one, other in zip(found, expected, strict=True):
        assert one.image_index == other.image_index
        assert torch.allclose(one.boxes, other.boxes, atol=1e-2)
    holds = 0
    with pytest.raises(EnvironmentFault, match="does not hold a single image in prediction") as fault:
        list(detections(detector, source, settings, range(len(source))))
    assert "nvidia-smi" in str(fault.value.remedy)


TWO = """
import os
from pathlib import Path
import torch
from cissod_bench import distributed
from cissod_bench.errors import BenchError, PeerLost
from cissod_bench.training import exchange
from predicted import training_of, written

distributed.start(torch.device("cpu"))
exchange.PERIOD = 0.0
rank, folder = distributed.rank(), Path({folder!r})
training = training_of(folder / "data")
done, ended = [], {{}}
written(training, folder / "two", progress=done.append)

def end(name, **options):
    try:
        with distributed.watched_peers():
            written(training, folder / name, **options)
    except BenchError as fault:
        ended[name] = [type(fault).__name__, fault.message, fault.exit_code, fault.on_all_ranks]

end("stopped", stop=lambda: rank == 1)
source = training.dataset.sources[0]
distributed.barrier()
if rank == 0:
    source.file(5).write_bytes(b"no image")
distributed.barrier()
end("broken")
torch.save({{"done": sum(done), "ended": ended}}, folder / f"rank{{rank}}.pth")
distributed.barrier()
end("lost", stop=lambda: os._exit(0) if rank == 1 else False)
torch.save({{"done": sum(done), "ended": ended}}, folder / f"rank{{rank}}.pth")
os._exit(0)
"""


def test_two_processes_write_the_bytes_of_one_and_end_together(tmp_path: Path) -> None:
    training = training_of(tmp_path / "data")
    written(training, tmp_path / "one")
    images = len(training.dataset.sources[0])
    first, second = two_processes(TWO, tmp_path)
    for name in NAMES:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert first["done"] == second["done"] == 2 * images
    assert first["ended"]["stopped"] == second["ended"]["stopped"]
    kind, words, code, on_all = first["ended"]["stopped"]
    assert (kind, code, on_all) == ("Interrupted", Interrupted.exit_code, True)
    assert words.startswith("Stopped after ")
    assert f" of {2 * images} predictions; the training is done and kept." in words
    assert first["ended"]["broken"] == second["ended"]["broken"]
    kind, words, code, on_all = first["ended"]["broken"]
    assert (kind, code, on_all) == ("DataFault", DataFault.exit_code, True)
    assert training.dataset.sources[0].name(5) in words
    assert first["ended"]["lost"][:1] == ["PeerLost"]
    assert "another process of this run is gone" in first["ended"]["lost"][1]
    for name in ("stopped", "broken", "lost"):
        assert not (tmp_path / name).exists() or list((tmp_path / name).iterdir()) == []
