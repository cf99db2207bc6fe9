"""Training: extension points in their order, exact resume, two processes, no hidden boxes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import Bomb
from everything import EVERYTHING
from ranks import two_processes
from tiny import tiny_plan, tiny_task, tiny_training
from watched_trainings import losses_of, weights_of

from cissod_bench.catalogue import load_method
from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import Parts
from cissod_bench.errors import DataFault, Interrupted, UsageFault
from cissod_bench.running.assembly import prepare
from cissod_bench.signals import stop_signals
from cissod_bench.splitting.toy_images import write_shapes
from cissod_bench.training.loop import generation_start


def test_extension_points_are_called_in_their_order(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, EVERYTHING, "iterations=4", "generations=2", "checkpoint_every=2")
    training.run()
    iteration = [
        "loss sup", "activation", "score_transform", "observe_detections", "thresholds", "activation", "loss unsup_cls",
        "after_iteration",
    ]  # fmt: skip
    half = [*iteration, *iteration, "before_save"]
    assert training.detector.parts.calls == ["copies 0", *half, "copies 1", *half]


@pytest.mark.parametrize("workers", [0, 2])
def test_half_and_resume_equals_the_whole_across_a_generation_boundary(tmp_path: Path, workers: int) -> None:
    settings = ("iterations=6", "generations=2", "checkpoint_every=100", f"workers={workers}")
    whole = tiny_training(tmp_path / "whole", EVERYTHING, *settings)
    expected = losses_of(whole)
    for stop in (2, 3):
        first = tiny_training(tmp_path / f"half{stop}", EVERYTHING, *settings)
        losses_of(first, until=stop)
        first.save()
        second = tiny_training(tmp_path / f"half{stop}", EVERYTHING, *settings)
        assert second.resume()
        assert losses_of(second) == expected[stop:]
        for name, value in weights_of(whole).items():
            assert torch.equal(value, weights_of(second)[name]), name
        assert whole.detector.parts.pool == second.detector.parts.pool
        assert whole.position.copies.keys() == second.position.copies.keys()
        np.testing.assert_array_equal(whole.position.copies[1], second.position.copies[1])


def test_the_number_of_workers_changes_no_loss(tmp_path: Path) -> None:
    one, other = (
        losses_of(tiny_training(tmp_path / str(n), "soft-teacher", "iterations=2", "generations=1", f"workers={n}"))
        for n in (0, 2)
    )
    assert one == other


def test_hidden_boxes_change_nothing(tmp_path: Path) -> None:
    """B10: training must be the same when the boxes of D_u are garbage."""
    plan = tiny_plan(tmp_path, EVERYTHING, "iterations=3", "generations=3")
    plan.folder.mkdir(parents=True)
    expected = losses_of(prepare(plan, torch.device("cpu")))
    (plan.split / "hidden.json").write_bytes(b"garbage")
    with pytest.warns(UserWarning, match="not judged"):  # of the statistics, which cannot be counted
        assert losses_of(prepare(plan, torch.device("cpu"))) == expected


def test_boxes_in_the_unlabelled_file_are_never_used(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", "iterations=2", "generations=1")
    plan.folder.mkdir(parents=True)
    expected = losses_of(prepare(plan, torch.device("cpu")))
    content = json.loads((plan.split / "unlabelled.json").read_text())
    hidden = json.loads((plan.split / "hidden.json").read_text())
    content["annotations"] = hidden["annotations"]
    (plan.split / "unlabelled.json").write_text(json.dumps(content))
    assert losses_of(prepare(plan, torch.device("cpu"))) == expected


@pytest.mark.parametrize("method", ["soft-teacher", "supervised", "oracle"])
def test_every_method_trains_and_only_semi_supervised_ones_see_the_unlabelled_images(
    tmp_path: Path, method: str
) -> None:
    training = tiny_training(tmp_path, method, "iterations=2", "generations=1")
    lines = losses_of(training)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert ("unsup_loss_cls" in lines[0]) == (load_method(method).images == "semi")


def test_the_oracle_trains_on_all_images_with_all_boxes(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "oracle", "iterations=1", "generations=1")
    training = prepare(plan, torch.device("cpu"))
    counts = plan.manifest.counts
    assert training.sampler.sizes[0] == counts["labelled"] + counts["unlabelled"]
    assert len(training.dataset.sources[0].boxes) == plan.manifest.boxes.labelled + plan.manifest.boxes.hidden
    assert training.sampler.per_gpu == (3, 0)


def test_generations_cut_the_iterations_into_equal_parts() -> None:
    assert [generation_start(t, 180_000, 10) for t in (0, 1, 9, 10)] == [0, 18_000, 162_000, 180_000]
    assert [generation_start(t, 7, 3) for t in range(4)] == [0, 2, 4, 7]


def test_a_loss_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    class Broken(Parts):
        def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
            loss = super().classification_loss(logits, labels, label_weights, normaliser, context)
            return loss * float("nan") if context.iteration == 1 else loss

    method = Method(title="b", source="t", citation="-", name="broken", parts=lambda facts: Broken(len(facts.classes)))
    training = tiny_training(tmp_path, method, "iterations=3", "generations=1")
    training.run()
    assert training.position.skipped == 1
    assert all(torch.isfinite(p).all() for p in training.detector.student.parameters())


def test_a_stop_request_writes_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "supervised", "iterations=5", "generations=1")
    training.stop = lambda: training.position.iteration == 2
    with pytest.raises(Interrupted, match="Stopped after iteration 2 of 5"):
        training.run()
    again = tiny_training(tmp_path, "supervised", "iterations=5", "generations=1")
    assert again.resume()
    assert again.position.iteration == 2


def test_an_error_that_somebody_keeps_leaves_no_worker_behind(tmp_path: Path) -> None:
    """The frames that an error holds would hold a loader whose worker, deaf to SIGTERM, is waited for at exit."""
    before = multiprocessing.active_children()
    training = tiny_training(tmp_path, "supervised", "iterations=50", "generations=1", "workers=1")
    training.stop = lambda: training.position.iteration == 2
    with pytest.raises(Interrupted) as kept:
        training.run()
    assert kept.tb is not None
    assert multiprocessing.active_children() == before


def test_sigterm_is_noticed() -> None:
    with stop_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), 15)
        assert stop()


def test_a_checkpoint_of_other_settings_or_another_split_is_refused(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "supervised", "iterations=1", "generations=1")
    training.save()
    for change, what in (({"theta": 0.5}, "settings"), ({}, "split")):
        other = tiny_training(
            tmp_path, "supervised", "iterations=1", "generations=1", *(f"{k}={v}" for k, v in change.items())
        )
        if what == "split":
            other.identity = {**other.identity, "split": "0" * 64}
        else:  # whose folder has another name
            shutil.copy(training.file, other.file)
        with pytest.raises(UsageFault, match=f"with another {what}"):
            other.resume()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    training = tiny_training(tmp_path, "supervised", "iterations=1", "generations=1")
    training.file.write_bytes(content)
    with pytest.raises(DataFault, match=r"checkpoint\.pth is not a sound checkpoint"):
        training.resume()


def test_a_hostile_checkpoint_runs_no_code(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "supervised", "iterations=1", "generations=1")
    torch.save({"format": 1, "bomb": Bomb(tmp_path / "exploded")}, training.file)
    with pytest.raises(DataFault, match="not a sound checkpoint"):
        training.resume()
    assert not (tmp_path / "exploded").exists()


def _orientation(folder: Path) -> None:
    write_shapes(folder, {"train": 40, "val": 6}, {"circle": 1, "heart": 1, "square": 1, "arrow": 1}, seed=1, most=4)
    path = folder / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["images"] = [i for i in content["images"] if i["width"] > i["height"]]
    kept = {i["id"] for i in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    path.write_text(json.dumps(content))


def test_b7_images_of_one_orientation_do_not_hang(tmp_path: Path) -> None:
    task = tiny_task(name="wide", prepare=_orientation, draw_defaults={"labelled_percent": 20.0, "min_instances": 1})
    training = tiny_training(
        tmp_path, "soft-teacher", "iterations=2", "generations=1", "group_by_aspect=true", task=task
    )
    assert set(training.dataset.sources[0].landscape()) == {1}
    assert len(losses_of(training)) == 2


TWO = """
import sys, torch
from pathlib import Path
from everything import EVERYTHING
from watched_trainings import losses_of
from tiny import tiny_plan, tiny_training
from cissod_bench.errors import UsageFault
from cissod_bench import distributed
from cissod_bench.running.agreement import check_ranks
distributed.start(torch.device("cpu"))
try:
    check_ranks(tiny_plan(Path({folder!r}), EVERYTHING, f"theta=0.{{distributed.rank() + 1}}"))
