"""Build mmdet's models from settings, without changing mmengine's global default scope."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cissod_bench.allocator import keep_memory
from cissod_bench.backbones.pretrained import Weights, load_backbone, read_weights
from cissod_bench.backbones.timm_weights import TimmWeights, load_timm, timm_weights
from cissod_bench.quiet import quiet_imports

_SCOPE = "mmdet"  # where bare names such as "ResNet" are looked up


@contextmanager
def _without_init_report() -> Iterator[None]:
    """Keep mmengine from printing the initialisation of every weight, three lines each."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _weights(backbone: dict[str, Any], named: str) -> Weights | TimmWeights:
    if backbone["type"] == "TimmBackbone":
        return timm_weights(backbone["name"], backbone["strides"], named)
    return read_weights(named)


def _load(backbone: Any, weights: Weights | TimmWeights) -> None:
    if isinstance(weights, TimmWeights):
        load_timm(backbone.net, weights)
    else:
        load_backbone(backbone, weights)


def build_model(config: dict[str, Any]) -> Any:
    """Return the mmdet model of these settings with its initial weights, those of a pretrained backbone included.

    Raises:
        EnvironmentFault: the pretrained weights can neither be read nor fetched.
        DataFault: they are not the backbone's.
    """
    with quiet_imports():
        import mmdet.models  # noqa: F401  registers the models

        import cissod_bench.detector.assigners
        import cissod_bench.detector.timm_backbone  # noqa: F401  registers ours
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    from cissod_bench.detector.cpu_operators import with_cpu_operators
    from cissod_bench.detector.folded_norms import fold_batch_norms
    from cissod_bench.detector.max_pool import pool_by_pixels
    from cissod_bench.detector.memory_format import lay_out

    keep_memory()  # whatever trains or scores builds a detector first: runs, their children, benchmarks, tests
    config = with_cpu_operators(config)
    backbone = dict(config["backbone"])
    weights = None
    if backbone.get("init_cfg", {}).get("type") == "Pretrained":
        weights = _weights(backbone, backbone.pop("init_cfg")["checkpoint"])
    with DefaultScope.overwrite_default_scope(_SCOPE), _without_init_report():
        model = MODELS.build(ConfigDict({**config, "backbone": backbone}))
        if weights is not None:  # mmengine would load what fits and pass over the rest
            _load(model.backbone, weights)
            model.backbone.init_weights = lambda: None
        model.init_weights()
    if weights is not None:
        del model.backbone.init_weights
    fold_batch_norms(model.backbone)
    pool_by_pixels(model.backbone)
    lay_out(model)
    return model


def teacher_of(student: Any) -> Any:
    """Return a student's copy, which is not trained; a backbone of which nothing is trained is the same for both.

    Args:
        student: an mmdet model.
    """
    backbone = student.backbone
    trained = any(parameter.requires_grad for parameter in backbone.parameters())
    teacher = copy.deepcopy(student, None if trained else {id(backbone): backbone})
    return teacher.requires_grad_(False)
