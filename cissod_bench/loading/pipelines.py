"""Build the transforms of a view from settings, without changing mmengine's global default scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cissod_bench.quiet import quiet_imports

_SCOPE = "mmdet"  # where bare names such as "Resize" are looked up


def build_transforms(config: Sequence[dict[str, Any]], *, quick: bool = True) -> Any:
    """Return the composed transforms of these settings, mmdet's and ours (``transforms``) by their names.

    Args:
        config: as `loading.views.pipeline` returns it.
        quick: whether mmdet's are replaced by ours of the same names (``quick``), where there are some, which do the
            same in less time.
    """
    with quiet_imports():
        import mmdet.datasets.transforms  # noqa: F401  registers mmdet's

        import cissod_bench.loading.transforms  # noqa: F401  registers ours
    from mmdet.registry import TRANSFORMS
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    from cissod_bench.loading.quick import QUICK

    with DefaultScope.overwrite_default_scope(_SCOPE):
        steps = [_replaced(settings, QUICK) for settings in config] if quick else config
        return Compose([TRANSFORMS.build(settings) for settings in steps])


def _replaced(settings: Any, by: Mapping[str, type]) -> Any:
    """Return settings of a transform, or lists of them, with names in ``by`` replaced; those of ``transforms`` too."""
    if isinstance(settings, list):
        return [_replaced(inner, by) for inner in settings]
    inner = {"transforms": _replaced(settings["transforms"], by)} if "transforms" in settings else {}
    return settings | inner | {"type": by.get(settings["type"], settings["type"])}
