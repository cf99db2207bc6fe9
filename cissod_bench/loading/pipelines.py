"""Build the transforms of a view from settings, without changing mmengine's global default scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cissod_bench.quiet import quiet_imports

_SCOPE = "mmdet"  # where bare names such as "Resize" are looked up


def build_transforms(config: Sequence[dict[str, Any]]) -> Any:
    """Return the composed transforms of these settings, mmdet's and ours (``transforms``) by their names."""
    with quiet_imports():
        import mmdet.datasets.transforms  # noqa: F401  registers mmdet's

        import cissod_bench.loading.transforms  # noqa: F401  registers ours
    from mmdet.registry import TRANSFORMS
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(_SCOPE):
        return Compose([TRANSFORMS.build(settings) for settings in config])
