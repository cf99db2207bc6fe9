"""Where a detector's maps lie channel by channel, and where pixel by pixel ("channels last")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BOTTLENECKS = 50  # layers from which on mmdet's ResNets have them


def lay_out(model: Any) -> None:
    """Let a model's maps on a CPU lie pixel by pixel where that is faster; the rule, and the only place that knows it.

    Thin layers (timm's depthwise convolutions, ResNets without bottlenecks) win; from ResNet-50 on, the wide RPN loses
    in training what the backbone wins. ``docs/decisions.md`` has the measurement. Convolutions pass on the layout of
    what they are given, so that of the images decides. Weights stay as they are, and on a GPU nothing changes.

    Args:
        model: mmdet's detector with a backbone.
    """
    if getattr(model.backbone, "depth", 0) < _BOTTLENECKS:
        model.backbone.register_forward_pre_hook(_by_pixels)


def _by_pixels(backbone: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (images,) = inputs
    return (images.contiguous(memory_format=torch.channels_last),) if images.device.type == "cpu" else inputs
