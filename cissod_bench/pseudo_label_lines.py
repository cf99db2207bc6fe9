"""What runs noted of their pseudo labels (``pseudo_labels.jsonl``): read, averaged over seeds, as panels of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pandas as pd

from cissod_bench.curves import Curve, CurvePanel, Point
from cissod_bench.distributions import WORDS
from cissod_bench.errors import DataFault
from cissod_bench.runs import PSEUDO_LABELS
from cissod_bench.svg import roles


class Line(msgspec.Struct, kw_only=True):
    """A line of the file: one group in one generation.

    Attributes:
        generation: from 1.
        iteration: the last one in it.
        group: "all" or a class group.
        images: views of images of D_u that the teacher labelled.
        boxes: hidden boxes on them; None where D_u's boxes are not known.
        detected: pseudo labels, detections above the threshold of their class.
        correct: those that match a hidden box.
        precision: correct / detected, 0-1; None where nothing was detected or it cannot be judged.
        recall: correct / boxes, 0-1; None where there is no box.
        theta: threshold, mean over the group's classes; theta_min, theta_max: the least and the greatest.
        w: class weight, likewise; None for methods without.
        copies_labelled: mean copies of an image of D_l, copies_labelled_max: the most; None without resampling.
        copies_unlabelled: likewise of D_u.
        pool: images of D_u whose pseudo labels are pooled; pool_coverage: their share of D_u, 0-1.
    """

    generation: int
    iteration: int
    group: str
    images: int
    detected: int
    boxes: int | None = None
    correct: int | None = None
    precision: float | None = None
    recall: float | None = None
    theta: float | None = None
    theta_min: float | None = None
    theta_max: float | None = None
    w: float | None = None
    w_min: float | None = None
    w_max: float | None = None
    copies_labelled: float | None = None
    copies_labelled_max: float | None = None
    copies_unlabelled: float | None = None
    copies_unlabelled_max: float | None = None
    pool: int | None = None
    pool_coverage: float | None = None


def read_lines(folder: Path) -> list[Line]:
    """Return the lines of a run's file, the last of each group and generation; none where there is no file.

    Raises:
        DataFault: a line is no JSON or breaks the layout; names the file and the line.
    """
    path = folder / PSEUDO_LABELS
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        remedy = "make the file readable, or take the run's folder out of what --runs names"
        raise DataFault(f"{path}: cannot be read ({error.strerror}).", remedy=remedy) from None
    found: dict[tuple[int, str], Line] = {}
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataFault(
                f"{path}, line {number}: {error}.",
                remedy="mend or remove that line, or move the file away: the report leaves out what it lacks",
            ) from None
        found[line.generation, line.group] = line
    return list(found.values())


def line_frame(lines: Sequence[Line], keys: Mapping[str, object]) -> pd.DataFrame:
    """Return a run's lines as a tidy frame: ``keys``, "group", "generation", "quantity", "value" (NaN where None)."""
    values = [
        {**keys, "group": line.group, "generation": line.generation, "quantity": name, "value": value}
        for line in lines
        for name, value in msgspec.structs.asdict(line).items()
        if name not in ("group", "generation")
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
    """Return Fig. 3: precision, then recall, a panel a group, a curve a method; points are percent.

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
    """Return what one method's own state did: weights and thresholds a group, copies, the pool; as far as it has them.

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
    """Return a method's means and deviations in a group: a line a generation, columns (statistic, quantity)."""
    own = frame[(frame["title"] == title) & (frame["group"] == group)]
    return own.pivot(index="generation", columns="quantity", values=["mean", "std"]).sort_index()


def _points(own: pd.DataFrame, quantity: str, scale: float = 1) -> tuple[Point, ...]:
    """Return a quantity with one standard deviation on either side, where there are two runs or more."""
    points = []
    for generation in own.index:
        mean, std = (scale * float(own.loc[generation, (part, quantity)]) for part in ("mean", "std"))
        y = None if math.isnan(mean) else mean
        spread = (None, None) if math.isnan(std) or math.isnan(mean) else (max(0.0, mean - std), mean + std)
        points.append(Point(int(generation), y, *spread))
    return tuple(points)


def _within(own: pd.DataFrame, quantity: str) -> tuple[Point, ...]:
    """Return a quantity's mean over a group's classes, with its least and greatest class as the band."""
    points = []
    for generation in own.index:
        values = [float(own.loc[generation, ("mean", f"{quantity}{end}")]) for end in ("", "_min", "_max")]
        points.append(Point(int(generation), *(None if math.isnan(value) else value for value in values)))
    return tuple(points)
