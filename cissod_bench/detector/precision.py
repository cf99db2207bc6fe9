"""Coordinates in full precision, whatever precision the layers work in.

Half precision has 11 binary digits: beyond x = 1024 its steps are a pixel wide (those of bfloat16, with 8 digits, 8
pixels), and mmdet makes anchors in the precision of the RPN's outputs and casts RoIs to that of the features.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cissod_bench.errors import UsageFault

_NUMBERS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_mixed(amp: str, device: torch.device) -> None:
    """Refuse a number format that the device's layers do not compute in.

    Args:
        amp: the setting.
        device: of the training.

    Raises:
        UsageFault: fp16 without a GPU.
    """
    if amp == "fp16" and device.type == "cpu":
        raise UsageFault(
            "Setting amp=fp16 needs a GPU, and there is none: a CPU has no layers in fp16.",
            remedy="--set amp=off, or --set amp=bf16 where the processor has it in hardware (lscpu names avx512_bf16)",
        )


def in_software(amp: str, device: torch.device) -> bool:
    """Return whether the device has no instructions for the number format, so that its layers compute it slowly.

    Args:
        amp: the setting.
        device: of the training.
    """
    if amp != "bf16" or device.type != "cpu":
        return False
    return not any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)


def mixed(amp: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which layers compute in the setting's number format; with "off" it changes nothing.

    Args:
        amp: the setting.
        device: of the training.
    """
    return torch.autocast(device.type, dtype=_NUMBERS[amp]) if amp in _NUMBERS else nullcontext()


def without_autocast(device: torch.device) -> torch.autocast:
    """Return a context in which no operation lowers its precision; it changes nothing where mixed precision is off."""
    return torch.autocast(device.type, enabled=False)


def as_float(value: Any) -> Any:
    """Return a tensor, or lists and tuples of them, in float32; one that is float32 is returned itself."""
    if isinstance(value, Tensor):
        return value.float()
    return type(value)(as_float(one) for one in value) if isinstance(value, list | tuple) else value


def float_outputs(layer: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Return a layer's outputs in float32: a forward hook of the RPN's head, whose anchors have the outputs' type."""
    return as_float(outputs)


def pooled(extractor: Any, features: tuple[Tensor, ...], rois: Tensor) -> Tensor:
    """Return the features of RoIs, RoIAlign in float32, shape (R, C, side, side).

    Args:
        extractor: mmdet's, which casts RoIs to the type of the features.
        features: of all levels, (B, C, H, W) each.
        rois: image and xyxy, shape (R, 5).
    """
    with without_autocast(rois.device):
        found: Tensor = extractor(as_float(features[: extractor.num_inputs]), rois.float())
    return found
