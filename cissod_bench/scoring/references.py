"""The reference scorers: pycocotools by COCO's rules, lvis-api (the package lvis) by LVIS's federated ones.

Both are slow, and take their data as dicts. They are what the default engine is tested against, and what scores where
it is missing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cissod_bench.scoring.boxes import ALL_AREAS, Detections, GroundTruth, areas, numbered_from_one


def score_with_pycocotools(truth: GroundTruth, found: Detections, max_dets: int) -> NDArray[np.float64]:
    """Return the precision array by COCO's rules (see ``engines.Precision``)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, classes = numbered_from_one(truth)

    def data_set(annotations: list[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {"images": images, "categories": classes, "annotations": annotations}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress unasked
        gt = data_set(_records(truth, iscrowd=truth.crowd, area=areas(truth.boxes)))
        dt = data_set(_records(found, iscrowd=np.zeros_like(found.image), area=areas(found.boxes), score=found.scores))
        scorer = COCOeval(gt, dt, "bbox")
        scorer.params.areaRng, scorer.params.areaRngLbl, scorer.params.maxDets = [ALL_AREAS], ["all"], [max_dets]
        scorer.evaluate()
        scorer.accumulate()
    precision: NDArray[np.float64] = scorer.eval["precision"]
    return precision[:, :, :, 0, 0]


def score_with_lvis_api(truth: GroundTruth, found: Detections, max_dets: int) -> NDArray[np.float64]:
    """Return the precision array by LVIS's federated rules (see ``engines.Precision``)."""
    with surroundings():
        from lvis import LVIS, LVISEval, LVISResults

        def data_set(kind: Any, content: dict[str, Any]) -> Any:
            made = kind.__new__(kind)  # the constructors want a file, and fail where there is no detection
            made.logger, made.dataset = logging.getLogger("lvis"), content
            made._create_index()
            return made

        content = _federated_content(truth)
        gt = data_set(LVIS, content)
        records = _records(found, score=found.scores)
        dt = LVISResults(gt, records, max_dets) if records else data_set(LVISResults, {**content, "annotations": []})
        scorer = LVISEval(gt, dt, "bbox")
        scorer.params.area_rng, scorer.params.area_rng_lbl = [ALL_AREAS], ["all"]
        scorer.evaluate()
        scorer.accumulate()
    precision: NDArray[np.float64] = scorer.eval["precision"]
    return precision[:, :, :, 0]


def _federated_content(truth: GroundTruth) -> dict[str, Any]:
    rules = truth.federated
    assert rules is not None
    images, classes = numbered_from_one(truth)
    return {
        "images": images,
        "categories": [{**category, "frequency": "f"} for category in classes],  # it must have one; groups are ours
        "annotations": _records(truth, area=rules.area, ignore=rules.ignored),
    }


def _records(boxes: GroundTruth | Detections, **columns: NDArray[Any]) -> list[dict[str, Any]]:
    """Return boxes as the dicts of COCO's format, numbered from 1, with a key a column."""
    columns = {"image_id": boxes.image + 1, "category_id": boxes.channel + 1, **columns}
    rows = zip(boxes.boxes.tolist(), *(column.tolist() for column in columns.values()), strict=True)
    return [
        {"id": number, "bbox": box, **dict(zip(columns, row, strict=True))}
        for number, (box, *row) in enumerate(rows, 1)
    ]


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """Give lvis-api 0.5.3 what it expects of its surroundings while the block runs, and then put everything back.

    It needs ``np.float``, which NumPy no longer has. Its import sets up the root logger, and its calls log and warn of
    deprecated methods: neither reaches the user.
    """
    root, own = logging.getLogger(), logging.getLogger("lvis")
    handlers, root_level, own_level = root.handlers[:], root.level, own.level
    alias = vars(np).get("float")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            own.setLevel(logging.CRITICAL + 1)
            vars(np)["float"] = float
            yield
        finally:
            if alias is None:
                del vars(np)["float"]
            else:
                vars(np)["float"] = alias
            own.setLevel(own_level)
            root.setLevel(root_level)
            root.handlers[:] = handlers
