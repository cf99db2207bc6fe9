"""A training on parts that somebody has, from the task file to the table."""

from __future__ import annotations

import json
from pathlib import Path

from own_data import TASK, harbour
from short_runs import execute
from tiny import CHANGES

from cissod_bench.catalogue import load_method
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.records import run_folder as runs
from cissod_bench.reporting.table_plan import task_layouts
from cissod_bench.running.plan import make_plan


def test_a_run_on_own_parts_is_scored_and_judges_no_pseudo_label(tmp_path: Path) -> None:
    own = harbour(tmp_path / "harbour", TASK.replace('minority = ["heart", "arrow"]\n', ""))
    changes = (*CHANGES, "iterations=2", "generations=2", "checkpoint_every=2")
    plan = make_plan(find_task(str(own)), load_method("ours"), data_root=own.parent, work_dir=tmp_path / "work",
                     preset_name="smoke", changes=changes, name="first")  # fmt: skip
    execute(plan)
    (run,) = runs.find_runs(tmp_path / "work")
    assert (run.record.status, run.record.name, run.record.data) == (
        "done",
        "first",
        {"labelled": 12, "unlabelled": 28},
    )
    assert run.record.ap["teacher"].keys() == {"all", "classes"}
    assert run.record.ap["teacher"]["all"] == run.record.ap["teacher"]["classes"]
    assert task_layouts([run], {})["harbour"] == ("Harbour", ("all",))
    lines = [json.loads(line) for line in (run.folder / runs.PSEUDO_LABELS).read_text().splitlines()]
    assert {line["group"] for line in lines} == {"all", "classes"}
    assert {(line["boxes"], line["precision"], line["recall"]) for line in lines} == {(None, None, None)}
