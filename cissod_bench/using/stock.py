"""A run's detector in the words of stock mmdet: its settings and weights, with nothing of ours in them."""

from __future__ import annotations

import copy
from typing import Any

from cissod_bench.backbones.timm_networks import levels
from cissod_bench.contract.settings import Settings
from cissod_bench.contract.stock import Stock
from cissod_bench.using.loaded import LoadedRun


def stock_of(run: LoadedRun, *, teacher: bool = True) -> Stock:
    """Return what mmdet builds a run's teacher or student from.

    RoIAlign, NMS, pooling and folded norms of ours compute the same as mmdet's layers of the same weights, so that
    leaving them away is all there is to do. A timm backbone and scores that mmdet does not know become plugins.

    Args:
        run: as loaded.
        teacher: the teacher, else the student.

    Raises:
        UsageFault: the method does not say what it is in a stock detector, or mmdet has none.
    """
    settings = run.plan.settings
    config = copy.deepcopy(run.model)
    config["data_preprocessor"]["pad_size_divisor"] = padding_of(settings)
    model = run.detector.teacher if teacher else run.detector.student
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    detector = Stock(config, state)
    if settings.timm_name:
        config["backbone"] = _timm(settings)
        detector.plugins.append("timm_features")
    return run.detector.parts.stock(detector)


def _timm(settings: Settings) -> dict[str, Any]:
    chosen = [
        place for place, level in enumerate(levels(settings.timm_name)) if level.stride in settings.backbone_strides
    ]
    return {"type": "TimmFeatures", "name": settings.timm_name, "out_indices": chosen}


def padding_of(settings: Settings) -> int:
    """Return what an image's sides are padded to multiples of, pixels.

    A detector with group norm is scored on the square that holds every image (``loading.batches.divisor_of``), which is
    taken to be that of the longest side.
    """
    if settings.norm != "gn" or settings.group_by_aspect:
        return 32
    return -(-settings.long_side // 32) * 32
