"""AP while training (evaluations of ``log.jsonl``): averaged over seeds, as panels of curves over iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from cissod_bench.figures.curves import Curve, CurvePanel, Point
from cissod_bench.records.evaluation_lines import Evaluation
from cissod_bench.reporting.groups import WORDS

COLUMNS = ("column", "iteration", "value")


def evaluation_frame(lines: Sequence[Evaluation], keys: Mapping[str, object], model: str) -> pd.DataFrame:
    """Return a run's evaluations as a tidy frame: ``keys``, "column", "iteration", "value" (points, NaN for None).

    Args:
        lines: of the run.
        keys: columns that say which run it is.
        model: "teacher" or "student".
    """
    values = [
        {**keys, "column": column, "iteration": line.iteration, "value": value}
        for line in lines
        for column, value in line.ap.get(model, {}).items()
    ]
    return pd.DataFrame(values, columns=[*keys, *COLUMNS]).astype({"value": float})


def learning_panels(frame: pd.DataFrame, methods: Mapping[str, int], columns: Sequence[str]) -> list[CurvePanel]:
    """Return a panel per column of AP, a curve per method; the band is one standard deviation over its seeds.

    Args:
        frame: of ``pseudo_labels.averaged``, one scale and split, with a column "title".
        methods: title -> look, in the order of the legend.
        columns: from left to right.
    """
    return [
        CurvePanel(
            f"AP, {'all classes' if column == 'all' else WORDS.get(column, column)}",
            tuple(Curve(title, look, _points(frame, title, column)) for title, look in methods.items()),
            unit="iteration",
        )
        for column in columns
    ]


def _points(frame: pd.DataFrame, title: str, column: str) -> tuple[Point, ...]:
    """Return a method's mean at every evaluation, with one standard deviation where there are two runs or more."""
    own = frame[(frame["title"] == title) & (frame["column"] == column)].sort_values("iteration")
    values = zip(own["iteration"], own["mean"], own["std"], strict=True)
    return tuple(Point.around(int(iteration), float(mean), float(std)) for iteration, mean, std in values)
