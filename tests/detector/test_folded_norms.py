"""Norms folded into convolutions: the same numbers, names and weights, less to keep for backward."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from detectors import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.backbones import ResNet
from timm_files import needs_timm
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cissod_bench.backbones.timm_networks import timm
from cissod_bench.detector.building import build_model
from cissod_bench.detector.folded_norms import FoldedConv2d, fold_batch_norms
from cissod_bench.detector.model_config import faster_rcnn

LAST = torch.channels_last


def with_statistics(net: nn.Module, seed: int = 0) -> Any:
    """A network whose norms have seen something: no two channels are normed alike."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.3)
            if module.weight is not None:
                module.weight.data.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.data.copy_(torch.randn(module.num_features, generator=generator) / 4)
    return net


def resnet(depth: int = 18, *, frozen_stages: int = 1, trained: bool = False, style: str = "caffe") -> Any:
    torch.manual_seed(3)
    net = ResNet(
        depth, base_channels=8, stem_channels=8, frozen_stages=frozen_stages, style=style,
        norm_cfg={"type": "BN", "requires_grad": trained}, norm_eval=not trained,
    )  # fmt: skip
    net.train()  # of mmdet: it returns nothing
    return with_statistics(net)


def small(*, groups: int = 1, bias: bool = False, affine: bool = True, norm_trains: bool = False) -> Any:
    """Two convolutions with norms, the second one grouped, and one without."""
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8, affine=affine), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, groups=groups, bias=bias), nn.BatchNorm2d(8, eps=1e-3, affine=affine),
        nn.Conv2d(8, 4, 1),
    )  # fmt: skip
    with_statistics(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(norm_trains)
    return net.eval()


def both(net: nn.Module, pairs: int) -> tuple[Any, Any]:
    """The network and its folded copy."""
    folded = copy.deepcopy(net)
    assert fold_batch_norms(folded) == pairs
    return net, folded


def outputs(net: nn.Module, images: Tensor) -> list[Tensor]:
    result = net(images)
    return [result] if isinstance(result, Tensor) else list(result)


def relative(value: Tensor, wanted: Tensor) -> float:
    value, wanted = value.detach(), wanted.detach()
    return float((value - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def check_equal(plain: nn.Module, folded: nn.Module, images: Tensor) -> None:
    """Values, and gradients of images and weights, are equal up to rounding."""
    of_plain, of_folded = images.clone().requires_grad_(), images.clone().requires_grad_()
    wanted, got = outputs(plain, of_plain), outputs(folded, of_folded)
    weights = [torch.linspace(-1, 2, level.numel()).view_as(level) for level in wanted]
    for results in (wanted, got):
        torch.stack([(level * weight).mean() for level, weight in zip(results, weights, strict=True)]).sum().backward()
    assert max(relative(g, w) for g, w in zip(got, wanted, strict=True)) < 1e-5
    assert of_plain.grad is not None
    assert of_folded.grad is not None
    assert relative(of_folded.grad, of_plain.grad) < 1e-5
    after = dict(folded.named_parameters())
    for name, parameter in plain.named_parameters():
        assert (parameter.grad is None) == (after[name].grad is None), name
        if parameter.grad is not None and after[name].grad is not None:
            assert relative(after[name].grad, parameter.grad) < 1e-5, name


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    groups=st.sampled_from([1, 2, 8]),
    bias=st.booleans(),
    affine=st.booleans(),
    norm_trains=st.booleans(),
    last=st.booleans(),
)
def test_any_convolution_gives_the_same_values_and_gradients(
    seed: int, groups: int, bias: bool, affine: bool, norm_trains: bool, last: bool
) -> None:
    plain, folded = both(small(groups=groups, bias=bias, affine=affine, norm_trains=norm_trains), 2)
    images = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(seed))
    check_equal(plain, folded, images.contiguous(memory_format=torch.channels_last) if last else images)
    with torch.no_grad():
        assert relative(folded(images), plain(images)) < 1e-5


@pytest.mark.parametrize(("depth", "pairs"), [(18, 20), (50, 53)])
@pytest.mark.parametrize("style", ["caffe", "pytorch"])
def test_resnets_of_mmdet_give_the_same_values_and_gradients(depth: int, pairs: int, style: str) -> None:
    plain, folded = both(resnet(depth, style=style), pairs)
    check_equal(plain, folded, torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)))


@needs_timm
def test_an_efficientnet_of_timm_gives_the_same_values_and_gradients() -> None:
    torch.manual_seed(5)
    net = timm().create_model("efficientnet_lite0", pretrained=False, features_only=True)
    for module in with_statistics(net).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    plain, folded = both(net.eval().double(), 48)  # through 48 random layers float32 rounds to 2e-5
    check_equal(plain, folded, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double())


