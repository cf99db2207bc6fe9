"""Max pooling that is computed pixel by pixel has the values and gradients of torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectors import CLASSES, TINY
from torch import nn

from cissod_bench.detector.building import build_model
from cissod_bench.detector.max_pool import MaxPoolByPixels, pool_by_pixels
from cissod_bench.detector.model_config import faster_rcnn


@pytest.mark.parametrize("window", [(3, 2, 1), (2, 2, 0), ((3, 2), (1, 2), (1, 0)), (3, 2, 1, 1, False, True)])
@pytest.mark.parametrize("size", [(2, 8, 16, 24), (1, 3, 7, 5)])
def test_values_and_gradients_are_torchs_bit_by_bit_also_of_equal_pixels(window: Any, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps = (torch.randn(size) * 2).round().relu()  # many are equal
    layer = nn.MaxPool2d(*window)
    ours = copy.deepcopy(layer)
    pool_by_pixels(ours)
    assert type(ours) is MaxPoolByPixels
    results = []
    for pooling in (layer, ours):
        values = maps.clone().requires_grad_()
        pooled = pooling(values)
        (gradient,) = torch.autograd.grad(
            (pooled * torch.arange(1.0, pooled.numel() + 1).view_as(pooled)).sum(), values
        )
        results.append((pooled.detach(), gradient))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()
        assert other.is_contiguous()


def test_a_resnets_pooling_is_so_and_keeps_the_layout_of_other_maps() -> None:
    model = build_model(faster_rcnn(TINY, len(CLASSES)))
    assert type(model.backbone.maxpool) is MaxPoolByPixels
    maps = torch.randn(1, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.backbone.maxpool(maps), nn.MaxPool2d(3, 2, 1)(maps))
