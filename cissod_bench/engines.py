"""The scorers: columns of boxes -> the precision array of COCO's evaluation, by hotcoco (default) or pycocotools.

Both get the same columns with images and classes renumbered 1, 2, ... in the order of their ids and annotations
numbered from 1. That keeps the order pycocotools depends on (ties in score are broken by image id, then by place in the
file), and it avoids two of its traps: an annotation whose id is 0 counts as missed, and ids above 2^53 collide once
they are floats. Areas are those of the boxes; they play no part, because only the area range "all" is accumulated.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import EnvironmentFault, unknown_name

IOU_THRESHOLDS = 10  # .50, .55, ..., .95: COCO's own, which both engines have as their default
_ALL_AREAS = [0.0, 1e10]


@dataclass(frozen=True)
class GroundTruth:
    """Boxes of a validation file as columns; N boxes, I images, K classes.

    Attributes:
        image_ids: int64 (I,), ascending, as in the file.
        class_ids: int64 (K,), ascending, as in the file.
        class_names: K names in the order of ``class_ids``.
        image: int64 (N,), place in ``image_ids``.
        channel: int64 (N,), place in ``class_ids``.
        boxes: float64 (N, 4), x, y, width, height in pixels.
        crowd: bool (N,), regions that neither have to be found nor make a detection wrong.
    """

    image_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    image: NDArray[np.int64]
    channel: NDArray[np.int64]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Detections:
    """A model's boxes as columns in the order of the file, which breaks ties in score; D boxes.

    Attributes:
        image: int64 (D,), place in ``GroundTruth.image_ids``.
        channel: int64 (D,), place in ``GroundTruth.class_ids``.
        boxes: float64 (D, 4), x, y, width, height in pixels.
        scores: float64 (D,), finite.
    """

    image: NDArray[np.int64]
    channel: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


Precision = Callable[[GroundTruth, Detections, int], NDArray[np.float64]]
"""(truth, detections, detections kept an image and class) -> precision (T, R, K): T IoU thresholds, R = 101 recalls,
K classes; every entry of a class without a ground-truth box is -1."""


def _named(truth: GroundTruth) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images = [{"id": number} for number in range(1, len(truth.image_ids) + 1)]
    classes = [{"id": number, "name": str(number)} for number in range(1, len(truth.class_ids) + 1)]
    return images, classes


def _hotcoco(truth: GroundTruth, found: Detections, max_dets: int) -> NDArray[np.float64]:
    import hotcoco

    images, classes = _named(truth)
    gt = hotcoco.COCO.from_arrays(
        images, classes, truth.image + 1, truth.channel + 1, truth.boxes, iscrowd=truth.crowd.astype(np.int64)
    )
    dt = gt.load_res(np.column_stack([found.image + 1.0, found.boxes, found.scores, found.channel + 1.0]))
    scorer = hotcoco.COCOeval(gt, dt, "bbox")
    scorer.params.area_rng, scorer.params.area_rng_lbl, scorer.params.max_dets = [_ALL_AREAS], ["all"], [max_dets]
    scorer.evaluate()
    scorer.accumulate()
    return _only_range(scorer.eval)


def _pycocotools(truth: GroundTruth, found: Detections, max_dets: int) -> NDArray[np.float64]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def data_set(boxes: NDArray[np.float64], **columns: NDArray[Any]) -> Any:
        rows = zip(boxes.tolist(), *(column.tolist() for column in columns.values()), strict=True)
        annotations = [
            {"id": number, "bbox": box, "area": box[2] * box[3], **dict(zip(columns, row, strict=True))}
            for number, (box, *row) in enumerate(rows, 1)
        ]
        coco = COCO()
        coco.dataset = {"images": images, "categories": classes, "annotations": annotations}
        coco.createIndex()
        return coco

    images, classes = _named(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress unasked
        gt = data_set(truth.boxes, image_id=truth.image + 1, category_id=truth.channel + 1, iscrowd=truth.crowd)
        none = np.zeros(len(found.scores), dtype=np.int64)
        dt = data_set(
            found.boxes, image_id=found.image + 1, category_id=found.channel + 1, iscrowd=none, score=found.scores
        )
        scorer = COCOeval(gt, dt, "bbox")
        scorer.params.areaRng, scorer.params.areaRngLbl, scorer.params.maxDets = [_ALL_AREAS], ["all"], [max_dets]
        scorer.evaluate()
        scorer.accumulate()
    return _only_range(scorer.eval)


def _only_range(accumulated: Any) -> NDArray[np.float64]:
    """Return (T, R, K) of the precision array (T, R, K, A, M), which has one area range and one limit of detections."""
    precision: NDArray[np.float64] = np.asarray(accumulated["precision"], dtype=np.float64)
    return precision[:, :, :, 0, 0]


ENGINES: dict[str, Precision] = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}


def load_engine(name: str) -> tuple[Precision, str]:
    """Return a scorer and what records call it, e.g. "hotcoco 1.3.0".

    A hotcoco that is missing or does not load is replaced by pycocotools with a warning: their numbers are equal.

    Raises:
        UsageFault: there is no such engine.
        EnvironmentFault: pycocotools cannot be imported.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    try:
        import_module(name)
    except ImportError as error:
        if name == "pycocotools":
            raise EnvironmentFault(
                f"pycocotools cannot be imported: {error}.", remedy="pip install pycocotools"
            ) from error
        warnings.warn(f"hotcoco cannot be imported ({error}); pycocotools scores instead, slower.", stacklevel=2)
        return load_engine("pycocotools")
    return ENGINES[name], f"{name} {version(name)}"
