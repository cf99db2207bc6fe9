"""Short trainings whose pseudo labels are judged."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import tiny_plan, tiny_task

from cissod_bench.records.pseudo_label_lines import Written
from cissod_bench.running.assembly import prepare
from cissod_bench.running.plan import Plan
from cissod_bench.training.loop import Training

SETTINGS = ("iterations=8", "generations=4", "checkpoint_every=100", "lr=0.05", "warmup_iterations=0")
TASK = {"crs_gamma": 1000.0, "repeat_threshold": 1.0}


def plan_of(folder: Path, method: str = "ours", *changes: str) -> Plan:
    plan = tiny_plan(folder, method, *SETTINGS, *changes, task=tiny_task(**TASK))
    plan.folder.mkdir(parents=True, exist_ok=True)
    return plan


def watched(plan: Plan) -> tuple[Training, list[Written]]:
    lines: list[Written] = []
    return prepare(plan, torch.device("cpu"), report=lambda line: lines.append(line.written())), lines
