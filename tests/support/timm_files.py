"""Backbones of timm for tests: its smallest network, with random weights in a file."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectors import TINY
from torch import Tensor

from cissod_bench.backbones.packaged import PACKAGED
from cissod_bench.backbones.timm_networks import timm
from cissod_bench.contract.settings import Settings

NETWORK = "test_efficientnet"  # 82,300 weights
LITE0 = PACKAGED["efficientnet-lite0"]

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
_PACKAGES = [one.module for one in PACKAGED.values() if not one.ours]
needs_lites = pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in ("timm", *_PACKAGES)),
    reason=f"one of timm, {', '.join(_PACKAGES)} is not installed",
)


def random_state(name: str = NETWORK) -> dict[str, Tensor]:
    """A whole network's weights with batch norms as after a training."""
    torch.manual_seed(3)
    state: dict[str, Tensor] = timm().create_model(name, pretrained=False).state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1 and value.is_floating_point():
            value.normal_(1.0 if key.endswith("weight") else 0.0, 0.1)
    return state


def saved_network(folder: Path, name: str = NETWORK) -> Path:
    torch.save(random_state(name), folder / f"{name}.pth")
    return folder / f"{name}.pth"


def changes(path: Path) -> tuple[str, ...]:
    """What puts a network in place of the smoke preset's ResNet."""
    return (
        f"backbone=timm:{NETWORK}", f"pretrained={path}", "norm=frozen-bn", "frozen_stages=4", "strides=8,16,32,64",
    )  # fmt: skip


def settings(path: Path, **more: object) -> Settings:
    given = {
        "backbone": f"timm:{NETWORK}", "pretrained": str(path), "norm": "frozen-bn", "frozen_stages": 4,
        "strides": (8, 16, 32, 64), **more,
    }  # fmt: skip
    return replace(TINY, **given)  # type: ignore[arg-type]
