"""Max pooling on a CPU, computed pixel by pixel, which torch does several values at once there.

Values, gradients and which of equal pixels is taken are those of `torch.nn.MaxPool2d`.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

Window: TypeAlias = tuple[Any, Any, Any, Any, bool]
"""Kernel, stride, padding, dilation and whether the last window may be cut off, as torch has them."""


def pool_by_pixels(backbone: nn.Module) -> None:
    """Let a backbone's plain max pooling layers work pixel by pixel on a CPU."""
    for layer in backbone.modules():
        if type(layer) is nn.MaxPool2d and not layer.return_indices:
            layer.__class__ = MaxPoolByPixels


class MaxPoolByPixels(nn.MaxPool2d):
    """A layer that changes the layout of maps in float32 on a CPU and back; it is what it was for all others."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the largest value of every window, shape (B, C, rows, columns)."""
        if input.device.type != "cpu" or input.dtype != torch.float32 or not input.is_contiguous():
            usual: Tensor = super().forward(input)
            return usual
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return cast(Tensor, _Pooled.apply(input, window))  # type: ignore[no-untyped-call]


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, window: Window) -> Tensor:
        by_pixels = maps.contiguous(memory_format=torch.channels_last)
        largest, places = torch.ops.aten.max_pool2d_with_indices(by_pixels, *_lists(window))
        ctx.window = window
        ctx.save_for_backward(maps, places.contiguous())
        pooled: Tensor = largest.contiguous()
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        maps, places = ctx.saved_tensors
        spread = torch.ops.aten.max_pool2d_with_indices_backward
        return spread(gradient.contiguous(), maps, *_lists(ctx.window), places), None


def _lists(window: Window) -> tuple[Any, ...]:
    """Return a window as torch's operators take it."""
    *sizes, cut = window
    return *([size] * 2 if isinstance(size, int) else list(size) for size in sizes), cut
