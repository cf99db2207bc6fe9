"""Backbones of the package timm: their pyramid of features, and what of it is frozen.

timm imports torchvision, for its own reading of images only. Where torchvision is missing or was built for another
torch (pip has it for CUDA alone), stand-ins take its names while timm is imported, and are taken away again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cissod_bench.backbones.packaged import install_command
from cissod_bench.errors import DataFault, EnvironmentFault, UsageFault, did_you_mean
from cissod_bench.quiet import quiet_imports

_STANDS_FOR = "torchvision"


class _AnyClass(type):
    def __getattr__(cls, name: str) -> Any:
        return name if not name.startswith("__") else super().__getattribute__(name)


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _AnyClass(name, (), {}) if not name.startswith("__") else super().__getattribute__(name)


class _StandIns(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        named = fullname.partition(".")[0] == _STANDS_FOR
        return ModuleSpec(fullname, self, is_package=True) if named else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: every name that is asked for is there."""


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == _STANDS_FOR]:
        del sys.modules[name]


@contextmanager
def _torchvision() -> Iterator[None]:
    """Let torchvision be imported, itself or a stand-in."""
    try:
        importlib.import_module(_STANDS_FOR)
    except Exception:  # missing, or a RuntimeError of one that does not go with this torch
        _forget()
        finder = _StandIns()
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            _forget()
    else:
        yield


@cache
def timm() -> Any:
    """Return the package.

    Raises:
        EnvironmentFault: it is not installed, or cannot be imported.
    """
    try:
        with quiet_imports(), _torchvision():
            return importlib.import_module("timm")
    except Exception as error:
        words = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise EnvironmentFault(
            f"A backbone of timm needs the package timm, which cannot be imported ({words}).",
            remedy=f"make setup, or {install_command()}",
        ) from error


@dataclass(frozen=True)
class Level:
    """One level of a network's features.

    Attributes:
        stride: pixels of the image a step.
        channels: of its features.
        module: whose output it is, as timm names it.
    """

    stride: int
    channels: int
    module: str


@cache
def levels(name: str) -> tuple[Level, ...]:
    """Return the levels of a network's features, from fine to coarse.

    Args:
        name: timm's, without weights.

    Raises:
        UsageFault: timm has no such network.
        DataFault: it has no pyramid of features.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # no random number of the run is used up
        info = _created(name, {}).feature_info
    columns = zip(info.reduction(), info.channels(), info.module_name(), strict=True)
    return tuple(Level(*column) for column in columns)


def channels_at(name: str, strides: Sequence[int]) -> list[int]:
    """Return the channels of a network's features at some strides.

    Args:
        name: timm's.
        strides: pixels.

    Raises:
        UsageFault: timm has no such network.
        DataFault: it has no features of one of the strides.
    """
    known = {level.stride: level.channels for level in levels(name)}
    if missing := [stride for stride in strides if stride not in known]:
        raise DataFault(
            f"{name} has no features of stride {', '.join(map(str, missing))}; it has {', '.join(map(str, known))}.",
            remedy="--set strides=8,16,32,64 leaves out stride 4; or --set backbone=timm:tf_efficientnet_lite0",
        )
    return [known[stride] for stride in strides]


def network(name: str, strides: Sequence[int]) -> nn.Module:
    """Return a network with random weights that gives its features at some strides.

    Args:
        name: timm's.
        strides: pixels, rising.
    """
    channels_at(name, strides)
    chosen = [place for place, level in enumerate(levels(name)) if level.stride in strides]
    net: nn.Module = _created(name, {"out_indices": chosen})
    return net


def _created(name: str, options: dict[str, Any]) -> Any:
    package = timm()
    if not package.is_model(name):
        near = get_close_matches(name, package.list_models(), n=3, cutoff=0.5)  # there are more than a thousand
        raise UsageFault(
            f"timm has no network {name!r}.{did_you_mean(near)}", remedy="--set backbone=timm:tf_efficientnet_lite0"
        )
    try:
        return package.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, AssertionError, AttributeError, TypeError, KeyError) as error:
        words = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataFault(
            f"{name} gives no pyramid of features ({words}).", remedy="--set backbone=timm:tf_efficientnet_lite0"
        ) from error


def frozen_modules(net: nn.Module, name: str, stages: int) -> list[nn.Module]:
    """Return the modules that a number of frozen stages means: all that leads to the features of a stride.

    Args:
        net: as `network` returns it.
        name: timm's.
        stages: -1 none, 0 up to stride 2 (the stem), 1 to 4 up to stride 4, 8, 16, 32, as those of a ResNet.
    """
    ends = [level.module for level in levels(name) if level.stride <= 2 ** (stages + 1)]
    if stages >= 4:
        return list(net.modules())[1:]
    named = dict(net.named_modules())
    end = next((own for own in (ends[-1], ends[-1].replace(".", "_")) if own in named), "") if ends else ""
    if not end:
        return []
    order = list(named)  # as they are run, a whole before its parts
    last = max(place for place, own in enumerate(order) if own == end or own.startswith(f"{end}."))
    opened = {end[:place] for place in range(len(end)) if end[place] == "."}  # wholes of which only a part is frozen
    return [named[own] for own in order[: last + 1] if own and own not in opened]
