"""A tiny drawn task and its plans, for tests that train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shapes import copy_shapes, drawn

from cissod_bench.catalogue import load_method, load_task
from cissod_bench.contract.method import Method
from cissod_bench.running.assembly import prepare
from cissod_bench.running.plan import Plan, make_plan
from cissod_bench.splitting.task import Task
from cissod_bench.training.loop import Training

WEIGHTS = {"circle": 1.2, "heart": 1.0, "square": 1.1, "arrow": 1.0}
# Small enough that an iteration takes a few tenths of a second; its random teacher gives pseudo labels; a
# loader process would take as long to start as all of it.
CHANGES = (
    "base_channels=8", "fpn_channels=16", "fc_channels=32", "roi_samples=16", "rpn_samples=16", "proposals_train=50,20",
    "proposals_test=50,20", "labelled_per_gpu=1", "unlabelled_per_gpu=2", "initial_threshold=0.06",
    "rpn_threshold=0.15", "theta=0.15", "box_threshold=5", "workers=0",
)  # fmt: skip


COUNTS = {"train": 40, "val": 6}


def tiny_images() -> None:
    """Draw the images of the tiny task now, once for this process and its forks."""
    drawn(COUNTS, WEIGHTS, 1)


def _prepare(folder: Path) -> None:
    copy_shapes(folder, COUNTS, WEIGHTS, seed=1)


def tiny_task(**changes: Any) -> Task:
    """Four shapes on 46 images, two of them the minority with at least two boxes."""
    defaults = {"labelled_percent": 20.0, "min_instances": 2}
    fields: dict[str, Any] = {
        "name": "tiny",
        "prepare": _prepare,
        "minority": ("heart", "arrow"),
        "draw_defaults": defaults,
    }
    return replace(load_task("toy"), **{**fields, **changes})


def tiny_plan(work_dir: Path, method: str | Method = "soft-teacher", *changes: str, **fields: Any) -> Plan:
    """The plan of a smoke run on the tiny task."""
    own = load_method(method) if isinstance(method, str) else method
    fields = {"preset_name": "smoke", "task": tiny_task(), **fields}
    task = fields.pop("task")
    return make_plan(task, own, data_root=work_dir, work_dir=work_dir, changes=(*CHANGES, *changes), **fields)


def tiny_training(work_dir: Path, method: str | Method = "soft-teacher", *changes: str, **fields: Any) -> Training:
    """A training on the tiny task that has not begun; its folder exists."""
    plan = tiny_plan(work_dir, method, *changes, **fields)
    plan.folder.mkdir(parents=True, exist_ok=True)
    return prepare(plan, torch.device("cpu"))
