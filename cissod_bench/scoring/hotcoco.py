"""hotcoco, the fast scorer, fed with columns; by COCO's rules and by LVIS's.

For LVIS three things are done here before it sees a detection, as lvis-api does them: an image keeps its best-scored
detections over all classes; boxes without area do not exist, which hotcoco itself would score; and detections of
classes an image is not annotated for are left out, which hotcoco would do too, but here it costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cissod_bench.scoring.boxes import ALL_AREAS, Detections, GroundTruth, areas, exist, numbered_from_one

_OUT_OF_RANGE = 2 * ALL_AREAS[1]  # px²: a box so large neither has to be found nor makes a detection wrong


def score_coco(truth: GroundTruth, found: Detections, max_dets: int) -> NDArray[np.float64]:
    """Return the precision array by COCO's rules (see ``engines.Precision``)."""
    return _precision(_coco(truth, found), max_dets)


def evaluate_coco(
    truth: GroundTruth, found: Detections, area_ranges: Sequence[tuple[float, float]], limits: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision (T, R, K, A, M) and recall (T, K, A, M) by COCO's rules; -1 where there is no box.

    Args:
        truth: the boxes; sizes are their annotated areas.
        found: all detections.
        area_ranges: least and greatest area, px², A of them.
        limits: detections that are kept of an image and class, M of them.
    """
    arrays = _accumulated(_coco(truth, found, truth.area), area_ranges, limits)
    precision, recall = (np.asarray(arrays[name], np.float64) for name in ("precision", "recall"))
    return precision, recall


def _coco(truth: GroundTruth, found: Detections, area: NDArray[np.float64] | None = None) -> Any:
    """Return the scorer by COCO's rules; where no ``area`` is given, px², it is that of each box."""
    import hotcoco

    images, classes = numbered_from_one(truth)
    crowd = truth.crowd.astype(np.int64)
    gt = hotcoco.COCO.from_arrays(
        images, classes, truth.image + 1, truth.channel + 1, truth.boxes, area=area, iscrowd=crowd
    )
    return hotcoco.COCOeval(gt, gt.load_res(_rows(found)), "bbox")


def score_lvis(truth: GroundTruth, found: Detections, max_dets: int) -> NDArray[np.float64]:
    """Return the precision array by LVIS's federated rules (see ``engines.Precision``)."""
    import hotcoco

    rules = truth.federated
    assert rules is not None
    images, classes = numbered_from_one(truth)
    there = exist(rules.area)
    area = np.where(rules.ignored, _OUT_OF_RANGE, rules.area)[there]
    gt = hotcoco.COCO.from_arrays(
        images, classes, truth.image[there] + 1, truth.channel[there] + 1, truth.boxes[there], area=area
    )
    found = best_of_each_image(found, max_dets)
    found = found.only(exist(areas(found.boxes)) & _annotated(truth, there, rules.absent)[found.image, found.channel])
    dt = hotcoco.LVISResults(gt, _rows(found), max_dets=-1)  # load_res would keep 300 per image, whatever the limit
    return _precision(hotcoco.LVISEval(gt, dt, "bbox"), max_dets)


def _annotated(truth: GroundTruth, there: NDArray[np.bool_], absent: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    """Return for which classes each image is annotated: those it shows a box of or is known to lack, bool (I, K)."""
    annotated = np.zeros((len(truth.image_ids), len(truth.class_ids)), np.bool_)
    annotated[truth.image[there], truth.channel[there]] = True
    for row, channels in zip(annotated, absent, strict=True):
        row[channels] = True
    return annotated


def best_of_each_image(found: Detections, most: int) -> Detections:
    """Return the ``most`` best-scored detections of every image over all classes; of equal scores the earlier ones."""
    if not len(found.scores) or np.bincount(found.image).max() <= most:
        return found
    order = np.lexsort((-found.scores, found.image))  # stable: ties stay in the order of the file
    image = found.image[order]
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    keep = np.zeros(len(image), np.bool_)
    keep[order[rank < most]] = True
    return found.only(keep)


def _rows(found: Detections) -> NDArray[np.float64]:
    """Return detections as hotcoco takes them, (D, 7): image, x, y, width, height, score, class."""
    rows = np.empty((len(found.scores), 7))
    rows[:, 0], rows[:, 6] = found.image + 1, found.channel + 1
    rows[:, 1:5], rows[:, 5] = found.boxes, found.scores
    return rows


def _precision(scorer: Any, max_dets: int) -> NDArray[np.float64]:
    precision: NDArray[np.float64] = np.asarray(_accumulated(scorer, [ALL_AREAS], [max_dets])["precision"], np.float64)
    return precision[:, :, :, 0, 0]  # one area range, one limit of detections


def _accumulated(scorer: Any, area_ranges: Sequence[Sequence[float]], limits: Sequence[int]) -> Any:
    """Return the arrays of an evaluation by name, after the ranges and limits were set."""
    params = scorer.params
    params.area_rng = [list(ends) for ends in area_ranges]
    params.area_rng_lbl = ["all", *map(str, range(1, len(area_ranges)))]
    params.max_dets = list(limits)
    scorer.evaluate()
    scorer.accumulate()
    return scorer.eval
