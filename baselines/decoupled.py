"""DeFRCN's decoupling layers put into the layers beside them: a detector without them that detects the same."""

from __future__ import annotations

import torch
from torch import Tensor

from cissod_bench.errors import UsageFault

SMALLEST_WEIGHT = 1e-3  # of a decoupling layer that can be undone; it begins at 1


def decoupled(state: dict[str, Tensor]) -> None:
    """Put the decoupling layers of a detector's weights into the layers beside them; what it detects stays.

    With (w, b) before the RPN and (v, c) before the RoI head, x the output of the FPN's last convolutions:

        x' = w x + b                                    what those convolutions give now; the RPN takes it as it is
        v x + c = v / w x' + (c - v b / w)              what the RoI head took, in the weights of its first layer

    RoIAlign passes an affine per channel on, as every sample of a RoI lies in the image.

    Args:
        state: of the whole detector; the layers' weights are taken out of it.

    Raises:
        UsageFault: a weight before the RPN is so near 0 that x is not to be had from x'.
    """
    places = ("rpn_head", "roi_head.bbox_roi_extractor")
    pairs = [[state.pop(f"{place}.decoupling.{part}").double() for part in ("weight", "bias")] for place in places]
    (w, b), (v, c) = pairs
    if bool((w.abs() < SMALLEST_WEIGHT).any()):
        raise UsageFault(
            "A channel of the decoupling layer before the RPN is switched off, so that no stock detector is equal.",
            remedy="predict with cissod-bench predict, or take --format safetensors",
        )
    for key in [key for key in state if key.startswith("neck.fpn_convs.")]:
        if key.endswith("weight"):
            beside = key.replace("weight", "bias")
            state[beside] = (w * state[beside].double() + b).to(state[beside])
            state[key] = (w[:, None, None, None] * state[key].double()).to(state[key])
    first = "roi_head.bbox_head.shared_fcs.0"
    weight = state[f"{first}.weight"].double().reshape(len(state[f"{first}.weight"]), len(w), -1)
    bias = state[f"{first}.bias"].double() + torch.einsum("ock,c->o", weight, c - v * b / w)
    state[f"{first}.weight"] = (weight * (v / w)[:, None]).flatten(1).to(state[f"{first}.weight"])
    state[f"{first}.bias"] = bias.to(state[f"{first}.bias"])
