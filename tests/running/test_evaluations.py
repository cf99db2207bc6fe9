"""Evaluation while training: it changes nothing of the training, is made again after a stop, and keeps the best."""

from __future__ import annotations

import dataclasses
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import same
from commands import Called
from everything import EVERYTHING
from ranks import two_processes
from short_runs import execute, numbers_of
from tiny import tiny_plan, tiny_task

from cissod_bench.catalogue import load_method
from cissod_bench.errors import DataFault, Interrupted, UsageFault
from cissod_bench.records import run_folder as runs
from cissod_bench.records.evaluation_lines import read_evaluations
from cissod_bench.running import evaluations, run
from cissod_bench.running.plan import Plan
from cissod_bench.running.rescoring import checkpoint_of, plan_of, rescore, word_of
from cissod_bench.signals import stopped
from cissod_bench.training import checkpoint
from cissod_bench.training.loop import Training

SHORT = ("iterations=4", "generations=2", "checkpoint_every=100", "log_every=1", "workers=0")
EVALUATED = (*SHORT, "eval_every=1", "eval_images=4", "keep_checkpoints=1")


def trained(plan: Plan) -> list[dict[str, Any]]:
    """The log's lines of the training alone."""
    return [line for line in numbers_of(plan.folder / runs.LOG) if "eval_images" not in line]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run that was evaluated after every iteration."""
    plan = tiny_plan(tmp_path_factory.mktemp("evaluated"), EVERYTHING, *EVALUATED)
    execute(plan)
    return plan


@pytest.mark.usefixtures("evaluated")  # what a first run imports may keep it until garbage is looked for
def test_no_model_is_kept_when_its_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, prepare = list[weakref.ref[Any]](), run.prepare

    def watched(*values: Any, **named: Any) -> Training:
        training = prepare(*values, **named)
        left.extend(weakref.ref(model) for model in (training.detector.student, training.detector.teacher))
        return training

    monkeypatch.setattr(run, "prepare", watched)
    gc.disable()
    try:
        execute(tiny_plan(tmp_path, "soft-teacher", *SHORT, "iterations=2", "eval_every=1", "eval_images=1"))
        assert [model() is None for model in left] == [True, True]
    finally:
        gc.enable()


def test_an_evaluation_changes_no_bit_of_the_training(evaluated: Plan, tmp_path: Path) -> None:
    plain = tiny_plan(tmp_path, EVERYTHING, *SHORT)
    execute(plain)
    assert trained(evaluated) == trained(plain) == numbers_of(plain.folder / runs.LOG)
    assert same(*(checkpoint.read(plan.folder / runs.CHECKPOINT) for plan in (evaluated, plain)))
    for name in (runs.PREDICTIONS, runs.STUDENT_PREDICTIONS, runs.PSEUDO_LABELS):
        assert (evaluated.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    assert runs.read_record(evaluated.folder).ap == runs.read_record(plain.folder).ap


def test_the_log_holds_ap_by_group_and_the_record_the_best_beside_the_last(evaluated: Plan) -> None:
    lines, record = read_evaluations(evaluated.folder), runs.read_record(evaluated.folder)
    places = [(line.iteration, line.generation, line.images) for line in lines]
    assert places == [(1, 0, 4), (2, 0, 4), (3, 1, 4), (4, 1, 4)]
    assert all(list(line.ap[model]) == ["all", "maj", "min"] for line in lines for model in ("teacher", "student"))
    best = max(lines, key=lambda line: line.value("all") or 0.0)
    assert {name: record.best[name] for name in ("column", "iteration", "images", "of", "evaluations")} == {
        **{"column": "all", "iteration": best.iteration, "images": 4, "of": 6, "evaluations": 4},
    }
    assert record.best["ap"]["teacher"] == best.ap["teacher"]
    assert record.timings["evaluations"] > 0
    assert checkpoint.iteration_of(evaluated.folder / runs.BEST_CHECKPOINT) == best.iteration
    kept = [path.name for path in evaluated.folder.glob("checkpoint_0*")]
    assert kept == ["checkpoint_00000003.pth"]
    assert list(evaluated.folder.glob(".*.tmp")) == []


def test_any_checkpoint_is_scored_again(evaluated: Plan) -> None:
    record = runs.read_record(evaluated.folder)
    root = evaluated.split.parents[2]
    plan = plan_of(record, evaluated.folder, tiny_task(), EVERYTHING, data_root=root, work_dir=root)
    assert plan.settings == evaluated.settings
    before = {path: path.stat().st_mtime_ns for path in evaluated.folder.iterdir()}
    iteration, scores = rescore(plan, record, checkpoint_of(plan.folder, "last"), say=print, quiet=True)
    assert iteration == 4
    assert {model: own.columns for model, own in scores.items()} == record.ap
    iteration, _ = rescore(plan, record, checkpoint_of(plan.folder, "checkpoint_00000003.pth"), say=print, quiet=True)
    assert iteration == 3
    assert {path: path.stat().st_mtime_ns for path in evaluated.folder.iterdir()} == before


def test_what_is_not_the_runs_is_refused(evaluated: Plan, tmp_path: Path) -> None:
    record, root = runs.read_record(evaluated.folder), evaluated.split.parents[2]
    with pytest.raises(DataFault, match=r"no such checkpoint.*checkpoint_00000003\.pth, checkpoint_best\.pth"):
        checkpoint_of(evaluated.folder, "checkpoint_00000009.pth")
    with pytest.raises(UsageFault, match="holds a run of the method"):
        plan_of(record, evaluated.folder, tiny_task(), load_method("ours"), data_root=root, work_dir=root)
    other = dataclasses.replace(record, split_sha256="ab" * 32)
    with pytest.raises(UsageFault, match="another draw of the split"):
        plan_of(other, evaluated.folder, tiny_task(), EVERYTHING, data_root=root, work_dir=root)
    rare = tiny_plan(tmp_path, "soft-teacher", *SHORT, "best_by=rare")
    with pytest.raises(UsageFault, match="There is no column 'rare'"):
        execute(rare)


def test_a_command_line_names_task_and_method() -> None:
    words = ["cissod-bench", "run", "--method", "my.py", "--task=my.toml", "--seed"]
    assert [word_of(words, option) for option in ("--method", "--task", "--seed")] == ["my.py", "my.toml", None]
    assert word_of((), "--task") is None


def cut_short(monkeypatch: pytest.MonkeyPatch, number: int, fault: Exception) -> None:
    """Let the given evaluation end in a fault after two images."""
    whole, calls = evaluations.predicted_texts, list[int]()

    def texts(*values: Any, **named: Any) -> Iterator[list[str]]:
        calls.append(1)
        for place, own in enumerate(whole(*values, **named)):
            if place == 2 and len(calls) == number:
                raise fault
            yield own

    monkeypatch.setattr(evaluations, "predicted_texts", texts)


def test_a_run_that_was_stopped_in_an_evaluation_makes_it_again(
    evaluated: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tmp_path, EVERYTHING, *EVALUATED)
    with monkeypatch.context() as patch:
        cut_short(patch, 2, stopped("Stopped."))
        with pytest.raises(Interrupted):
            execute(plan)
    assert [line.iteration for line in read_evaluations(plan.folder)] == [1]
    assert checkpoint.iteration_of(plan.folder / runs.CHECKPOINT) == 2
    execute(plan)
    assert numbers_of(plan.folder / runs.LOG) == numbers_of(evaluated.folder / runs.LOG)
    assert same(*(checkpoint.read(own.folder / runs.CHECKPOINT) for own in (evaluated, plan)))
    assert runs.read_record(plan.folder).best == runs.read_record(evaluated.folder).best


def test_an_image_that_cannot_be_read_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, warned = tiny_plan(tmp_path, "soft-teacher", *SHORT, "eval_every=2"), list[str]()
    cut_short(monkeypatch, 1, DataFault("image 5 is broken"))
    run.execute(plan, restart=False, say=warned.append, quiet=True, warn=warned.append)
    first, last = read_evaluations(plan.folder)
    assert first.ap["teacher"] == {"all": None, "maj": None, "min": None}
    assert any("No evaluation after iteration 2. image 5 is broken" in words for words in warned)
    record = runs.read_record(plan.folder)
    assert (last.iteration, last.images) == (4, 6), "the whole is scored once, by the run itself"
    for who, aps in record.ap.items():
        assert dict(last.ap[who]) == pytest.approx(aps, abs=1e-5)
    assert record.best["iteration"] == 4


TWO = """
from pathlib import Path
import torch
from cissod_bench import distributed
from cissod_bench.records import run_folder as runs
from cissod_bench.records.evaluation_lines import read_evaluations
from cissod_bench.running import run
from tiny import tiny_plan

