"""AP by the size of objects and AR by the number of detections, as COCO's own summary has them, for class groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cissod_bench.scoring.boxes import ALL_AREAS, Detections, GroundTruth
from cissod_bench.scoring.engines import mean_points
from cissod_bench.scoring.hotcoco import evaluate_coco
from cissod_bench.scoring.points import AP

SMALL, LARGE = 32.0**2, 96.0**2
"""px²: COCO's ends of small and medium objects; a stated area counts, of a mask too, else the box's."""

MEASURES = ("AP small", "AP medium", "AP large", "AR 1", "AR 10", "AR 100")
"""AP by size, and the mean of the recalls at IoU .50:.05:.95 with so many detections per image and class."""

_LIMITS = (1, 10, 100)
_RANGES = (
    (ALL_AREAS[0], ALL_AREAS[1]),
    (ALL_AREAS[0], SMALL),
    (SMALL, LARGE),
    (LARGE, ALL_AREAS[1]),
)


def by_size(truth: GroundTruth, found: Detections, columns: Mapping[str, Sequence[int]]) -> dict[str, dict[str, AP]]:
    """Return measure -> column -> points, 0-100; None where the column's classes have no box of that size.

    Args:
        truth: the boxes.
        found: all detections.
        columns: column -> its channels.
    """
    precision, recall = evaluate_coco(truth, found, _RANGES, _LIMITS)
    last = len(_LIMITS) - 1
    cuts = [precision[:, :, :, size, last] for size in (1, 2, 3)] + [recall[:, :, 0, limit] for limit in range(3)]
    return {
        measure: {column: mean_points(cut[..., list(channels)]) for column, channels in columns.items()}
        for measure, cut in zip(MEASURES, cuts, strict=True)
    }
