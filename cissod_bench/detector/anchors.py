"""The anchors of a batch, made once for the sizes of the features that they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Sizes = tuple[tuple[int, int], ...]
_SIZES = 4  # of features whose anchors are kept: those of full take 4 MiB a size


def sizes_of(maps: Sequence[Tensor]) -> Sizes:
    """Return (height, width) of every level."""
    return tuple((level.shape[-2], level.shape[-1]) for level in maps)


@lru_cache(maxsize=_SIZES)
def anchors_at(generator: Any, sizes: Sizes, device: torch.device) -> tuple[Tensor, ...]:
    """Return the anchors of every level, xyxy, float32, shape (N_l, 4); not to be changed.

    Args:
        generator: mmdet's.
        sizes: of the features.
        device: where they are to be.
    """
    return tuple(generator.grid_priors(list(sizes), device=device))


@lru_cache(maxsize=4 * _SIZES)
def in_image(generator: Any, sizes: Sizes, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Return which anchors of all levels begin in an image that is padded further in its batch, bool, shape (N,).

    Args:
        generator: mmdet's.
        sizes: of the features.
        shape: height and width of the image as it would be padded alone.
        device: where the answer is to be.
    """
    return torch.cat(generator.valid_flags(list(sizes), shape, device))


def by_anchor(maps: Sequence[Tensor], values: int) -> list[Tensor]:
    """Return an RPN's outputs, (B, A values, H, W) per level, in the anchors' order, (B, N_l, values) per level."""
    return [level.permute(0, 2, 3, 1).reshape(len(level), -1, values) for level in maps]
