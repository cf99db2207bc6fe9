"""What a run costs before its start: work of an iteration, images, disk, and hours by the records of runs like it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import Called
from score_records import finished

from cissod_bench.catalogue import load_method, load_task
from cissod_bench.cli.cost_lines import _scored, flops_text, time_text
from cissod_bench.contract.presets import MINI, preset
from cissod_bench.contract.settings import FULL, Settings
from cissod_bench.records.run_folder import Run
from cissod_bench.running import cost as costs
from cissod_bench.running.cost import Cost, Subject, batches_and_rates, cost_of, likely, subject_of
from cissod_bench.running.iteration_work import IterationWork
from cissod_bench.running.made_images import usual_size

CPU = torch.device("cpu")
# As an iteration takes all RoIs that it may: from few proposals few are sampled.
SMALL = replace(
    MINI, base_channels=8, fpn_channels=16, fc_channels=64, roi_samples=16, rpn_samples=16, proposals_train=(100, 40),
    proposals_test=(100, 40), labelled_per_gpu=2, unlabelled_per_gpu=3, iterations=100,
)  # fmt: skip
HARDWARE = {"type": "cpu", "device": "AMD EPYC", "threads": 1, "world_size": 1}


def subject(method: str = "soft-teacher", settings: Settings = SMALL, task: str = "toy", **fields: Any) -> Subject:
    return replace(subject_of(load_task(task), load_method(method), "", "default", settings, None), **fields)


def work_of(method: str, device: torch.device | None = None, **fields: Any) -> IterationWork:
    work = cost_of(subject(method, **fields), 1, iterate_on=device).work
    assert work is not None
    return work


@pytest.mark.parametrize("method", ["soft-teacher", "supervised", "daso"])
def test_what_is_derived_from_shapes_is_what_a_real_iteration_computes(method: str) -> None:
    seen, thought = work_of(method, CPU), work_of(method)
    assert (seen.way, thought.way) == ("counted", "derived")
    assert thought.flops == pytest.approx(seen.flops, rel=0.05)
    assert thought.labelled_flops == pytest.approx(seen.labelled_flops, rel=0.05)
    assert thought.memory == pytest.approx(seen.memory, rel=0.5)  # without RoIAlign, losses and anchors


def test_the_papers_detector_takes_what_is_published_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster R-CNN with ResNet-50 and FPN on 1280 x 800: 207 billion multiply-adds, by mmdet's model zoo."""
    from cissod_bench.running.iteration_work import _dense, _head, _meta

    asked = subject(settings=preset("full", task_iterations=180_000))
    detector = costs._detector(asked, asked.method.parts(asked.facts()))
    teacher = _meta(detector.teacher)
    forward = _dense(teacher, 1, (800, 1280), False) + _head(teacher, 1000, False)
    assert forward.flops / 2 == pytest.approx(207e9, rel=0.03)
    assert forward.kept == 0
    monkeypatch.setattr(costs, "_detector", lambda *arguments: detector)
    cost = cost_of(asked, 8, iterate_on=CPU)
    assert cost.work is not None
    assert cost.work.way == "derived"  # too much to be done here
    assert cost.size == usual_size(FULL) == (800, 1066)
    assert cost.flops == 8 * 180_000 * cost.work.flops
    assert cost.read == (8 * 180_000, 4 * 8 * 180_000)
    assert 4.5e8 < cost.checkpoint < 5.5e8  # 41 million weights three times  # type: ignore[operator]


def test_iterations_before_unlabelled_images_are_drawn_count_less() -> None:
    work = IterationWork(flops=10, labelled_flops=4, memory=0, way="counted")
    cost = Cost(iterations=100, processes=2, images=(8, 4), begin=40, size=(96, 128), work=work)
    assert cost.flops == 2 * (40 * 4 + 60 * 10)
    assert cost.read == (2 * 100 * 8, 2 * 60 * 4)
    assert cost_of(subject(settings=MINI), 1, measure=False).begin == 360
    assert cost_of(subject("supervised", MINI), 1, measure=False).read == (900 * 8, 0)
    assert cost_of(subject("oracle", MINI), 1, measure=False).read == (900 * 12, 0)


def test_more_processes_are_a_larger_batch_and_a_higher_rate() -> None:
    assert batches_and_rates(subject(settings=FULL), (1, 8)) == [(1, 5, pytest.approx(0.00125)), (8, 40, 0.01)]


def test_a_detector_that_cannot_be_built_is_told_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from cissod_bench.errors import EnvironmentFault

    def fails(*arguments: object) -> None:
        raise EnvironmentFault("timm is not installed.", remedy="install it")

    monkeypatch.setattr(costs, "_detector", fails)
    cost = cost_of(subject(), 1)
    assert (cost.work, cost.flops, cost.why_not) == (None, None, "timm is not installed.")


