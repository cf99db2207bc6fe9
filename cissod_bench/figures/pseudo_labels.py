"""What runs noted of their pseudo labels (``pseudo_labels.jsonl``): read, averaged over seeds, as panels of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from cissod_bench.figures.curves import Curve, CurvePanel, Point
from cissod_bench.records.pseudo_label_lines import QUANTITIES, PseudoLabelLine
from cissod_bench.reporting.groups import WORDS, roles


def line_frame(lines: Sequence[PseudoLabelLine], keys: Mapping[str, object]) -> pd.DataFrame:
    """Return a run's lines as a tidy frame: ``keys``, "group", "generation", "quantity", "value" (NaN where None)."""
    values = [
        {**keys, "group": line.group, "generation": line.generation, "quantity": name, "value": getattr(line, name)}
        for line in lines
        for name in QUANTITIES
    ]
    frame = pd.DataFrame(values, columns=[*keys, "group", "generation", "quantity", "value"])
    return frame.astype({"value": float})


def averaged(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return "mean", "std" (of the sample, NaN below two) and "n" of every value over the runs that have it."""
    frame = pd.concat(frames, ignore_index=True)
    keys = [column for column in frame.columns if column != "value"]
    grouped = frame.groupby(keys, sort=False, dropna=False)["value"]
    return grouped.agg(["mean", "std", "count"]).reset_index().rename(columns={"count": "n"})


def quality_panels(frame: pd.DataFrame, methods: Mapping[str, int], groups: Sequence[str]) -> list[CurvePanel]:
    """Return Fig. 3: precision, then recall, a panel per group, a curve per method; points are percent.

    Args:
        frame: of ``averaged``, one scale and split.
        methods: title -> look, in the order of the legend.
        groups: from left to right.
    """
    return [
        CurvePanel(
            f"{measure.capitalize()}, {WORDS.get(group, group)} (%)",
            tuple(
                Curve(title, look, _points(_of(frame, title, group), measure, 100)) for title, look in methods.items()
            ),
            (0.0, 100.0),
        )
        for measure in ("precision", "recall")
        for group in groups
    ]


def state_panels(frame: pd.DataFrame, groups: Sequence[str]) -> list[CurvePanel]:
    """Return what a method's own state did: weights and thresholds per group, copies, the pool; as far as it has them.

    Args:
        frame: of ``averaged``, one method on one scale and split.
        groups: most frequent first.
    """
    title = frame["title"].iloc[0]
    words = {group: WORDS.get(group, group) for group in groups}
    found = []
    for quantity, name in (("w", "Weight w"), ("theta", "Threshold θ")):
        curves = tuple(
            Curve(words[group], role, _within(_of(frame, title, group), quantity))
            for group, role in roles(groups).items()
        )
        found.append(CurvePanel(name, curves, (0.0, 1.0 if quantity == "theta" else None)))
    every = _of(frame, title, "all")
    copies = [("D_l, mean", 4, "labelled"), ("D_u, mean", 5, "unlabelled")]
    most = [("D_l, most", 6, "labelled_max"), ("D_u, most", 7, "unlabelled_max")]
    curves = tuple(Curve(name, look, _points(every, f"copies_{part}")) for name, look, part in (*copies, *most))
    found.append(CurvePanel("Copies of an image", tuple(curve for curve in curves if curve.pieces)))
    found.append(
        CurvePanel("Pool, share of D_u (%)", (Curve("", 3, _points(every, "pool_coverage", 100)),), (0.0, 100.0))
    )
    return [panel for panel in found if any(curve.pieces for curve in panel.curves)]


def adapts(frame: pd.DataFrame) -> bool:
    """Return whether a method has weights, a pool, or thresholds that are not one fixed number."""
    values = {name: own["mean"].dropna() for name, own in frame.groupby("quantity")}
    return bool(
        len(values["w"]) or len(values["pool"]) or pd.concat([values["theta_min"], values["theta_max"]]).nunique() > 1
    )


def _of(frame: pd.DataFrame, title: str, group: str) -> pd.DataFrame:
    """Return a method's means and deviations in a group: a line per generation, columns (statistic, quantity)."""
    own = frame[(frame["title"] == title) & (frame["group"] == group)]
    return own.pivot(index="generation", columns="quantity", values=["mean", "std"]).sort_index()


def _points(own: pd.DataFrame, quantity: str, scale: float = 1) -> tuple[Point, ...]:
    """Return a quantity with one standard deviation on either side, where there are two runs or more."""
    points = []
    for generation in own.index:
        mean, std = (scale * float(own.loc[generation, (part, quantity)]) for part in ("mean", "std"))
        points.append(Point.around(int(generation), mean, std))
    return tuple(points)


def _within(own: pd.DataFrame, quantity: str) -> tuple[Point, ...]:
    """Return a quantity's mean over a group's classes, with its least and greatest class as the band."""
    points = []
    for generation in own.index:
        values = [float(own.loc[generation, ("mean", f"{quantity}{end}")]) for end in ("", "_min", "_max")]
        points.append(Point(int(generation), *(None if math.isnan(value) else value for value in values)))
    return tuple(points)