class Pads(TorchDispatchMode):
    """Counts copies of maps with their padding."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten.constant_pad_nd.default
        return func(*args, **(kwargs or {}))


@needs_timm
@pytest.mark.parametrize("size", [(16, 24), (15, 24), (13, 9), (3, 1)])
@pytest.mark.parametrize("side", [2, 3, 4, 5])
def test_padding_that_is_odd_copies_no_map_of_a_frozen_depthwise_convolution_and_changes_no_bit(
    size: tuple[int, int], side: int
) -> None:
    torch.manual_seed(6)
    conv = timm().layers.Conv2dSame(8, 8, side, stride=2, groups=8, bias=False)
    plain = with_statistics(nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.BatchNorm2d(8))).eval().requires_grad_(False)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=LAST)
    folded = both(plain, 1)[1]
    folded(images)  # the longer kernel is made once
    with Pads() as pads:
        value = folded(images)
    assert pads.number == 0
    assert relative(value, plain(images)) < 1e-5
    maps, weight, bias = folded[0](images), *folded[1].folded()
    down, across = (folded[1]._pads(dim, maps.shape[2 + dim]) for dim in (0, 1))
    copied = nn.functional.pad(maps, (*across, *down))
    assert torch.equal(value, nn.functional.conv2d(copied, weight, bias, 2, groups=8))


def test_names_order_and_strict_loading_of_weights_stay() -> None:
    plain, folded = both(resnet(), 20)
    assert list(plain.state_dict()) == list(folded.state_dict())
    assert [name for name, _ in plain.named_modules()] == [name for name, _ in folded.named_modules()]
    assert [p.requires_grad for p in plain.parameters()] == [p.requires_grad for p in folded.parameters()]
    folded.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(folded.state_dict(), strict=True)


def moved(net: Any) -> None:
    with torch.no_grad():
        torch._foreach_mul_(list(net.parameters()), 0.9)


def loaded(net: Any) -> None:
    net.load_state_dict({name: value * 0.9 for name, value in net.state_dict().items()})


def other_statistics(net: Any) -> None:
    with_statistics(net, seed=9)


@pytest.mark.parametrize("change", [moved, loaded, other_statistics, lambda net: net.double().float()])
def test_weights_that_change_are_used_at_once(change: Any) -> None:
    plain, folded = both(resnet().requires_grad_(False), 20)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    first = outputs(folded, images)
    for net in (plain, folded):
        change(net)
    for wanted, got in zip(outputs(plain, images), outputs(folded, images), strict=True):
        assert relative(got, wanted) < 1e-5
    assert len(first) == 4


def test_what_is_folded_is_kept_until_it_changes_and_never_while_it_is_trained() -> None:
    net = resnet(frozen_stages=1)
    fold_batch_norms(net)
    frozen, trained = net.layer1[0].conv1, net.layer2[0].conv1
    assert isinstance(frozen, FoldedConv2d)
    assert frozen.folded()[0] is frozen.folded()[0]
    assert trained.folded()[0] is not trained.folded()[0]
    with torch.no_grad():
        assert trained.folded()[0] is not trained.folded()[0]


def test_a_copy_norms_with_its_own_norms() -> None:
    student = resnet().requires_grad_(False)
    fold_batch_norms(student)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = outputs(student, images)
    teacher = copy.deepcopy(student)
    assert teacher.layer1[0].conv1.norm is teacher.layer1[0].bn1
    other_statistics(teacher)
    assert all(torch.equal(a, b) for a, b in zip(outputs(student, images), before, strict=True))
    assert not torch.equal(outputs(teacher, images)[0], before[0])


def test_norms_that_train_are_left_alone() -> None:
    plain, folded = both(resnet(trained=True, frozen_stages=-1), 20)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for wanted, got in zip(outputs(plain, images), outputs(folded, images), strict=True):
        assert torch.equal(got, wanted)
    statistics = dict(plain.named_buffers())
    assert all(torch.equal(value, statistics[name]) for name, value in folded.named_buffers())
    for net in (plain, folded):
        net.eval()
    check_equal(plain, folded, images)  # weights of norms learn in evaluation mode, too
    with torch.no_grad():  # what a teacher computes is folded, with the statistics that training has moved
        for wanted, got in zip(outputs(plain, images), outputs(folded, images), strict=True):
            assert relative(got, wanted) < 1e-5


def kept_for_backward(net: Any, images: Tensor) -> int:
    """Bytes of maps that autograd keeps, weights and their products left out."""
    sizes: dict[int, int] = {}

    def seen(tensor: Tensor) -> Tensor:
        if tensor.dim() == 4 and len(tensor) == len(images):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        results = outputs(net, images)
    assert results[-1].requires_grad
    return sum(sizes.values())


def test_frozen_stages_leave_nothing_for_backward_and_norms_one_map_less_per_layer() -> None:
    images = torch.randn(5, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    plain, folded = both(resnet(50), 53)
    assert kept_for_backward(folded, images) < 0.62 * kept_for_backward(plain, images)
    stem, stage = folded.maxpool(folded.relu(folded.bn1(folded.conv1(images)))), folded.layer1
    assert not stem.requires_grad
    assert not stage(stem).requires_grad


def test_the_detector_of_frozen_norms_is_folded_and_that_of_group_norm_is_not() -> None:
    kinds = []
    for norm in ("frozen-bn", "gn"):
        model = build_model(faster_rcnn(replace(TINY, norm=norm), 3))
        kinds.append(sum(isinstance(module, FoldedConv2d) for module in model.modules()))
    assert kinds == [20, 0]
