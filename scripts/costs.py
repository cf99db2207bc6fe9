"""Prints what a run of every task costs, as the table of docs/costs.md does for Soft Teacher.

``.venv/bin/python scripts/costs.py [METHOD ...]``

Nothing is read and nothing computed: classes are counted here, and the work of an iteration is derived from shapes
(`cissod_bench/running/iteration_work.py`).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cissod_bench.catalogue import load_method, load_task
from cissod_bench.cli.cost_lines import flops_text
from cissod_bench.contract.presets import resolved
from cissod_bench.keeping.inventory import bytes_text
from cissod_bench.running.cost import Subject, cost_of, subject_of

CLASSES = {
    "coco-split1": 80, "coco-split2": 80, "coco-o365": 365, "lvis": 1203, "toy": 10, "toy-longtail": 10,
    "voc-animals": 6, "voc-animals-longtail": 9,
}  # fmt: skip
PROCESSES = {"full": 8, "photo": 1, "mini": 1}


def subject(task_name: str, method: str) -> tuple[str, Subject]:
    """Return the preset of a task and the subject of its runs."""
    task = load_task(task_name)
    preset = task.usual_preset
    asked = subject_of(task, load_method(method), "", "default", resolved(task, preset), None)
    classes = tuple(f"class {number}" for number in range(CLASSES[task_name]))
    groups = {group: classes[number :: len(task.groups)] for number, group in enumerate(task.groups)}
    return preset, replace(asked, classes=classes, groups=groups, boxes=(1,) * len(classes))


def main() -> None:
    """Print the table."""
    print("| task, preset | method | processes | an iteration of each | the run | images read | memory | checkpoint |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in CLASSES:
        for method in sys.argv[1:] or ["soft-teacher"]:
            preset, asked = subject(name, method)
            cost = cost_of(asked, PROCESSES[preset])
            assert cost.work is not None, cost.why_not
            assert cost.flops is not None
            assert cost.checkpoint is not None
            cells = [f"{name}, `{preset}`", asked.method.title, str(cost.processes), flops_text(cost.work.flops)]
            cells += [flops_text(cost.flops), f"{sum(cost.read):,}", bytes_text(cost.work.memory)]
            print(f"| {' | '.join([*cells, bytes_text(cost.checkpoint)])} |", flush=True)


if __name__ == "__main__":
    main()
