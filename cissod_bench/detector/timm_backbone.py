"""A backbone of timm as mmdet's detectors use it: features level by level, what is frozen without a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from cissod_bench.backbones.timm_networks import frozen_modules, network


@MODELS.register_module()
class TimmBackbone(nn.Module):
    """Features of a timm network at some strides.

    Batch norms always use their own statistics and are not trained. What is frozen stays in evaluation mode; where all
    of it is, nothing is kept for a backward pass.

    Args:
        name: timm's.
        strides: of the features, pixels.
        frozen_stages: as the setting.

    Attributes:
        whole: all of it is frozen, so that a student and its teacher may share it.
    """

    def __init__(self, name: str, strides: Sequence[int], frozen_stages: int) -> None:
        super().__init__()
        self.net = network(name, strides)
        self.frozen_stages = frozen_stages
        self._still = frozen_modules(self.net, name, frozen_stages)
        self._still += [module for module in self.net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for module in self._still:
            module.requires_grad_(False)
        self.whole = not any(parameter.requires_grad for parameter in self.net.parameters())
        self.train()

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set the mode of what is trained."""
        super().train(mode and not self.whole)
        for module in self._still:
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features (B, C, H, W), one tensor a stride, of normalised images (B, 3, H, W)."""
        if not self.whole:
            return tuple(self.net(images))
        with torch.no_grad():
            return tuple(self.net(images))