except UsageFault as fault:
    refused = fault.message
training = tiny_training(Path({folder!r}), EVERYTHING, "iterations=3", "generations=3")
parts = training.detector.parts
loss = parts.classification_loss
def broken(logits, labels, label_weights, normaliser, context):
    factor = float("nan") if context.iteration == 1 and distributed.rank() == 1 else 1.0
    return factor * loss(logits, labels, label_weights, normaliser, context)
parts.classification_loss = broken
losses_of(training)
state = {{"weights": training.detector.state_dict(), "copies": training.position.copies[1].tolist()}}
state |= {{"skipped": training.position.skipped, "refused": refused}}
torch.save(state, Path({folder!r}) / f"rank{{distributed.rank()}}.pth")
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_state_and_copies(tmp_path: Path) -> None:
    """B17, B18: gloo on CPUs, wrapped without device ids. A loss of one rank that is not finite is a step of none."""
    tiny_plan(tmp_path, EVERYTHING)  # draws the split before two processes ask for it
    one, other = two_processes(TWO, tmp_path)
    assert one["copies"] == other["copies"]
    assert one["skipped"] == other["skipped"] == 1
    told = "The processes of this run disagree: setting theta is '0.1' on rank 0, '0.2' on rank 1."
    assert one["refused"] == other["refused"] == told
    assert all(torch.isfinite(value).all() for value in one["weights"].values())
    for name, value in one["weights"].items():
        assert torch.equal(value, other["weights"][name]), name
    assert one["weights"]["parts.total"].sum() > 0
