"""Maps that lie pixel by pixel: the same numbers up to rounding, where the rule wants them and nowhere else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from detectors import TINY

from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn

LAST = torch.channels_last


def model(depth: int) -> Any:
    torch.manual_seed(0)
    return build_model(faster_rcnn(replace(TINY, depth=depth), 3))


@pytest.mark.parametrize(("depth", "last"), [(18, True), (34, True), (50, False)])
def test_thin_backbones_and_what_follows_them_are_pixel_by_pixel(depth: int, last: bool) -> None:
    detector = model(depth)
    levels = detector.extract_feat(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)))
    assert [level.is_contiguous(memory_format=LAST) for level in levels] == [last] * len(levels)
    assert all(p.is_contiguous() for p in detector.parameters())
    levels = copy.deepcopy(detector).extract_feat(torch.zeros(2, 3, 64, 96))  # as the teacher is made
    assert levels[0].is_contiguous(memory_format=LAST) is last


def test_values_and_gradients_are_those_of_the_usual_layout() -> None:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    pixels, usual = model(18), model(18)
    usual.backbone._forward_pre_hooks.clear()
    outputs = []
    for detector in (pixels, usual):
        maps = [level for levels in detector.rpn_head(detector.extract_feat(images)) for level in levels]
        means = [(level * torch.linspace(-1, 2, level.numel()).view(level.shape)).mean() for level in maps]
        torch.stack(means).sum().backward()
        outputs.append(maps)
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = {name: p.grad for name, p in usual.named_parameters()}
    for name, parameter in pixels.named_parameters():
        if parameter.grad is not None:
            scale = gradients[name].abs().max()
            assert (parameter.grad - gradients[name]).abs().max() <= 1e-4 * scale, name
