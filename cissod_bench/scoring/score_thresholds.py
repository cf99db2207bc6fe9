"""Score thresholds per class: those that are best on a validation file by F1 at IoU .50.

For class c, with the detections of c in falling order of their scores s_1 >= s_2 >= ..., TP_k of the first k of which
lie on a box that no better one took, and P_c boxes in the file:

    F1_k = 2 TP_k / (k + P_c)                        t_c = s_k at the largest k that maximises F1_k

A detection is kept where its score >= t_c. Detections are matched by COCO's rules: each takes the free box of its class
and image that it overlaps most, from IoU .50 on; one that lies on a crowd region instead is neither right nor wrong. By
LVIS's rules so is one in an image that is not annotated, or not to the end, for its class, and the one that lies on a
box to be ignored; crowd regions are boxes like others there, and what has no area is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.errors import UsageFault
from cissod_bench.scoring.boxes import Detections, GroundTruth, areas, exist
from cissod_bench.scoring.ground_truth import read_ground_truth
from cissod_bench.scoring.matching import FITS, Bools, Floats, overlaps
from cissod_bench.scoring.predictions import read_detections

DEFAULT = 0.5
"""Of a class that the file says nothing of: it has no box there, or none of its detections is right."""


@dataclass(frozen=True)
class ClassThreshold:
    """What was picked for a class.

    Attributes:
        threshold: detections with score >= it are kept.
        f1: at that threshold, None where nothing could be picked.
        precision: likewise.
        recall: likewise.
        boxes: of the class in the file.
    """

    threshold: float
    f1: float | None
    precision: float | None
    recall: float | None
    boxes: int


def require_score(threshold: Any, *, remedy: str) -> None:
    """Refuse a threshold for all classes that no score could have.

    Args:
        threshold: any; a text is none.
        remedy: what to write instead.

    Raises:
        UsageFault: it is no number, or outside [0, 1].
    """
    if not (isinstance(threshold, Real) and 0 <= float(threshold) <= 1):
        raise UsageFault(f"A threshold is a score in [0, 1]. Got {threshold!r}.", remedy=remedy)


def pick_thresholds(
    ground_truth: Path, predictions: Path | Sequence[Any], *, metric: str = "coco"
) -> dict[str, ClassThreshold]:
    """Return class name -> its threshold, in the order of the category ids.

    Args:
        ground_truth: the validation file.
        predictions: COCO results on its images.
        metric: by whose rules a detection counts, "coco" or "lvis".

    Raises:
        DataFault: a file is missing or broken.
    """
    truth = read_ground_truth(ground_truth, federated=metric == "lvis")
    found = read_detections(predictions, truth)
    verdicts, wanted = matched(truth, found), _wanted(truth)
    picked = {}
    for channel, name in enumerate(truth.class_names):
        own = found.channel == channel
        boxes = int(((truth.channel == channel) & wanted).sum())
        picked[name] = best_threshold(found.scores[own], verdicts[own], boxes)
    return picked


def best_threshold(scores: Floats, verdicts: npt.NDArray[np.int8], boxes: int) -> ClassThreshold:
    """Return the threshold of a class with the best F1, see the module.

    Args:
        scores: of its detections, shape (D,).
        verdicts: as `matched` gives them, shape (D,).
        boxes: P_c, >= 0.
    """
    order = np.argsort(-scores, kind="stable")
    scores, verdicts = scores[order], verdicts[order]
    scores, verdicts = scores[verdicts >= 0], verdicts[verdicts >= 0]
    right = np.cumsum(verdicts == 1)
    if not boxes or not len(right) or not right[-1]:
        return ClassThreshold(DEFAULT, None, None, None, boxes)
    number = np.arange(1, len(scores) + 1)
    f1 = 2 * right / (number + boxes)
    f1[:-1][scores[:-1] == scores[1:]] = -1.0  # a threshold takes all of equal scores or none
    last = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return ClassThreshold(
        float(scores[last]), float(f1[last]), float(right[last] / number[last]), float(right[last] / boxes), boxes
    )


def _wanted(truth: GroundTruth) -> Bools:
    """Return which boxes have to be found, (N,)."""
    rules = truth.federated
    return ~truth.crowd if rules is None else exist(rules.area) & ~rules.ignored


def matched(truth: GroundTruth, found: Detections) -> npt.NDArray[np.int8]:
    """Return of every detection 1 where it is right, 0 where it is wrong, -1 where it is neither, int8 (D,)."""
    verdicts = np.zeros(len(found.scores), np.int8)
    classes, wanted, rules = len(truth.class_ids), _wanted(truth), truth.federated
    there = np.ones(len(truth.image), np.bool_) if rules is None else exist(rules.area)
    of_truth, of_found = (own.image * classes + own.channel for own in (truth, found))
    by_truth = np.argsort(of_truth, kind="stable")
    by_truth = by_truth[there[by_truth]]
    by_found = np.lexsort((-found.scores, of_found))
    keys, begins = np.unique(of_found[by_found], return_index=True)
    lows: Any = np.searchsorted(of_truth[by_truth], keys, side="left")
    highs: Any = np.searchsorted(of_truth[by_truth], keys, side="right")
    groups = np.split(by_found, begins[1:]) if len(keys) else []
    for place, rows in enumerate(groups):
        boxes = by_truth[lows[place] : highs[place]]
        own = _matched_in_image(found.boxes[rows], truth.boxes[boxes], wanted[boxes], regions=rules is None)
        if rules is not None and not _is_annotated(truth, found, int(rows[0]), len(boxes)):
            own[own == 0] = -1
        verdicts[rows] = own
    if rules is not None:
        verdicts[~exist(areas(found.boxes))] = -1
    return verdicts


def _is_annotated(truth: GroundTruth, found: Detections, row: int, boxes: int) -> bool:
    """Return whether a detection that lies on no box is wrong by LVIS's rules."""
    assert truth.federated is not None
    image, channel = int(found.image[row]), int(found.channel[row])
    is_known = boxes > 0 or channel in truth.federated.absent[image]
    return is_known and channel not in truth.federated.incomplete[image]


def _matched_in_image(found: Floats, boxes: Floats, wanted: Bools, *, regions: bool) -> npt.NDArray[np.int8]:
    """Return the verdicts on the detections of an image and class, best first.

    Args:
        found: the detections, (D, 4).
        boxes: the boxes, (G, 4).
        wanted: those that have to be found, (G,).
        regions: whether the others are crowd regions, on which any number of detections may lie; else they are boxes.
    """
    verdicts = np.zeros(len(found), np.int8)
    if not len(boxes):
        return verdicts
    free = np.ones(len(boxes), np.bool_)
    for row, own in enumerate(overlaps(found, boxes, ~wanted & regions)):
        for verdict, kind in ((1, wanted), (-1, ~wanted)):
            reach = np.where(free & kind, own, -1.0)
            best = int(np.argmax(reach))
            if reach[best] >= FITS:
                verdicts[row], free[best] = verdict, verdict < 0 and regions
                break
    return verdicts
