"""Weights of ResNets as other programs write them, small and with random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import TINY
from mmdet.models.backbones import ResNet
from torch import Tensor

from cissod_bench.backbones.pretrained import backbone_of
from cissod_bench.contract.settings import Settings
from cissod_bench.errors import BenchError, DataFault

CHANNELS = 8
STATE = dict[str, Tensor]
SETTINGS = replace(TINY, base_channels=CHANNELS, depth=18, norm="frozen-bn", frozen_stages=1, pretrained="")
"""Of a detector whose backbone is frozen as that of preset `full`."""


def fresh(depth: int = 18, channels: int = CHANNELS, norm: str = "BN") -> STATE:
    """A ResNet that was never trained."""
    torch.manual_seed(depth)
    cfg = {"type": norm, **({"num_groups": 8} if norm == "GN" else {})}
    return ResNet(depth, base_channels=channels, stem_channels=channels, norm_cfg=cfg).state_dict()


def torchvision(depth: int = 18, channels: int = CHANNELS) -> STATE:
    """Trained batch norms, a stem for images of deviation 1, a classifier."""
    state = fresh(depth, channels)
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1 and value.is_floating_point():
            value.uniform_(0.1, 0.4) if name.endswith("weight") else value.normal_(0, 0.1)
    state["conv1.weight"].normal_(0, 0.13)
    return {**state, "fc.weight": torch.randn(1000, 8), "fc.bias": torch.randn(1000)}


def caffe(depth: int = 18, channels: int = CHANNELS) -> STATE:
    """Batch norms folded into scale and shift, a stem for plain pixels, no counters."""
    state = {name: value for name, value in torchvision(depth, channels).items() if not name.startswith("fc.")}
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.zero_()
        elif name.endswith("running_var"):
            value.fill_(1)
    state["bn1.weight"].div_(58)
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def below(part: str, state: Mapping[str, Tensor]) -> STATE:
    """The state as a part of something larger, which has other layers, too."""
    return {**{f"{part}{name}": value for name, value in state.items()}, "neck.conv.weight": torch.ones(1)}


def detectron2(state: Mapping[str, Tensor]) -> STATE:
    """The state under detectron2's names."""
    found = {}
    for name, value in state.items():
        layer, _, rest = name.partition(".")
        norms = {f"bn{i}.": f"conv{i}.norm." for i in (1, 2, 3)}
        for old, new in {"downsample.0.": "shortcut.", "downsample.1.": "shortcut.norm.", **norms}.items():
            rest = rest.replace(old, new)
            name = name.replace(old, new) if layer == "bn1" else name
        found[f"stem.{name}" if layer in ("conv1", "bn1") else f"res{int(layer[5:]) + 1}.{rest}"] = value
    return {f"backbone.bottom_up.{name}": value for name, value in found.items()}


def neither() -> STATE:
    """Trained batch norms; a stem between both kinds."""
    state = torchvision()
    state["bn1.weight"].div_(6)
    return state


MAKERS: Mapping[str, Callable[..., STATE]] = {"caffe": caffe, "torchvision": torchvision}


def training_log() -> Any:
    """What mmengine's checkpoints hold besides weights."""
    from mmengine.logging.history_buffer import HistoryBuffer

    return {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}}


def saved(folder: Path, content: Any, name: str = "backbone.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def with_file(path: Path | str, **changes: Any) -> Settings:
    return replace(SETTINGS, pretrained=str(path), **changes)


def fault_of(settings: Settings) -> BenchError:
    with pytest.raises(DataFault) as fault:
        backbone_of(settings)
    assert fault.value.remedy
    return fault.value
