"""Short runs by the command line and in this process, and what their logs hold."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tiny import CHANGES

from cissod_bench.running import run
from cissod_bench.running.plan import Plan

TINY_FOLDER = "runs/tiny/split0/soft-teacher/smoke-default+tiny/seed0"


def run_words(work: Path, data: Path, *more: str) -> list[str]:
    """The words of a smoke run of Soft Teacher on ``tiny.toml`` in a data root (the fixture ``tiny_coco``)."""
    sets = [word for change in CHANGES for word in ("--set", change)]
    task = (
        "--task",
        str(data / "tiny.toml"),
        "--data-root",
        str(data),
        "--method",
        "soft-teacher",
        "--preset",
        "smoke",
        "--name",
        "tiny",
    )
    return ["run", *task, "--work-dir", str(work), *sets, *more]


def wait_for_lines(log: Path, lines: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (log.exists() and len(log.read_bytes().splitlines()) >= lines):
        time.sleep(0.05)


def numbers_of(log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def execute(plan: Plan, *, restart: bool = False) -> list[str]:
    """Do what is left of a run; return what it says."""
    said: list[str] = []
    run.execute(plan, restart=restart, say=said.append, quiet=True)
    return said
