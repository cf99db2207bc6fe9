"""Finished runs of a few iterations on a tiny task of a file, as a user has them; most of their boxes are noise."""

from __future__ import annotations

from pathlib import Path

from shapes import copy_shapes
from short_runs import execute
from tiny import CHANGES
from tiny_files import TINY_TASK

from cissod_bench.catalogue import load_method
from cissod_bench.catalogue.task_files import find_task
from cissod_bench.running.plan import Plan, make_plan

SHORT = ("iterations=2", "generations=2", "checkpoint_every=100", "log_every=1", "max_dets=30")


def used_run(root: Path, method: str = "soft-teacher", *changes: str, variant: str = "") -> Plan:
    """A finished run below ``root / "work"``; its data lies in ``root / "data"``."""
    data = root / "data"
    if not data.exists():
        weights = {"circle": 2.0, "square": 1.5, "triangle": 1.0, "heart": 1.0, "arrow": 0.8}
        copy_shapes(data / "tiny", {"train": 40, "val": 6}, weights, seed=7)
        (data / "tiny.toml").write_text(TINY_TASK, encoding="utf-8")
    plan = make_plan(
        find_task(str(data / "tiny.toml")),
        load_method(method),
        data_root=data,
        work_dir=root / "work",
        variant=variant,
        preset_name="smoke",
        changes=(*CHANGES, *SHORT, *changes),
        command=("run", "--task", str(data / "tiny.toml"), "--method", method),
    )
    execute(plan)
    return plan
