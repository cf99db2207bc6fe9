"""Precision and recall of pseudo labels: counters across resume and ranks, and no way back into training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judged import CLASSES, GROUPS, detections_near, hidden_boxes, reference
from judged_trainings import SETTINGS, plan_of, watched
from ranks import two_processes
from tiny import tiny_plan
from watched_trainings import losses_of, weights_of

from cissod_bench.contract.parts import Detections
from cissod_bench.errors import Interrupted
from cissod_bench.records import run_folder as runs
from cissod_bench.records.pseudo_label_lines import Written
from cissod_bench.running import run
from cissod_bench.running.run import execute
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics


def test_lines_give_precision_and_recall_a_group_and_a_mean_of_what_methods_add() -> None:
    rng = np.random.default_rng(3)
    hidden = hidden_boxes(rng)
    found = detections_near(rng, hidden, 40)
    theta = torch.tensor([0.5, 0.6, 0.9])
    statistics = PseudoLabelStatistics(GROUPS, CLASSES, lambda: hidden)
    for at in range(0, 40, 4):
        statistics.observe(found[at : at + 4], theta)
    numbers = {"w": torch.tensor([1.0, 3.0, 2.0]), "pool": 7, "queue": 5}
    lines = [line.written() for line in statistics.end_generation(2, 10, numbers)]
    boxes, detected, correct = reference(found, theta, hidden)
    assert [line["group"] for line in lines] == ["all", "maj", "min"]
    maj = lines[1]
    assert {name: maj[name] for name in ("images", "boxes", "detected", "correct")} == {
        "images": 40, "boxes": boxes[[0, 2]].sum(), "detected": detected[[0, 2]].sum(),
        "correct": correct[[0, 2]].sum(),
    }  # fmt: skip
    assert maj["precision"] == correct[[0, 2]].sum() / detected[[0, 2]].sum()
    assert maj["recall"] == correct[[0, 2]].sum() / boxes[[0, 2]].sum()
    assert [maj[name] for name in ("theta", "theta_min", "theta_max")] == pytest.approx([0.7, 0.5, 0.9])
    assert [maj[name] for name in ("w", "w_min", "w_max", "pool")] == [1.5, 1.0, 2.0, 7]
    assert [maj[name] for name in ("generation", "iteration", "queue")] == [2, 10, 5]
    assert lines[2]["w"] == 3.0
    for name in ("boxes", "detected", "correct"):
        assert lines[0][name] == lines[1][name] + lines[2][name]  # type: ignore[operator]
    assert statistics.end_generation(3, 20, {}) == []  # nothing was seen since


def test_without_a_pseudo_label_or_a_box_there_is_no_precision_or_recall() -> None:
    hidden = hidden_boxes(np.random.default_rng(0))
    statistics = PseudoLabelStatistics(GROUPS, CLASSES, lambda: hidden)
    none = Detections(int(hidden.images[-1]), 0, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    statistics.observe([none], torch.full((3,), 0.9))
    for line in (line.written() for line in statistics.end_generation(1, 1, {})):
        assert (line["images"], line["boxes"], line["detected"]) == (1, 0, 0)
        assert line["precision"] is line["recall"] is None


def test_detections_wait_in_blocks_and_none_is_lost() -> None:
    rng = np.random.default_rng(1)
    hidden = hidden_boxes(rng)
    found = detections_near(rng, hidden, 600)
    statistics = PseudoLabelStatistics(GROUPS, CLASSES, lambda: hidden)
    for one in found:
        statistics.observe([one], torch.full((3,), 0.7))
    assert len(statistics._looks) == 2
    np.testing.assert_array_equal(statistics.state()["counts"], reference(found, torch.full((3,), 0.7), hidden))
    assert statistics.images == 600


# In training.


def test_every_generation_is_reported_with_what_was_used_in_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "ours", "unsup_weight=4")  # keeps the random teacher sure of something
    training, lines = watched(plan)
    used: list[int] = []
    observe = training.detector.observer
    assert observe is not None

    def counted(detections: Any, theta: torch.Tensor) -> None:
        used.append(sum(int((one.scores > theta[one.labels]).sum()) for one in detections))
        observe(detections, theta)

    training.detector.observer = counted
    losses = losses_of(training)
    assert [(line["generation"], line["iteration"], line["group"]) for line in lines] == [
        (generation, 2 * generation, group) for generation in (1, 2, 3, 4) for group in ("all", "maj", "min")
    ]
    for number, line in enumerate(lines[::3]):
        assert line["detected"] == sum(used[2 * number : 2 * number + 2]) > 0
        assert line["images"] == 4
        assert line["boxes"] > 0  # type: ignore[operator]
        assert line["copies_labelled_max"] > 1  # type: ignore[operator]
        assert line["w_min"] <= line["w"] <= line["w_max"]  # type: ignore[operator]
        assert 0 < line["pool_coverage"] == line["pool"] / len(training.dataset.sources[1])  # type: ignore[operator]
    assert lines[0]["copies_unlabelled"] is None
    assert lines[-1]["copies_unlabelled_max"] == losses[-1]["copies_max"]
    assert lines[-1]["copies_unlabelled"] == pytest.approx(losses[-1]["copies_mean"])
    assert lines[-1]["w_max"] != 1


def test_soft_teacher_is_reported_without_weights_pool_and_copies(tmp_path: Path) -> None:
    training, lines = watched(plan_of(tmp_path, "soft-teacher"))
    training.run()
    assert len(lines) == 12
    for line in lines:
        assert "w" not in line
        assert line["theta"] == line["theta_max"] == pytest.approx(0.15)
        absent = ("pool", "pool_coverage", "copies_labelled", "copies_labelled_max", "copies_unlabelled")
        assert {line[name] for name in absent} == {None}


def test_generations_without_unlabelled_images_have_no_line(tmp_path: Path) -> None:
    training, lines = watched(plan_of(tmp_path, "soft-teacher", "unsup_start=0.3"))
    training.run()
    assert {(line["generation"], line["images"]) for line in lines} == {(2, 2), (3, 4), (4, 4)}
    training, lines = watched(plan_of(tmp_path, "supervised"))
    training.run()
    assert lines == []


@pytest.mark.parametrize("stop", [3, 4])  # in a generation, at its end
def test_resumed_runs_report_the_same(tmp_path: Path, stop: int) -> None:
    whole, expected = watched(plan_of(tmp_path / "whole"))
    whole.run()
    plan = plan_of(tmp_path / "half")
    first, begun = watched(plan)
    first.run(until=stop)
    first.save()
    second, ended = watched(plan)
    assert second.resume()
    second.run()
    assert begun + ended == expected


def test_saving_often_reports_the_same(tmp_path: Path) -> None:
    often, lines = watched(plan_of(tmp_path / "often", "ours", "checkpoint_every=1"))
    never, expected = watched(plan_of(tmp_path / "never"))
    often.run()
    never.run()
    assert lines == expected


def test_a_checkpoint_without_statistics_is_continued(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "soft-teacher")
    first, _ = watched(plan)
    first.run(until=3)
    first.save()
    content = torch.load(first.file, weights_only=True)
    del content["statistics"]
    torch.save(content, first.file)
    second, lines = watched(plan)
    assert second.resume()
    second.run()
    assert [line["images"] for line in lines if line["group"] == "all"] == [2, 4, 4]


def _no_file(path: Path) -> None:
    path.unlink()


def _no_byte(path: Path) -> None:
    path.write_bytes(b"")


def _no_box(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))


def _garbage(path: Path) -> None:
    path.write_bytes(b"garbage")


def _other_boxes(path: Path) -> None:
    content = json.loads(path.read_text())
    for box in content["annotations"]:
        box["bbox"] = [0, 0, 3, 3]
    content["annotations"] = content["annotations"][:9]
    path.write_text(json.dumps(content))


@pytest.mark.filterwarnings("ignore:Pseudo labels are not judged")
def test_training_does_not_depend_on_the_hidden_boxes_only_the_statistics_do(tmp_path: Path) -> None:
    """B10: the same losses, weights and copies, bit by bit, whatever the file holds."""
    plan = plan_of(tmp_path)
    honest, expected = watched(plan)
    losses = losses_of(honest)
    judged = ("boxes", "correct", "precision", "recall")

    def unjudged(lines: list[Written]) -> list[Written]:
        return [{name: value for name, value in line.items() if name not in judged} for line in lines]

    path = plan.split / "hidden.json"
    content = path.read_bytes()
    for change in (_no_file, _no_byte, _no_box, _garbage, _other_boxes):
        path.write_bytes(content)
        change(path)
        other, lines = watched(plan)
        assert losses_of(other) == losses
        for name, value in weights_of(honest).items():
            assert torch.equal(value, weights_of(other)[name]), name
        np.testing.assert_array_equal(honest.position.copies[1], other.position.copies[1])
        assert unjudged(lines) == unjudged(expected)
        if change is _other_boxes:
            assert [line["recall"] for line in lines] != [line["recall"] for line in expected]
        else:
            assert {line[name] for line in lines for name in judged} == {None}


@pytest.mark.slow
def test_an_interrupted_run_leaves_every_line_once_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_plan(tmp_path / "whole", "ours", *SETTINGS)
    execute(whole, restart=False, say=lambda text: None, quiet=True)
    expected = (whole.folder / runs.PSEUDO_LABELS).read_bytes()
    assert len(expected.splitlines()) == 12
    assert json.loads(expected.splitlines()[-1])["group"] == "min"
    kept = (whole.folder / runs.PSEUDO_BOXES).read_bytes()
    assert [json.loads(text)["generation"] for text in kept.splitlines()][:1] == [1]
    plan = tiny_plan(tmp_path / "half", "ours", *SETTINGS)
    asked: list[int] = []

    @contextmanager
    def after_five_iterations() -> Iterator[Callable[[], bool]]:
        yield lambda: asked.append(1) is None and len(asked) == 5

    monkeypatch.setattr(run, "stop_signals", after_five_iterations)
    with pytest.raises(Interrupted):
        execute(plan, restart=False, say=lambda text: None, quiet=True)
    assert expected.startswith((plan.folder / runs.PSEUDO_LABELS).read_bytes())
    with (plan.folder / runs.PSEUDO_LABELS).open("ab") as stream:  # written after the last checkpoint, then lost power
        stream.write(b'{"generation": 3, "iteration": 6, "group": "all"}\n{"generation": 3, "itera')
    execute(plan, restart=False, say=lambda text: None, quiet=True)
    assert (plan.folder / runs.PSEUDO_LABELS).read_bytes() == expected
    assert (plan.folder / runs.PSEUDO_BOXES).read_bytes() == kept
    execute(plan, restart=True, say=lambda text: None, quiet=True)
    assert (plan.folder / runs.PSEUDO_LABELS).read_bytes() == expected


HALF = """
import sys, json, torch
import numpy as np
from pathlib import Path
from judged import CLASSES, GROUPS, detections_near, hidden_boxes
from cissod_bench import distributed
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics
distributed.start(torch.device("cpu"))
rng = np.random.default_rng(5)
hidden = hidden_boxes(rng)
found = detections_near(rng, hidden, 40)
reads = []
def read():
    reads.append(1)
    return hidden
