"""Build mmdet's models from settings, without changing mmengine's global default scope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cissod_bench.allocator import keep_memory
from cissod_bench.backbones.pretrained import load_backbone, read_weights
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


def build_model(config: dict[str, Any]) -> Any:
    """Return the mmdet model of these settings with its initial weights, those of a pretrained backbone included.

    Raises:
        EnvironmentFault: the pretrained weights can neither be read nor fetched.
        DataFault: they are not the backbone's.
    """
    with quiet_imports():
        import mmdet.models  # noqa: F401  registers the models

        import cissod_bench.detector.assigners  # noqa: F401  registers ours
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    from cissod_bench.detector.cpu_operators import with_cpu_operators
    from cissod_bench.detector.folded_norms import fold_batch_norms

    keep_memory()  # whatever trains or scores builds a detector first: runs, their children, benchmarks, tests
    config = with_cpu_operators(config)
    backbone = dict(config["backbone"])
    if backbone.get("init_cfg", {}).get("type") == "Pretrained":
        weights = read_weights(backbone.pop("init_cfg")["checkpoint"])
    else:
        weights = None
    with DefaultScope.overwrite_default_scope(_SCOPE), _without_init_report():
        model = MODELS.build(ConfigDict({**config, "backbone": backbone}))
        if weights is not None:  # mmengine would load what fits and pass over the rest
            load_backbone(model.backbone, weights)
            model.backbone.init_weights = lambda: None
        model.init_weights()
    if weights is not None:
        del model.backbone.init_weights
    fold_batch_norms(model.backbone)
    return model
