"""The doctor's last lines: what suits this machine, and hours that are those of the kept runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Called

from cissod_bench import advice, doctor
from cissod_bench.advice import A_FULL_RUN, A_TOY_RUN, EXAMPLE_RUNS, GIB, LEAGUE_RUNS, Machine
from cissod_bench.records.run_folder import find_runs
from cissod_bench.sweeping.queue_file import read_queue

ROOT = Path(__file__).resolve().parents[1]
LAPTOP = Machine(cores=4, memory=16 * GIB, slowness=1.0)


def test_runs_and_seconds_are_those_of_the_records_and_queues() -> None:
    measured = json.loads((ROOT / "benchmarks/records/toy-run-mini-1t-2026-11-30.json").read_text(encoding="utf-8"))
    assert [round(run["wall"]) for run in measured["here"]] == [A_TOY_RUN]
    assert len([run for run in find_runs(ROOT / "results") if run.record.preset == "mini"]) == LEAGUE_RUNS
    assert len(read_queue(ROOT / "examples" / "league.toml").cells) == EXAMPLE_RUNS


def test_a_laptop_is_sent_to_the_demo_and_the_toy_league_and_told_their_time() -> None:
    demo, league, full = advice.advice(LAPTOP)
    assert demo == "cissod-bench demo: splits, two trainings and a table, about 7 minutes"
    assert "14 runs on the toy task, about 12 minutes with 4 workers;" in league
    assert (
        "all 107 of the toy leagues, about 1.5 hours with 4 workers; a worker is this command, started 4 times"
        in league
    )
    assert full.startswith("preset full, the paper's scale, is not for this machine (no GPU is seen)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slowness": 2.0, "cores": 1}, "14 runs on the toy task, about 1.6 hours;"),
        ({"memory": 2 * GIB}, "about 47 minutes;"),
        ({"slowness": None}, "14 runs on the toy task; all"),
    ],
    ids=["slow", "little memory", "not measured"],
)
def test_hours_follow_speed_cores_and_memory(change: dict[str, Any], words: str) -> None:
    machine = Machine(**{"cores": 4, "memory": 16 * GIB, "slowness": 1.0, **change})
    assert words in advice.advice(machine)[1]


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ((("A", 80 * GIB),) * 8, "run --task coco-split1 --method soft-teacher --gpus 8 --launcher pytorch --dry-run"),
        ((("A", 80 * GIB),), "soft-teacher --dry-run says what it takes on 1 x A; the paper has 8 GPUs"),
        ((("B", A_FULL_RUN - GIB),), "not for this machine (B has 7 GiB)"),
    ],
    ids=["eight", "one", "small"],
)
def test_full_is_for_cards_that_hold_it(cards: tuple[tuple[str, int], ...], words: str) -> None:
    assert words in advice.advice(Machine(cores=64, memory=500 * GIB, cards=cards, slowness=0.5))[2]


def test_where_nothing_trains_the_advice_is_the_core_s_commands() -> None:
    (line,) = advice.advice(Machine(cores=4, memory=16 * GIB, trains=False))
    assert "make-splits" in line


def test_the_doctor_ends_with_it_unless_something_fails_or_json_is_asked_for(
    call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, broken = doctor.Check("all", "PASS", "well"), doctor.Check("all", "FAIL", "ill", "mend it")
    monkeypatch.setattr(advice, "machine_here", lambda: LAPTOP)
    monkeypatch.setattr(doctor, "run_checks", lambda work_dir: [fine])
    assert call("doctor").out.splitlines()[-4:] == ["Next:", *(f"  {line}" for line in advice.advice(LAPTOP))]
    assert "Next:" not in call("doctor", "--json").out
    monkeypatch.setattr(doctor, "run_checks", lambda work_dir: [broken])
    assert "Next:" not in call("doctor").out


def test_the_probe_is_short_and_leaves_torch_s_threads_alone() -> None:
    import torch

    before = torch.get_num_threads()
    assert 0 < advice.probe() < 1
    assert torch.get_num_threads() == before