def make(): return PseudoLabelStatistics(GROUPS, CLASSES, read)
statistics, rank = make(), distributed.rank()
for at in range(0, 20, 2):
    statistics.observe(found[at + rank : at + rank + 1], torch.full((3,), 0.6))
state = statistics.state()
statistics = make()
statistics.load(state if rank == 0 else distributed.broadcast(state))
distributed.broadcast(state) if rank == 0 else None
for at in range(20, 40, 2):
    statistics.observe(found[at + rank : at + rank + 1], torch.full((3,), 0.6))
lines = [line.written() for line in statistics.end_generation(1, 9, {{}})]
kept = [line.written().decode() for line in statistics.ended]
torch.save({{"lines": json.dumps(lines), "reads": len(reads), "kept": kept}}, Path({folder!r}) / f"rank{{rank}}.pth")
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_with_half_the_images_each_report_what_one_does(tmp_path: Path) -> None:
    one, other = two_processes(HALF, tmp_path)
    rng = np.random.default_rng(5)
    hidden = hidden_boxes(rng)
    found = detections_near(rng, hidden, 40)
    whole = PseudoLabelStatistics(GROUPS, CLASSES, lambda: hidden)
    whole.observe(found, torch.full((3,), 0.6))
    assert json.loads(one["lines"]) == [line.written() for line in whole.end_generation(1, 9, {})]
    assert one["kept"] == [line.written().decode() for line in whole.ended]
    assert len(one["kept"]) == 12  # an image has one line, however often it was seen
    assert json.loads(other["lines"]) == []
    assert other["reads"] == 0  # the hidden boxes lie in one process only


TRAIN = """
import sys, json, torch
from pathlib import Path
from judged_trainings import plan_of, watched
from cissod_bench import distributed
distributed.start(torch.device("cpu"))
folder = Path({folder!r})
whole, expected = watched(plan_of(folder / "whole"))
whole.run()
first, begun = watched(plan_of(folder / "half"))
first.run(until=3)
first.save()
second, ended = watched(plan_of(folder / "half"))
assert second.resume()
second.run()
assert begun + ended == expected
torch.save({{"lines": json.dumps(expected)}}, folder / f"rank{{distributed.rank()}}.pth")
distributed.stop()
"""


@pytest.mark.slow
def test_training_on_two_processes_reports_all_images_and_resumes_exactly(tmp_path: Path) -> None:
    for name in ("whole", "half"):
        plan_of(tmp_path / name)  # draws the split before two processes ask for it
    one, other = two_processes(TRAIN, tmp_path)
    lines = json.loads(one["lines"])
    assert [line["images"] for line in lines if line["group"] == "all"] == [8, 8, 8, 8]
    assert json.loads(other["lines"]) == []
