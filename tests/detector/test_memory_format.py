"""Maps that lie pixel by pixel: the same numbers up to rounding, where the rule wants them and nowhere else."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import TINY, tiny_detector, view
from ranks import run_processes
from torch import nn

from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.preparing import prepared
from cissod_bench.training.optimisers import load_optimiser, make_optimiser

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


def small() -> Any:
    """A detector on a ResNet-18."""
    torch.manual_seed(0)
    return build_model(faster_rcnn(replace(TINY, base_channels=16), 3))


def large() -> Any:
    """A detector on a ResNet-50."""
    return build_model(faster_rcnn(replace(TINY, depth=50), 3))


def test_depthwise_backbones_and_what_follows_them_are_pixel_by_pixel() -> None:
    detector = depthwise()
    for model in (detector, copy.deepcopy(detector)):  # as the teacher is made
        levels = model.extract_feat(IMAGES)
        assert all(level.is_contiguous(memory_format=LAST) for level in levels)
    assert all(p.is_contiguous() for p in detector.parameters())


def test_a_backbone_too_narrow_for_torchs_gradients_pixel_by_pixel_is_left_as_it_is() -> None:
    detector = build_model(faster_rcnn(TINY, 3))  # 8 channels; with two threads its backward pass ended the program
    assert all(p.is_contiguous() for p in detector.parameters())
    assert all(level.is_contiguous() for level in detector.extract_feat(IMAGES))


def test_two_threads_do_a_backward_pass_of_small_backbones(tmp_path: Path) -> None:
    code = """if True:
        import torch
        from dataclasses import replace
        from cissod_bench.contract.presets import SMOKE
        from cissod_bench.detector.building import build_model
        from cissod_bench.detector.model_config import faster_rcnn
        torch.set_num_threads(2)
        for channels in (8, 16, 24):
            print(channels, "channels", flush=True)
            model = build_model(faster_rcnn(replace(SMOKE, base_channels=channels), 3))
            for _ in range(5):
                sum(level.sum() for level in model.extract_feat(torch.rand(3, 3, 64, 48))).backward()
    """
    run_processes(code, tmp_path, [{}])


def test_a_batch_of_views_lies_as_the_backbone_wants_it_from_the_start() -> None:
    views = [view(seed) for seed in (0, 1)]
    seen: list[int] = []
    for detector, layout in ((depthwise(), LAST), (small(), LAST), (large(), torch.contiguous_format)):
        images, _ = prepared(detector.data_preprocessor, views)
        detector.backbone.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].data_ptr()))
        detector.extract_feat(images)
        assert images.is_contiguous(memory_format=layout)
        assert seen.pop() == images.data_ptr(), "no copy"


def test_large_resnets_keep_the_usual_layout() -> None:
    detector = large()
    assert all(level.is_contiguous() for level in detector.extract_feat(IMAGES))
    assert all(p.is_contiguous() for p in detector.parameters())


def test_small_resnets_and_their_weights_lie_pixel_by_pixel_until_a_gpu_trains_them() -> None:
    detector = small()
    for model in (detector, copy.deepcopy(detector)):
        assert all(level.is_contiguous(memory_format=LAST) for level in model.extract_feat(IMAGES))
        assert all(p.is_contiguous(memory_format=LAST) for p in model.backbone.parameters() if p.dim() == 4)
    moved = tiny_detector().to_device(torch.device("meta"))
    for model in (moved.student, moved.teacher):
        assert all(p.is_contiguous() for p in model.parameters())


def test_averages_of_a_checkpoint_are_laid_out_as_the_weights_are() -> None:
    generator = torch.Generator().manual_seed(2)
    start, first, second = (torch.randn(4, 3, 3, 3, generator=generator) for _ in range(3))
    written = None
    results = []
    for layout in (torch.contiguous_format, LAST):
        layer = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=layout)
        layer.weight.data.copy_(start)
        optimiser = make_optimiser(TINY, layer)
        if written is None:
            layer.weight.grad = first.clone()
            optimiser.step()
            written = copy.deepcopy((optimiser.state_dict(), layer.weight.detach()))
        else:
            layer.weight.data.copy_(written[1])
            load_optimiser(optimiser, written[0])
        layer.weight.grad = second.clone(memory_format=layout)
        optimiser.step()
        results.append(layer.weight.detach())
    assert torch.equal(*results)


def test_a_fused_step_sees_rows_of_numbers_and_makes_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, shapes, results = torch._fused_adamw_, [], []

    def noted(*columns: Any, **options: Any) -> Any:
        shapes.append([{len(value.shape) for value in values} for values in columns[:4]])
        return fused(*columns, **options)

    monkeypatch.setattr(torch, "_fused_adamw_", noted)
    start, *gradients = torch.randn(4, 16, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    for layout in (torch.contiguous_format, LAST):
        layer = nn.Conv2d(4, 16, 3, bias=False).to(memory_format=layout)
        layer.weight.data.copy_(start)
        optimiser = make_optimiser(TINY, layer)
        for gradient in gradients:
            layer.weight.grad = gradient.clone(memory_format=layout)
            optimiser.step()
        results.append([layer.weight.detach(), optimiser.state[layer.weight]["exp_avg"]])
    assert shapes == [[{4}] * 4] * 3 + [[{1}] * 4] * 3
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    assert results[1][1].is_contiguous(memory_format=LAST), "a checkpoint holds it in its shape"


@pytest.mark.parametrize("number", [0, 1], ids=["depthwise", "small"])
def test_values_and_gradients_are_those_of_the_usual_layout(number: int) -> None:
    make = (depthwise, small)[number]
    pixels, usual = make(), make()
    usual.backbone._forward_pre_hooks.clear()
    usual.to(memory_format=torch.contiguous_format)
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
