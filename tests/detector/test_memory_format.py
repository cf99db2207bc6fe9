"""Maps that lie pixel by pixel: the same numbers up to rounding, where the rule wants them and nowhere else."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectors import TINY, view

from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.preparing import prepared

LAST = torch.channels_last
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def depthwise() -> Any:
    """A detector on a narrow MobileNetV2."""
    torch.manual_seed(0)
    config = faster_rcnn(TINY, 3)
    config["backbone"] = {
        "type": "MobileNetV2", "widen_factor": 0.5, "out_indices": (1, 2, 4, 6), "norm_eval": True,
        "norm_cfg": {"type": "BN", "requires_grad": False},
    }  # fmt: skip
    config["neck"]["in_channels"] = [16, 16, 48, 160]
    return build_model(config)


def test_depthwise_backbones_and_what_follows_them_are_pixel_by_pixel() -> None:
    detector = depthwise()
    for model in (detector, copy.deepcopy(detector)):  # as the teacher is made
        levels = model.extract_feat(IMAGES)
        assert all(level.is_contiguous(memory_format=LAST) for level in levels)
    assert all(p.is_contiguous() for p in detector.parameters())


def test_a_batch_of_views_lies_as_the_backbone_wants_it_from_the_start() -> None:
    views = [view(seed) for seed in (0, 1)]
    seen: list[int] = []
    for detector, layout in ((depthwise(), LAST), (build_model(faster_rcnn(TINY, 3)), torch.contiguous_format)):
        images, _ = prepared(detector.data_preprocessor, views)
        detector.backbone.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].data_ptr()))
        detector.extract_feat(images)
        assert images.is_contiguous(memory_format=layout)
        assert seen.pop() == images.data_ptr(), "no copy"


def test_plain_resnets_keep_the_usual_layout() -> None:
    levels = build_model(faster_rcnn(TINY, 3)).extract_feat(IMAGES)
    assert all(level.is_contiguous() for level in levels)


def test_values_and_gradients_are_those_of_the_usual_layout() -> None:
    pixels, usual = depthwise(), depthwise()
    usual.backbone._forward_pre_hooks.clear()
    outputs = []
    for detector in (pixels, usual):
        maps = [level for levels in detector.rpn_head(detector.extract_feat(IMAGES)) for level in levels]
        means = [(level * torch.linspace(-1, 2, level.numel()).view(level.shape)).mean() for level in maps]
        torch.stack(means).sum().backward()
        outputs.append(maps)
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = {name: p.grad for name, p in usual.named_parameters()}
    for name, parameter in pixels.named_parameters():
        if parameter.grad is not None:
            scale = gradients[name].abs().max()
            assert (parameter.grad - gradients[name]).abs().max() <= 1e-3 * scale, name
