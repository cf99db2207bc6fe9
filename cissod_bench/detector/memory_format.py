"""Where a detector's maps lie channel by channel, and where pixel by pixel ("channels last")."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.backbones.resnet import BasicBlock
from torch import Tensor, nn

_FEWEST_CHANNELS = 16  # of a convolution of single pixels with a stride; see `_is_miscomputed`


def lay_out(model: Any) -> None:
    """Let a model's maps on a CPU lie pixel by pixel where that is faster; the rule, and the only place that knows it.

    Backbones with depthwise convolutions win, and small ResNets (of basic blocks: depths 18 and 34); ResNet-50 and
    larger ones do not. Backbones whose gradients torch would then miscompute stay as they are. ``docs/decisions.md``
    has the measurements. Layers pass on the layout of what they are given, so that of the images decides, for FPN and
    heads, too. The weights of small ResNets and of backbones that are frozen as a whole are laid out once, too, and
    weights that are loaded later keep that; others stay as they are. Images on a GPU stay as they are, and so do
    weights that are trained there (`usual_on_gpus`).

    Args:
        model: mmdet's detector with a backbone.
    """
    backbone = model.backbone
    convolutions = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    small = any(isinstance(layer, BasicBlock) for layer in backbone.modules())
    if any(_is_miscomputed(layer) for layer in convolutions):
        return
    if small or any(layer.groups == layer.in_channels > 1 for layer in convolutions):
        backbone.register_forward_pre_hook(_by_pixels)
        model.data_preprocessor.memory_format = torch.channels_last  # so that images need not be laid out again
        if small or not _is_trained(backbone):
            backbone.to(memory_format=torch.channels_last)


def usual_on_gpus(student: Any, teacher: Any, device: torch.device) -> None:
    """Give backbones that are trained on a GPU the usual layout: no GPU has been measured with another one.

    Args:
        student: as for `lay_out`.
        teacher: its copy, of which nothing is trained.
        device: where both are going.
    """
    if device.type != "cpu" and _is_trained(student.backbone):
        for model in (student, teacher):
            model.backbone.to(memory_format=torch.contiguous_format)


def _is_miscomputed(layer: nn.Conv2d) -> bool:
    """Tell whether torch's gradient of a convolution's weights would write beyond its memory, pixel by pixel.

    oneDNN's of torch 2.13 does so with two threads or more: 1 x 1, stride 2, fewer than 16 channels.
    """
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < _FEWEST_CHANNELS


def _is_trained(backbone: Any) -> bool:
    return any(parameter.requires_grad for parameter in backbone.parameters())


def format_of(preprocessor: Any, device: torch.device) -> torch.memory_format:
    """Return how the images lie that a model's preprocessor makes on a device."""
    chosen: torch.memory_format = getattr(preprocessor, "memory_format", torch.contiguous_format)
    return chosen if device.type == "cpu" else torch.contiguous_format


def _by_pixels(backbone: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (images,) = inputs
    return (images.contiguous(memory_format=torch.channels_last),) if images.device.type == "cpu" else inputs
