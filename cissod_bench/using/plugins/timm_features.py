"""A backbone of timm for mmdet: the features of some of a network's stages.

Written by ``cissod-bench export`` beside the settings of a detector; it needs timm, mmdet and torch alone.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn


class _AnyClass(type):
    def __getattr__(cls, name: str) -> Any:
        return name if not name.startswith("__") else super().__getattribute__(name)


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _AnyClass(name, (), {}) if not name.startswith("__") else super().__getattribute__(name)


class _StandIns(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        is_named = fullname.partition(".")[0] == "torchvision"
        return ModuleSpec(fullname, self, is_package=True) if is_named else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: every name that is asked for is there."""


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _timm() -> Any:
    """Return timm, which imports torchvision for its own reading of images only: stand-ins do where there is none."""
    try:
        importlib.import_module("torchvision")
    except Exception:
        _forget()
        finder = _StandIns()
        sys.meta_path.insert(0, finder)
        try:
            return importlib.import_module("timm")
        finally:
            sys.meta_path.remove(finder)
            _forget()
    return importlib.import_module("timm")


@MODELS.register_module(force=True)
class TimmFeatures(nn.Module):
    """Features of a timm network.

    Args:
        name: timm's.
        out_indices: of its levels, from fine to coarse.
        init_cfg: of mmdet; passed over.
    """

    def __init__(self, name: str, out_indices: Sequence[int], init_cfg: Any = None) -> None:
        super().__init__()
        options = {"pretrained": False, "features_only": True, "out_indices": tuple(out_indices)}
        self.net = _timm().create_model(name, **options)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor per level, (B, C, H, W), of normalised images (B, 3, H, W)."""
        return tuple(self.net(images))
