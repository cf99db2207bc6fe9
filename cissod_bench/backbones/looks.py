"""How a backbone sees images: order of the channels, what is subtracted and divided by, where its stride lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["caffe", "torchvision", "scratch", "timm"]


@dataclass(frozen=True)
class Look:
    """What a backbone was trained with.

    Attributes:
        style: mmdet's word for the convolution of a bottleneck that has the stride: "caffe" the first, of 1 x 1,
            "pytorch" the second, of 3 x 3.
        rgb: whether red comes first; images are read with blue first.
        mean: what is subtracted from grey levels in [0, 255], in the backbone's order of channels.
        std: what the difference is divided by.
        words: the same for a message.
    """

    style: Literal["caffe", "pytorch"]
    rgb: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    words: str


_BGR = (103.530, 116.280, 123.675)

LOOKS: Mapping[Kind, Look] = MappingProxyType(
    {
        "caffe": Look(
            "caffe", False, _BGR, (1.0, 1.0, 1.0),
            "blue first, mean 103.53, 116.28, 123.675, deviation 1, stride in the 1 x 1 convolution",
        ),
        "torchvision": Look(
            "pytorch", True, (123.675, 116.280, 103.530), (58.395, 57.120, 57.375),
            "red first, ImageNet's mean and deviation, stride in the 3 x 3 convolution",
        ),
        "scratch": Look(
            "pytorch", False, _BGR, (57.375, 57.120, 58.395),
            "as this program trains from scratch: blue first, ImageNet's mean and deviation, 8 groups a norm",
        ),
    }
)  # fmt: skip
"""Of ResNets, by kind; a network of timm has its own (`timm_weights.timm_look`)."""
