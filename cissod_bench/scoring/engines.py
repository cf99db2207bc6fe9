"""Which scorer answers to which name and metric: columns of boxes -> the precision array of its evaluation.

hotcoco (default) scores by COCO's and by LVIS's rules; pycocotools is the reference for the first, lvis-api for the
second. Their numbers are equal, which tests hold them to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from cissod_bench.errors import EnvironmentFault, UsageFault, unknown_name
from cissod_bench.scoring import hotcoco as hotcoco_engine
from cissod_bench.scoring import references as reference_engines
from cissod_bench.scoring.boxes import Detections, GroundTruth
from cissod_bench.scoring.points import AP

Precision = Callable[[GroundTruth, Detections, int], NDArray[np.float64]]
"""(truth, detections, detections kept) -> precision (T, R, K) for T = 10 IoU thresholds .50, .55, ..., .95, R = 101
recalls 0, .01, ..., 1 and K classes; every entry of a class without a ground-truth box is -1. The best-scored
detections are kept: of an image and class by COCO's rules, of an image over all classes by LVIS's."""

ENGINES: Mapping[str, Mapping[str, Precision]] = {
    "coco": {"hotcoco": hotcoco_engine.score_coco, "pycocotools": reference_engines.score_with_pycocotools},
    "lvis": {"hotcoco": hotcoco_engine.score_lvis, "lvis": reference_engines.score_with_lvis_api},
}
"""Metric -> engine -> scorer."""

REFERENCES = {"coco": "pycocotools", "lvis": "lvis"}


def mean_points(values: NDArray[np.float64]) -> AP:
    """Return the mean in points over the entries of an evaluation's array that are defined; -1 marks the others."""
    defined = values[values > -1]
    return 100 * float(defined.mean()) if defined.size else None


def load_engine(name: str, metric: str = "coco") -> tuple[Precision, str]:
    """Return a scorer and what records call it, e.g. "hotcoco 1.3.0".

    A hotcoco that is missing or does not load is replaced by the metric's reference engine with a warning.

    Raises:
        UsageFault: there is no such engine or metric, or the engine does not know the metric's rules.
        EnvironmentFault: a reference engine cannot be imported.
    """
    if metric not in ENGINES:
        raise unknown_name("metric", metric, ENGINES)
    known = ENGINES[metric]
    if name not in known:
        everywhere = {engine for engines in ENGINES.values() for engine in engines}
        if name not in everywhere:
            raise unknown_name("engine", name, everywhere)
        raise UsageFault(
            f"The engine {name!r} does not know the rules of the metric {metric!r}.",
            remedy=f"take --engine {' or '.join(known)}",
        )
    try:
        with reference_engines.surroundings() if name == "lvis" else nullcontext():
            import_module(name)
    except ImportError as error:
        if name == "hotcoco":
            instead = REFERENCES[metric]
            warnings.warn(f"hotcoco cannot be imported ({error}); {instead} scores instead, slower.", stacklevel=2)
            return load_engine(instead, metric)
        raise EnvironmentFault(f"{name} cannot be imported: {error}.", remedy=f"pip install {name}") from error
    return known[name], f"{name} {version(name)}"