distributed.start(torch.device("cpu"))
plan = tiny_plan(Path({folder!r}), "soft-teacher", *{sets!r})
record = run.execute(plan, restart=False, say=lambda line: None, quiet=True)
lines = [(line.iteration, line.images) for line in read_evaluations(plan.folder)]
torch.save({{"lines": lines}}, Path({folder!r}) / f"rank{{distributed.rank()}}.pth")
distributed.stop()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_ranks_share_an_evaluation_and_one_writes_it(tmp_path: Path) -> None:
    sets = ("iterations=2", "generations=1", "workers=0", "eval_every=1", "eval_images=5", "test_batch=2")
    first, second = two_processes(TWO, tmp_path, sets=sets)
    assert first["lines"] == second["lines"] == [(1, 5), (2, 5)]
    log = next(tmp_path.rglob(runs.LOG)).read_text().splitlines()
    assert sum("eval_images" in line for line in log) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "here", "--predictions", "x.json"), "evaluate takes --predictions or --run, not both"),
        (("--run", "here", "--max-dets", 5), "evaluate takes --max-dets or --run, not both"),
        (("--predictions", "x", "--split", "y", "--checkpoint", "best"), "takes --checkpoint or --predictions"),
        (("--split", "y"), "Without --run, --predictions is missing"),
        (("--run", "here"), "no run was recorded here"),
    ],
)
def test_evaluate_says_which_options_go_together(
    call: Callable[..., Called], words: tuple[object, ...], message: str
) -> None:
    answer = call("evaluate", *words)
    assert answer.code != 0
    assert message in answer.err


def test_evaluate_scores_the_best_checkpoint_of_a_run_and_says_what_it_is(
    evaluated: Plan, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = evaluated.split.parents[2]
    monkeypatch.setattr("cissod_bench.catalogue.task_files.find_task", lambda name: tiny_task())
    monkeypatch.setattr("cissod_bench.catalogue.method_files.find_method", lambda name: EVERYTHING)
    answer = call(
        "evaluate", "--run", evaluated.folder, "--checkpoint", "best", "--work-dir", root, "--data-root", root, "--json"
    )
    assert answer.code == 0, answer.err
    value = json.loads(answer.out)
    assert value["iteration"] == runs.read_record(evaluated.folder).best["iteration"]
    assert list(value["teacher"])[:3] == ["all", "maj", "min"]
    assert "chosen on the images that are scored" in value["note"]
