"""Predictions -> AP of every class -> AP of all classes and of every group, from one accumulation.

AP is the mean of the precision array over IoU thresholds .50:.05:.95, 101 recalls and classes. "maj" and "min", or "f",
"c" and "r", restrict the classes (Sec. 4.1 and 4.3 of the paper), which is a choice of columns of the same array:
nothing is matched twice, whatever the groups. A class without a ground-truth box has no AP (None), and means pass over
it.

By LVIS's federated rules ("lvis") a detection counts only in images that are annotated for its class, and is not wrong
where the class is not exhaustively annotated. Boxes without area do not exist there, crowd regions are boxes like
others, as in lvis-api.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.scoring.engines import load_engine, mean_points
from cissod_bench.scoring.foreign_boxes import check_readings
from cissod_bench.scoring.ground_truth import read_ground_truth
from cissod_bench.scoring.points import AP
from cissod_bench.scoring.predictions import read_detections

_IOU_50, _IOU_75 = 0, 5  # places of .50 and .75 among the ten thresholds


@dataclass(frozen=True, kw_only=True)
class Scores:
    """AP in points, 0-100; None where no class has a ground-truth box.

    Attributes:
        all: mean over the scored classes.
        groups: the same over the classes of each group, in the order given.
        per_class: class name -> AP, in the order of the category ids.
        ap50: ``all`` at IoU .50 only.
        ap75: ``all`` at IoU .75 only.
        engine: scorer and version, e.g. "hotcoco 1.3.0".
    """

    all: AP
    groups: Mapping[str, AP]
    per_class: Mapping[str, AP]
    ap50: AP
    ap75: AP
    engine: str

    @property
    def columns(self) -> dict[str, AP]:
        """``{"all": ..., group: ...}``, what run.json holds in "ap" for the teacher or the student."""
        return {"all": self.all, **self.groups}


def score(
    ground_truth: str | Path,
    predictions: str | Path | Sequence[Any],
    *,
    groups: Mapping[str, Sequence[str]],
    engine: str = "hotcoco",
    max_dets: int = 100,
    score_floor: float | None = None,
    metric: str = "coco",
    check_boxes: bool = True,
) -> Scores:
    """Score detections against a validation file.

    Args:
        ground_truth: annotation file, may be gzipped; for "lvis" in LVIS's format. Boxes of classes outside the groups
            are not scored.
        predictions: COCO result file, may be gzipped, or its list.
        groups: group -> class names; "all" is the mean over the classes of all groups, over every class
            if there are none.
        engine: "hotcoco", or the metric's reference, which gives the same numbers: "pycocotools" for "coco", "lvis" for
            "lvis".
        max_dets: the best-scored detections that count: of an image and class by COCO's rules, of an image over all
            classes by LVIS's.
        score_floor: detections at or below it are left out first; None keeps all.
        metric: "coco", or "lvis" for federated rules. LVIS's own protocol keeps 300 detections above 1e-4; the paper's
            tables 100 above .05.
        check_boxes: compare detections with the boxes of the file under other readings of their four numbers
            (``foreign_boxes``): refuse or warn where another one fits. False for detections of which it is known.

    Returns:
        The scores. Equal scores are ordered by image id, then by place in the predictions, so the same file always
        gives the same numbers.

    Raises:
        DataFault: a file is missing or broken, an entry breaks the format, boxes are not x, y, width, height in
            pixels, a group names a class the file lacks.
        UsageFault: unknown engine or metric, an engine that does not know the metric, or max_dets below 1, a
            score floor that is not finite.
        EnvironmentFault: the engine is not installed.
    """
    (scores,) = score_several(
        Path(ground_truth),
        [Path(predictions) if isinstance(predictions, str) else predictions],
        groups=groups,
        engine=engine,
        max_dets=max_dets,
        score_floor=score_floor,
        metric=metric,
        check_boxes=check_boxes,
    )
    return scores


def score_several(
    ground_truth: Path,
    predictions: Sequence[Path | Sequence[Any]],
    *,
    groups: Mapping[str, Sequence[str]],
    engine: str = "hotcoco",
    max_dets: int = 100,
    score_floor: float | None = None,
    metric: str = "coco",
    check_boxes: bool = True,
    images: Sequence[int] | None = None,
) -> list[Scores]:
    """Score several sets of detections against a validation file, which is read once; otherwise as `score`.

    With ``images`` only these image ids of the file count, and detections may be of no others.
    """
    if max_dets < 1:
        message = f"max_dets is the number of detections kept, at least 1. Got {max_dets} instead."
        raise UsageFault(message, remedy="the paper's tables keep 100 per image")
    if score_floor is not None and not math.isfinite(score_floor):
        message = f"score_floor is a finite score. Got {score_floor} instead."
        raise UsageFault(message, remedy="the paper's tables have 0.05; None keeps all detections")
    accumulate, engine_title = load_engine(engine, metric)
    truth = read_ground_truth(ground_truth, federated=metric == "lvis")
    truth = truth if images is None else truth.of_images(images)
    channels = _group_channels(truth.class_names, groups, ground_truth)
    scores = []
    for own in predictions:
        found = read_detections(own, truth)
        if check_boxes:
            check_readings(truth, found, str(own) if isinstance(own, Path) else "predictions")
        if score_floor is not None:
            found = found.only(found.scores > score_floor)
        scores.append(_scores(accumulate(truth, found, max_dets), truth.class_names, channels, engine_title))
    return scores


def _scores(
    precision: NDArray[np.float64], names: Sequence[str], channels: Mapping[str, list[int]], engine: str
) -> Scores:
    """Return the means over a precision array.

    Args:
        precision: as ``engines.Precision``.
        names: of all classes.
        channels: group -> columns of its classes.
        engine: scorer and version.
    """
    scored = sorted({channel for group in channels.values() for channel in group}) or list(range(len(names)))
    return Scores(
        all=mean_points(precision[:, :, scored]),
        groups={group: mean_points(precision[:, :, members]) for group, members in channels.items()},
        per_class={names[channel]: mean_points(precision[:, :, channel]) for channel in scored},
        ap50=mean_points(precision[_IOU_50, :, scored]),
        ap75=mean_points(precision[_IOU_75, :, scored]),
        engine=engine,
    )


def _group_channels(names: Sequence[str], groups: Mapping[str, Sequence[str]], file: Path) -> dict[str, list[int]]:
    """Return group -> columns of its classes in the precision array."""
    place = {name: channel for channel, name in enumerate(names)}
    if "all" in groups:
        message = 'A group cannot be called "all": that is the column of all classes.'
        raise DataFault(message, remedy="give the group another name where the groups of the split are made")
    for group, members in groups.items():
        absent = [name for name in members if name not in place]
        if absent:
            raise DataFault(
                f"{file}: categories: no class {absent[0]!r}, which group {group!r} names ({len(absent)} such).",
                remedy="score against the validation file the split was drawn for",
            )
    return {group: sorted({place[name] for name in members}) for group, members in groups.items()}
