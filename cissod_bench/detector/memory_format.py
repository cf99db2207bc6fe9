"""Where a detector's maps lie channel by channel, and where pixel by pixel ("channels last")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def lay_out(model: Any) -> None:
    """Let a model's maps on a CPU lie pixel by pixel where that is faster; the rule, and the only place that knows it.

    Backbones with depthwise convolutions win; plain ResNets do not. ``docs/decisions.md`` has the measurement. Layers
    pass on the layout of what they are given, so that of the images decides, for FPN and heads, too. Weights that are
    trained stay as they are; those of a backbone that is frozen as a whole are laid out once, too, and weights that are
    loaded later keep that. Images on a GPU stay as they are.

    Args:
        model: mmdet's detector with a backbone.
    """
    convolutions = [layer for layer in model.backbone.modules() if isinstance(layer, nn.Conv2d)]
    if any(layer.groups == layer.in_channels > 1 for layer in convolutions):
        model.backbone.register_forward_pre_hook(_by_pixels)
        model.data_preprocessor.memory_format = torch.channels_last  # so that images need not be laid out again
        if not any(parameter.requires_grad for parameter in model.backbone.parameters()):
            model.backbone.to(memory_format=torch.channels_last)


def format_of(preprocessor: Any, device: torch.device) -> torch.memory_format:
    """Return how the images lie that a model's preprocessor makes on a device."""
    chosen: torch.memory_format = getattr(preprocessor, "memory_format", torch.contiguous_format)
    return chosen if device.type == "cpu" else torch.contiguous_format


def _by_pixels(backbone: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (images,) = inputs
    return (images.contiguous(memory_format=torch.channels_last),) if images.device.type == "cpu" else inputs
