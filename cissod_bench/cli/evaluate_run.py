"""``cissod-bench evaluate --run DIR``: a checkpoint of a run scored again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.common import Output

if TYPE_CHECKING:
    from cissod_bench.records.record import RunRecord
    from cissod_bench.scoring.evaluate import Scores


def evaluate_run(
    output: Output, folder: Path, name: str, *, task: str | None, method: str | None, data_root: Path, work_dir: Path
) -> dict[str, Scores]:
    """Score a checkpoint of a run and print the AP of teacher and student; return their scores.

    Args:
        output: of the command.
        folder: of the run.
        name: "last", "best" or a file.
        task: a name or file; None takes that of the run's own command.
        method: likewise.
        data_root: where data sets lie.
        work_dir: where the split lies.
    """
    from cissod_bench.extras import require_training
    from cissod_bench.records.run_folder import read_record
    from cissod_bench.running.rescoring import checkpoint_of, named_parts, plan_of, rescore

    require_training("evaluate --run")
    record = read_record(folder)
    file = checkpoint_of(folder, name)
    its_task, its_method = named_parts(record, task, method)
    plan = plan_of(record, folder, its_task, its_method, data_root=data_root, work_dir=work_dir)
    iteration, scores = rescore(plan, record, file, say=output.say, quiet=output.verbosity < 0)
    value: dict[str, Any] = {"checkpoint": str(file), "iteration": iteration, "note": _note(record, name)}
    for model, own in scores.items():
        value[model] = {**own.columns, "AP50": own.ap50, "AP75": own.ap75, "per_class": dict(own.per_class)}
    output.result({**value, "engine": scores["teacher"].engine})
    if output.shows:
        _print(f"{plan.method.title} on {plan.task.title}, iteration {iteration}", scores)
    if note := _note(record, name):
        output.tell(note)
    return scores


def _note(record: RunRecord, name: str) -> str:
    """Return what has to be said of the best checkpoint, "" for others."""
    if name != "best" or not record.best:
        return ""
    best = record.best
    return (
        f"The best of {best['evaluations']} evaluations by {best['column']}, chosen on the images that are scored: a "
        "second number. The headline is the last iteration's."
    )


def _print(title: str, scores: dict[str, Scores]) -> None:
    from rich.table import Table

    from cissod_bench.terminal import Console, Text

    def points(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.1f}"

    table = Table("AP in points", *next(iter(scores.values())).columns, "AP50", "AP75")
    for model, own in scores.items():
        table.add_row(model, *map(points, own.columns.values()), points(own.ap50), points(own.ap75))
    console = Console()
    console.print(Text(f"{title} ({next(iter(scores.values())).engine})", style="bold"))
    console.print(table)
