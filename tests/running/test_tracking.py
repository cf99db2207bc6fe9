"""Trackers: they show what the log holds, each line once, change no bit of the training, and never end it."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import same
from everything import EVERYTHING
from short_runs import execute, numbers_of
from tiny import tiny_plan

from cissod_bench import distributed
from cissod_bench.errors import EnvironmentFault, Interrupted
from cissod_bench.records import log
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import FREE_SETTINGS
from cissod_bench.running import evaluations, trackers
from cissod_bench.running.pictures import Box, boxes_of_text, with_boxes
from cissod_bench.running.plan import Plan
from cissod_bench.running.tracking import Tracker, scalars_of
from cissod_bench.signals import stopped
from cissod_bench.training import checkpoint

SHORT = ("iterations=2", "generations=1", "checkpoint_every=100", "log_every=1", "eval_every=1", "eval_images=2")


def events(plan: Plan) -> Any:
    """What TensorBoard reads of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(plan.folder / runs.TRACKER), size_guidance={"scalars": 0, "images": 0})
    return read.Reload()


def steps_in(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Name of a scalar -> its (iteration, value) as the log's lines have them."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in lines:
        for name, value in scalars_of(line).items():
            curves[name].append((line["iteration"], value))
    return curves


def stop_the_second_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = evaluations.predicted_texts, list[int]()

    def texts(*values: Any, **named: Any) -> Iterator[list[str]]:
        calls.append(1)
        if len(calls) == 2:
            raise stopped("Stopped.")
        yield from whole(*values, **named)

    monkeypatch.setattr(evaluations, "predicted_texts", texts)


def test_a_tracked_run_that_was_continued_is_the_untracked_one_and_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    plain = tiny_plan(tmp_path / "plain", EVERYTHING, *SHORT)
    execute(plain)
    assert not (plain.folder / runs.TRACKER).exists()
    plan = tiny_plan(tmp_path / "tracked", EVERYTHING, *SHORT, "tracker=tensorboard")
    with monkeypatch.context() as patch:
        stop_the_second_evaluation(patch)
        with pytest.raises(Interrupted):
            execute(plan)
    execute(plan)

    assert numbers_of(plan.folder / runs.LOG) == numbers_of(plain.folder / runs.LOG)
    assert same(*(checkpoint.read(one.folder / runs.CHECKPOINT) for one in (plan, plain)))
    for name in (runs.PREDICTIONS, runs.STUDENT_PREDICTIONS, runs.PSEUDO_LABELS):
        assert (plan.folder / name).read_bytes() == (plain.folder / name).read_bytes()

    read = events(plan)
    lines = [json.loads(text) for name in (runs.LOG, runs.PSEUDO_LABELS)
             for text in (plan.folder / name).read_bytes().splitlines()]  # fmt: skip
    curves = steps_in(lines)
    wanted = {"train/loss", "train/theta_min", "evaluation/ap_teacher_min", "pseudo_labels/min/precision"}
    assert set(read.Tags()["scalars"]) == curves.keys() > wanted - {"train/theta_min"}
    for name, points in curves.items():
        shown = [(event.step, event.value) for event in read.Scalars(name)]
        assert shown == [(step, pytest.approx(value, rel=1e-6)) for step, value in points], name
    pictures = {name: [event.step for event in read.Images(name)] for name in read.Tags()["images"]}
    assert pictures == {
        **{f"pictures/pseudo_labels/{place}": [2] for place in range(2)},
        "pictures/scored/0": [1, 2],
        "pictures/scored/1": [1, 2],
        **{f"pictures/scored/{place}": [2] for place in (2, 3)},
    }


def noted(plan: Plan, *iterations: int) -> None:
    """Add lines to a run's log."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    for iteration in iterations:
        log.append(plan.folder / runs.LOG, {"iteration": iteration, "loss": iteration / 2, "w_max": None})


def shown_in_two_starts(plan: Plan, warned: list[str]) -> None:
    """A run that is killed after iteration 3, continues from a checkpoint after 2, and ends."""
    noted(plan, 1, 2, 3)
    first = Tracker(plan, warned.append)
    first.begin()
    image = np.full((6, 8, 3), 100, np.uint8)
    assert first._board is not None
    first._board.picture("pictures/scored/0", image, 2)
    first.close("interrupted")
    log.rewind(plan.folder / runs.LOG, 2)
    second = Tracker(plan, warned.append)
    second.begin()
    noted(plan, 3)
    second.catch_up()
    noted(plan, 4)
    second.close("done")


def test_an_event_file_holds_each_line_once_however_often_a_run_was_continued(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    plan, warned = tiny_plan(tmp_path, "soft-teacher", "tracker=tensorboard"), list[str]()
    state = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    shown_in_two_starts(plan, warned)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # type: ignore[union-attr]
    read = events(plan)
    assert warned == []
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(1, 0.5), (2, 1), (3, 1.5), (4, 2)]
    assert read.Tags()["images"] == ["pictures/scored/0"]
    (plan.folder / runs.TRACKER_NOTE).unlink()  # as --restart does
    (plan.folder / runs.LOG).unlink()
    noted(plan, 1)
    restarted = Tracker(plan, warned.append)
    restarted.begin()
    restarted.close("done")
    assert [event.step for event in events(plan).Scalars("train/loss")] == [1]


def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plan, warned = tiny_plan(tmp_path, "soft-teacher", "tracker=mlflow"), list[str]()
    shown_in_two_starts(plan, warned)
    assert warned == []
    client = MlflowClient((plan.folder / runs.TRACKER).absolute().as_uri())
    experiment = client.get_experiment_by_name("cissod-bench tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["method"] == "soft-teacher"
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 0.5), (2, 1), (3, 1.5), (4, 2)]
    assert list((plan.folder / runs.TRACKER).rglob("00000002.png"))


def test_wandb_continues_its_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    plan, warned = tiny_plan(tmp_path, "soft-teacher", "tracker=wandb"), list[str]()
    shown_in_two_starts(plan, warned)
    assert warned == []
    files = sorted((plan.folder / runs.TRACKER).rglob("*.wandb"))
    assert [file.name for file in files] == 2 * [
        f"run-{json.loads((plan.folder / runs.TRACKER_NOTE).read_bytes())['run']}.wandb"
    ]
    points = [point for file in files for point in wandb_history(file)]
    assert points == [(1, 0.5), (2, 1), (3, 1.5), (4, 2)]
    assert list((plan.folder / runs.TRACKER).rglob("*.png"))


def wandb_history(file: Path) -> list[tuple[int, float]]:
    """(iteration, train/loss) of a W&B file, whose records lie in blocks as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts, points = file.read_bytes(), 7, list[bytes](), []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts, at = [*parts, data[at + 7 : at + 7 + length]], at + 7 + length
        if kind in (1, 4):  # whole, or its last part
            record, parts = wandb_internal_pb2.Record.FromString(b"".join(parts)), []
            line = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if "train/loss" in line:
                points.append((line["iteration"], line["train/loss"]))
    return points


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(EnvironmentFault, match=f"needs the package {name}, which is not installed") as fault:
        tiny_plan(tmp_path, "soft-teacher", f"tracker={name}")
    assert f"pip install {name}" in str(fault.value)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_rank_has_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    plan, warned = tiny_plan(tmp_path, "soft-teacher", "tracker=tensorboard"), list[str]()
    noted(plan, 1)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    tracker = Tracker(plan, warned.append)
    tracker.begin()
    tracker.catch_up()
    tracker.close("done")
    assert sorted(path.name for path in plan.folder.iterdir()) == [runs.LOG]


class Broken(trackers.TensorBoard):
    """A server that is gone."""

    def __init__(self, *values: Any) -> None:
        self.run_id = "7"

    def scalars(self, *values: Any) -> None:
        raise ConnectionError("no route to host")


def test_a_tracker_that_fails_is_left_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cissod_bench.running.tracking.KINDS", {"tensorboard": Broken})
    monkeypatch.setattr(trackers, "find_spec", lambda package: package)
    plan, warned = tiny_plan(tmp_path, "soft-teacher", "tracker=tensorboard"), list[str]()
    noted(plan, 1)
    tracker = Tracker(plan, warned.append)
    tracker.begin()
    noted(plan, 2)
    tracker.catch_up()
    tracker.close("done")
    assert len(warned) == 1
    assert "ConnectionError: no route to host" in warned[0]


def test_a_tracker_moves_no_number_so_a_run_may_continue_with_another() -> None:
    assert "tracker" in FREE_SETTINGS


def test_a_picture_has_boxes_in_the_colours_of_their_groups() -> None:
    image = np.zeros((60, 1600, 3), np.uint8)
    text = '{"image_id":1,"category_id":7,"bbox":[100,10,200,30],"score":0.9},' \
           '{"image_id":1,"category_id":7,"bbox":[0,0,9,9],"score":0.1}'  # fmt: skip
    boxes = boxes_of_text(text, {7: "heart"})
    assert boxes == [Box((100, 10, 300, 40), "heart", 0.9)]
    picture = with_boxes(image, boxes, {"maj": ["circle"], "min": ["heart"]})
    assert picture.shape == (30, 800, 3)
    assert picture[12, 50].tolist() == [255, 150, 0], "orange, for the minority"
    assert not image.any()