def run(
    seconds: float, method: str = "soft-teacher", task: str = "toy", settings: Settings = SMALL, **hardware: Any
) -> Run:
    record = finished(
        method,
        task=task,
        settings=json.loads(json.dumps(asdict(settings))),
        timings={"train": seconds, "predict": 7.0, "evaluate": 1.0},
        hardware={**HARDWARE, **hardware},
    )
    return Run(Path(f"runs/{method}/{seconds:g}"), record)


def seconds_by(*runs: Run, **fields: Any) -> float | None:
    found = likely(subject(**fields), runs, HARDWARE, 1)
    return None if found is None else found.seconds


def test_hours_are_those_of_the_fastest_run_of_the_method_on_like_hardware() -> None:
    assert seconds_by(run(50), run(40), run(30, "ours")) == 48.0
    assert seconds_by(run(50), run(40, threads=2), run(10, device="Xeon"), run(20, world_size=2)) == 58.0
    assert seconds_by(run(30, "ours")) == 38.0
    assert seconds_by(run(40), settings=replace(SMALL, iterations=1000)) == 408.0


def test_a_run_on_another_task_tells_the_training_alone() -> None:
    found = likely(subject(), [run(40, task="toy-longtail")], HARDWARE, 1)
    assert found is not None
    assert (found.seconds, found.scoring) == (40.0, False)
    assert "about 40 s of training, by runs/soft-teacher/40 (the fastest of 1 like it)" in time_text(found)
    assert "of ours)" in time_text(likely(subject(), [run(40, "ours")], HARDWARE, 1))


def test_nothing_is_told_by_runs_of_other_sizes_or_that_are_not_finished() -> None:
    unfinished = run(40)
    unfinished.record.status = "running"
    assert seconds_by(unfinished, run(40, settings=replace(SMALL, long_side=96))) is None
    assert "not known" in time_text(None)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 FLOP"), (8.123e12, "8.12 TFLOP"), (999.6e9, "1 TFLOP"), (1.5e21, "1.5e+03 EFLOP")]
)
def test_operations_are_written_with_three_digits(number: float, text: str) -> None:
    assert flops_text(number) == text


def test_a_dry_run_tells_what_the_run_costs(
    split: Callable[..., Called], call: Callable[..., Called], tiny_coco: Path, tmp_path: Path
) -> None:
    assert split().code == 0
    words = ["run", "--task", tiny_coco / "tiny.toml", "--method", "soft-teacher", "--preset", "smoke", "--dry-run"]
    for name in ("base_channels=8", "fpn_channels=16", "fc_channels=32", "labelled_per_gpu=2", "unlabelled_per_gpu=1"):
        words += ["--set", name]
    words += ["--data-root", tiny_coco, "--work-dir", tmp_path / "work"]
    shown = call(*words)
    assert shown.code == 0, shown.err
    assert "per iteration and process" in shown.out
    assert "40 labelled + 20 unlabelled images in training; 10 in scoring" in shown.out
    assert "per checkpoint, up to 60.0 kB of predictions" in shown.out
    assert "1: 3 images, 0.00025; 2: 6 images, 0.0005" in shown.out
    assert "time        not known" in shown.out
    ((value,), bare) = (json.loads(call(*words, *more, "--json").out) for more in ((), ("--no-measure",)))
    assert value["cost"]["work"]["way"] == "counted"
    assert value["cost"]["flops"] == 20 * value["cost"]["work"]["flops"]
    assert bare[0]["cost"]["work"] is None
    assert not (tmp_path / "work" / "runs").exists()


def test_a_dry_sweep_tells_what_a_run_of_each_row_costs(call: Callable[..., Called], tmp_path: Path) -> None:
    words = ("sweep", "--task", "toy", "--method", "supervised", "--seed", "0-2", "--dry-run", "--work-dir", tmp_path)
    value = json.loads(call(*words, "--json").out)
    assert [(row["row"], row["cells"], row["work"]["way"]) for row in value["costs"]] == [("supervised", 3, "derived")]
    shown = call(*words)
    assert "per iteration" in shown.out
    assert "3 cells: 3 waiting" in shown.out
    assert json.loads(call(*words, "--no-measure", "--json").out)["costs"] == []


@pytest.mark.parametrize("written", ["{}", "/home/old/val/{}", "C:\\\\old\\\\val\\\\{}"])
def test_scored_images_are_those_that_the_release_holds_whatever_machine_their_names_are_from(
    written: str, tmp_path: Path
) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    records = [{"id": n, "width": 9, "height": 9, "file_name": "FILE"} for n in range(5)]
    text = json.dumps({"images": records, "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
    for name in names:
        text = text.replace("FILE", written.format(name), 1)
    (tmp_path / "val.json").write_text(text)
    task = SimpleNamespace(swapped=(), absent=("3.jpg", "of-train.jpg"), images={"val": "val"})
    plan = SimpleNamespace(val=tmp_path / "val.json", naming="file_name", images={"val": tmp_path / "val"}, task=task)
    assert _scored(plan) == 4  # type: ignore[arg-type]
