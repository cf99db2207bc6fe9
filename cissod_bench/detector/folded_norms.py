"""Batch norm that does not learn, computed by the convolution before it.

    (conv(x, W) + b - mean) s + beta  =  conv(x, W s) + (beta + (b - mean) s),      s = gamma / sqrt(var + eps)

What is replaced is the computation. Modules, parameters, buffers and their names stay, so checkpoints, the teacher's
average, the optimiser and strict loading know nothing of it; values and gradients are equal up to rounding. Autograd
keeps one map per layer less. What that gains is in ``docs/decisions.md``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_LOOKED_AT = 64  # side of the empty image that shows which norm follows which convolution, pixels
_WITH_ACTIVATION = ("BatchNormAct2d", "FrozenBatchNormAct2d")  # timm's: they norm, drop and activate


class FoldedConv2d(nn.Conv2d):
    """A convolution that does the work of the norm after it, whenever that norm is still; see `is_still`.

    Attributes:
        norm: the norm; it is no child, so that its weights keep the names they had.
    """

    norm: Any

    def forward(self, input: Tensor) -> Tensor:
        """Return the normed output where the norm is still, else the convolution's own."""
        output: Tensor = self._conv_forward(input, *self.folded()) if is_still(self.norm) else super().forward(input)
        return output

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return W s, shape of the weight, and what is added per channel, shape (channels,).

        They are kept as long as nothing they follow from is trained or changed.
        """
        norm = self.norm
        names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        parts = [self.weight, self.bias, *(getattr(norm, name, None) for name in names)]
        sources = [part for part in parts if part is not None]
        if any(source.requires_grad for source in sources):  # fused optimisers change weights without counting it
            return _folded(self, norm)
        # Training a norm writes its statistics uncounted, too, but counts the batches.
        marks = [(source.data_ptr(), source._version) for source in sources]
        kept = self.__dict__.get("kept")
        if kept is None or kept[0] != marks:
            with torch.no_grad():
                kept = self.__dict__["kept"] = marks, _folded(self, norm)
        pair: tuple[Tensor, Tensor] = kept[1]
        return pair

    def _apply(self, fn: Any, recurse: bool = True) -> FoldedConv2d:
        """Forget what is kept: the weights move to another device or type."""
        for name in ("kept", "longer"):
            self.__dict__.pop(name, None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class FoldedConv2dSame(FoldedConv2d):
    """Likewise for timm's convolution with TensorFlow's padding: what is odd of it goes right and below.

    No convolution of torch pads one side more than the other. So the map has to be copied with its padding, or the
    kernel gets a first row and column of zeros: it then begins a pixel earlier and pads both sides alike. Not a bit
    changes. On a CPU a depthwise kernel that is kept so takes half the time of the copy, and none of its memory.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normed output of the padded input where the norm is still, else the convolution's own."""
        down, across = (self._pads(side, input.shape[2 + side]) for side in (0, 1))
        plain = self.dilation == (1, 1) and self.groups > 1  # a dense kernel gets slower by the zeros
        if plain and input.device.type == "cpu" and is_still(self.norm):
            weight, bias = self.folded()
            if not weight.requires_grad:
                longer = self._longer(weight, (down[1] - down[0], across[1] - across[0]))
                ends = (down[1], across[1])
                return nn.functional.conv2d(input, longer, bias, self.stride, ends, groups=self.groups)
        return super().forward(nn.functional.pad(input, (*across, *down)))

    def _pads(self, side: int, size: int) -> tuple[int, int]:
        """Return what is padded before and behind a map of this size along a side, 0 down and 1 across."""
        reach, stride = self.dilation[side] * (self.kernel_size[side] - 1) + 1, self.stride[side]
        whole = max((-(-size // stride) - 1) * stride + reach - size, 0)
        return whole // 2, whole - whole // 2

    def _longer(self, weight: Tensor, begins: tuple[int, int]) -> Tensor:
        """Return a weight with rows and columns of zeros in front of it; that of the last call is kept."""
        kept = self.__dict__.get("longer")
        if kept is None or kept[0] is not weight or kept[1] != begins:
            longer = nn.functional.pad(weight, (begins[1], 0, begins[0], 0))
            kept = self.__dict__["longer"] = weight, begins, longer
        found: Tensor = kept[2]
        return found


def _folded_conv(conv: nn.Module) -> type[FoldedConv2d] | None:
    """Return the class that folds a norm into a convolution of this one, None where there is none."""
    kind = type(conv)
    if kind is nn.Conv2d:
        return FoldedConv2d
    same = kind.__name__ == "Conv2dSame" and kind.__module__.startswith("timm.")
    return FoldedConv2dSame if same else None


def _folded(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias with its norm in them, see the module."""
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = (-norm.running_mean if conv.bias is None else conv.bias - norm.running_mean) * scale
    return conv.weight * scale[:, None, None, None], shift if norm.bias is None else shift + norm.bias


def is_still(norm: Any) -> bool:
    """Tell whether a norm computes with fixed numbers: it is in evaluation mode, and no gradient is asked of it."""
    learning = torch.is_grad_enabled() and any(
        part is not None and part.requires_grad for part in (norm.weight, norm.bias)
    )
    moving = isinstance(norm, nn.BatchNorm2d) and (norm.training or norm.running_mean is None)
    return not learning and not moving


@cache
def _folded_kind(kind: Any) -> Any:
    """Return a norm's class whose norming the convolution has done, where `is_still` says so."""

    class Folded(kind):  # type: ignore[misc]
        def forward(self, input: Tensor) -> Any:
            if not is_still(self):
                return super().forward(input)
            return input if kind is nn.BatchNorm2d else self.act(self.drop(input))

    Folded.__name__ = Folded.__qualname__ = f"Folded{kind.__name__}"
    return Folded


def _known(norm: nn.Module) -> bool:
    kind = type(norm)
    return kind is nn.BatchNorm2d or (kind.__name__ in _WITH_ACTIVATION and kind.__module__.startswith("timm."))


def fold_batch_norms(backbone: nn.Module) -> int:
    """Let a backbone's plain convolutions do the work of the batch norm right after them; return how many do.

    Args:
        backbone: takes images (B, 3, H, W); mmdet's or timm's. Nothing but the norm may read its convolutions' outputs.
    """
    pairs = _pairs(backbone) if any(_known(module) for module in backbone.modules()) else []
    for conv, norm in pairs:
        conv.__dict__["norm"] = norm  # as a plain attribute it would be a child
        conv.__class__ = _folded_conv(conv) or FoldedConv2d
        kind: Any = type(norm)
        norm.__class__ = _folded_kind(kind)
    return len(pairs)


@torch.no_grad()
def _pairs(backbone: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Return convolutions with the norm that takes their output, both used once, as a pass of an empty image shows."""
    made: list[tuple[nn.Conv2d, Tensor]] = []
    taken: list[tuple[nn.Module, Tensor]] = []
    hooks = []
    for module in backbone.modules():
        if _folded_conv(module) is not None:
            hooks.append(module.register_forward_hook(lambda conv, _, output: made.append((conv, output))))
        elif _known(module):
            hooks.append(module.register_forward_pre_hook(lambda norm, inputs: taken.append((norm, inputs[0]))))
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()  # so that nothing is drawn and no statistic moves
    parameter = next(backbone.parameters())
    backbone(parameter.new_zeros(1, 3, _LOOKED_AT, _LOOKED_AT))
    for module, mode in modes:
        module.training = mode
    for hook in hooks:
        hook.remove()
    once = [conv for conv, _ in made], [norm for norm, _ in taken]
    norm_of = {id(content): norm for norm, content in taken if once[1].count(norm) == 1}
    return [(conv, norm_of[id(out)]) for conv, out in made if id(out) in norm_of and once[0].count(conv) == 1]
