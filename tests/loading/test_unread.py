"""Images that cannot be read: left out or refused before the training, replaced and counted in the middle of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ranks import two_processes
from tiny import tiny_plan, tiny_training
from watched_trainings import drawn

from cissod_bench.errors import DataFault
from cissod_bench.loading.sources import Source
from cissod_bench.loading.unread import Unread, UnreadImages, most_replaced
from cissod_bench.records import run_folder as runs
from cissod_bench.running import assembly, preflight, run
from cissod_bench.running.plan import Plan
from cissod_bench.training.loop import Training

SHORT = ("iterations=4", "generations=2", "checkpoint_every=2", "log_every=1", "workers=1")


def _other_size(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((5, 7, 3), np.uint8))


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


HEADER_BREAKS: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "no image": lambda path: path.write_text("<html>not found</html>"),
    "another size": _other_size,
}
BREAKS = {**HEADER_BREAKS, "cut off": _cut_off}


def watch(training: Training) -> list[list[int]]:
    """Return a list that grows by the ids of the images of every iteration."""
    seen: list[list[int]] = []
    step = training.step

    def watched(batch: dict[str, Any], iteration: int) -> dict[str, Any]:
        seen.append([int(view["data_samples"].img_id) for name in ("sup", "weak") for view in batch.get(name, [])])
        return step(batch, iteration)

    training.step = watched  # type: ignore[method-assign]
    return seen


def ids(training: Training) -> list[list[int]]:
    """Return the ids that the iterations of the first generation draw."""
    sources = training.dataset.sources
    return [
        [int(sources[d.source].image_ids[d.index]) for d in training.sampler.batch(iteration)] for iteration in (0, 1)
    ]


@pytest.mark.parametrize("source", [0, 1], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("kind", BREAKS)
def test_an_image_that_breaks_in_the_middle_is_replaced_by_the_next_one_drawn(
    tmp_path: Path, kind: str, source: int
) -> None:
    training = tiny_training(tmp_path, "soft-teacher", *SHORT)
    told: list[str] = []
    training.unread.warn = told.append
    row = drawn(training, source, 1)
    broken = int(training.dataset.sources[source].image_ids[row])
    wanted = ids(training)
    draws = [draw for draw in training.sampler.batch(1) if (draw.source, draw.index) == (source, row)]
    number = 1 if source == 0 else 2  # images of the source per iteration
    (after,) = [training.sampler.following(draw) for draw in draws]
    assert after.position == draws[0].position + number
    BREAKS[kind](training.dataset.sources[source].file(row))
    seen = watch(training)
    training.run()
    new = int(training.dataset.sources[source].image_ids[after.index])
    assert len(seen) == 4
    assert seen[1] == [new if image == broken else image for image in wanted[1]]
    assert not any(broken in images for images in seen)
    skipped = training.unread.skipped
    assert skipped["images"] == 1
    assert skipped["draws"] >= 1
    assert len(told) == 1
    assert "1 image could not be read" in told[0]
    assert training.dataset.sources[source].name(row) in told[0]


def _broken_training(folder: Path, *changes: str) -> Training:
    training = tiny_training(folder, "soft-teacher", *SHORT, *changes)
    file = training.dataset.sources[1].file(drawn(training, 1, 1))
    if file.exists():
        file.unlink()
    return training


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_beside_a_broken_image_changes_no_bit_and_keeps_the_count(tmp_path: Path, workers: int) -> None:
    whole = _broken_training(tmp_path / "whole", f"workers={workers}")
    whole.run()
    half = _broken_training(tmp_path / "half", f"workers={workers}")
    half.run(until=3)
    half.save()
    again = _broken_training(tmp_path / "half", f"workers={workers}")
    assert again.resume()
    assert again.unread.skipped == half.unread.skipped
    assert again.unread.skipped["images"] == 1
    again.run()
    assert again.unread.skipped == whole.unread.skipped
    states = (one.detector.state_dict() for one in (whole, again))
    one, other = states
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_more_broken_images_than_may_be_end_the_training_with_their_number(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "soft-teacher", *SHORT)
    for row in range(20):
        training.dataset.sources[1].file(row).unlink()
    with pytest.raises(
        DataFault, match="2 images could not be read since the training began, more than the 1"
    ) as fault:
        training.run()
    assert "the image cannot be read (No such file" in fault.value.message
    assert "data check --deep" in str(fault.value.remedy)
    assert "--restart" not in str(fault.value.remedy)


def test_where_nothing_can_be_read_the_training_ends_instead_of_trying_for_ever(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "soft-teacher", *SHORT)
    training.unread.most = 10**6
    for row in range(len(training.dataset.sources[0])):
        training.dataset.sources[0].file(row).unlink()
    with pytest.raises(DataFault, match="cannot be read"):
        training.run()


@pytest.mark.parametrize(("images", "most"), [(3, 1), (999, 1), (2000, 2), (117_266, 117)])
def test_one_image_in_a_thousand_may_be_replaced(images: int, most: int) -> None:
    assert most_replaced(images) == most


def test_an_image_counts_once_and_its_draws_each_time() -> None:
    unread = UnreadImages(most=2)
    for image in (7, 7, 9, 7):
        unread.replaced(Unread(image, DataFault("broken"), replaced=True))
    unread.share()
    unread.left_out = (1, 7)
    assert unread.skipped == {"images": 3, "draws": 4}
    other = UnreadImages(most=2)
    other.load(unread.state())
    assert other.skipped == unread.skipped
    with pytest.raises(DataFault, match="3 images"):
        other.replaced(Unread(11, DataFault("broken"), replaced=True))
    with pytest.raises(DataFault, match="nothing in its place"):
        UnreadImages().replaced(Unread(1, DataFault("nothing in its place")))


def execute(plan: Plan) -> tuple[runs.RunRecord, list[str]]:
    told: list[str] = []
    return run.execute(plan, restart=False, say=lambda text: None, quiet=True, warn=told.append), told


def part(plan: Plan, name: str) -> Source:
    return assembly.scored_images(plan)[0] if name == "scored" else assembly.sources(plan)[name == "unlabelled"]


@pytest.mark.parametrize("kind", HEADER_BREAKS)
def test_broken_unlabelled_images_are_left_out_and_counted(tmp_path: Path, kind: str) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", "iterations=2", "generations=1")
    source = part(plan, "unlabelled")
    for row in (1, 4):
        HEADER_BREAKS[kind](source.file(row))
    record, told = execute(plan)
    assert record.status == "done"
    assert runs.read_record(plan.folder).skipped == {"iterations": 0, "images": 2, "draws": 0}
    (line,) = told
    assert line.startswith(f"2 of {len(source)} unlabelled images cannot be read and are left out")
    assert source.name(1) in line


@pytest.mark.parametrize("kind", HEADER_BREAKS)
@pytest.mark.parametrize("which", ["labelled", "scored"])
def test_broken_labelled_or_scored_images_are_refused_before_iteration_0(tmp_path: Path, which: str, kind: str) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", "iterations=2", "generations=1")
    source = part(plan, which)
    HEADER_BREAKS[kind](source.file(2))
    with pytest.raises(DataFault, match=f"^1 of {len(source)} {which} images cannot be read") as fault:
        execute(plan)
    assert source.name(2) in fault.value.message
    assert "data check --deep" in str(fault.value.remedy)
    assert fault.value.on_all_ranks
    assert not (plan.folder / runs.CHECKPOINT).exists()


def test_a_labelled_image_that_breaks_between_two_starts_does_not_end_the_second(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", *SHORT)
    training = assembly.prepare(plan, torch.device("cpu"))
    plan.folder.mkdir(parents=True, exist_ok=True)
    training.run(until=2)
    training.save()
    part(plan, "labelled").file(drawn(training, 0, 2)).unlink()
    record, _ = execute(plan)
    assert (record.status, record.skipped["images"]) == ("done", 1)


def test_most_of_d_u_missing_is_refused(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", "iterations=2", "generations=1")
    source = part(plan, "unlabelled")
    for row in range(len(source) // 2 + 1):
        source.file(row).unlink()
    with pytest.raises(DataFault, match="unlabelled images cannot be read") as fault:
        execute(plan)
    assert "--data-root" in str(fault.value.remedy)


def test_images_that_were_left_out_are_never_drawn_also_after_a_resume_with_the_images_mended(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "soft-teacher", "iterations=40", "generations=4")
    source = training.dataset.sources[1]
    file, aside = source.file(3), tmp_path / "aside.png"
    shutil.move(file, aside)
    preflight.check_drawn(training, len(training.dataset.sources[0]), lambda text: None)
    training.save()
    shutil.move(aside, file)
    again = tiny_training(tmp_path, "soft-teacher", "iterations=40", "generations=4")
    assert again.resume()
    for one in (training, again):
        one._choose_images()  # as a generation begins
        rows = {draw.index for n in range(40) for draw in one.sampler.batch(n) if draw.source == 1}
        assert rows == set(range(len(source))) - {3}
        assert one.unread.skipped == {"images": 1, "draws": 0}


@pytest.mark.parametrize(("method", "left_out"), [("supervised", 0), ("oracle", 2), ("crest", 2)])
def test_images_of_d_u_are_looked_at_by_the_methods_that_draw_them(tmp_path: Path, method: str, left_out: int) -> None:
    plan = tiny_plan(tmp_path, method, "iterations=2", "generations=2")
    source = part(tiny_plan(tmp_path), "unlabelled")
    for row in (0, 3):
        source.file(row).unlink()
    record, _ = execute(plan)
    assert (record.status, record.skipped["images"]) == ("done", left_out)


def test_a_pass_over_d_u_passes_over_an_image_that_broke_since(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "ours", *SHORT, variant="full-pass")
    source = training.dataset.sources[1]
    _cut_off(source.file(5))
    found = [one.image_index for one in training._detect_unlabelled()]
    assert found == [row for row in range(len(source)) if row != 5]
    training.unread.share()
    assert training.unread.skipped == {"images": 1, "draws": 0}


def test_a_scored_image_that_breaks_since_the_start_keeps_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tmp_path, "supervised", "iterations=2", "generations=1")
    file = part(plan, "scored").file(1)
    shutil.copy(file, tmp_path / "aside.png")
    _cut_off(file)  # its header is well
    with pytest.raises(DataFault, match="cut off at byte") as fault:
        execute(plan)
    assert "the training is done and kept" in str(fault.value.remedy)
    shutil.copy(tmp_path / "aside.png", file)
    monkeypatch.setattr(Training, "step", None)  # nothing is trained again
    assert execute(plan)[0].status == "done"


TWO = """
import sys, torch
from pathlib import Path
from watched_trainings import drawn
from tiny import tiny_training
from cissod_bench import distributed
from cissod_bench.running import preflight
distributed.start(torch.device("cpu"))
told = []
training = tiny_training(Path({folder!r}), "soft-teacher", *{short!r})
source = training.dataset.sources[1]
training.unread.warn = told.append
if distributed.rank() == 1:
    source.file(2).unlink()
distributed.barrier()
preflight.check_drawn(training, len(training.dataset.sources[0]), told.append)
training._choose_images()
row = drawn(training, 1, 1)
if distributed.rank() == 1:
    source.file(row).unlink()
distributed.barrier()
training.run()
state = {{"skipped": training.unread.skipped, "unread": training.unread.state(), "told": told}}
state["weights"] = training.detector.student.state_dict()
torch.save(state, Path({folder!r}) / f"rank{{distributed.rank()}}.pth")
distributed.stop()
"""


@pytest.mark.slow
def test_ranks_know_the_same_of_images_that_cannot_be_read(tmp_path: Path) -> None:
    tiny_plan(tmp_path)
    one, other = two_processes(TWO, tmp_path, short=SHORT)
    assert one["unread"] == other["unread"]
    assert one["skipped"] == other["skipped"]
    assert one["skipped"]["images"] == 2
    assert one["skipped"]["draws"] >= 1
    assert (len(one["told"]), len(other["told"])) == (2, 0)
    assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
