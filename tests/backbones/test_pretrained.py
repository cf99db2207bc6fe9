"""Pretrained backbones: a file is read safely, fits or is refused, and is seen by the network as it was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import CLASSES
from weights import (
    MAKERS,
    STATE,
    below,
    caffe,
    detectron2,
    fault_of,
    fresh,
    neither,
    saved,
    torchvision,
    training_log,
    with_file,
)

from cissod_bench.backbones.looks import LOOKS
from cissod_bench.backbones.pretrained import backbone_of, shapes_of
from cissod_bench.backbones.weight_kinds import is_folded, is_trained, stem_gain
from cissod_bench.contract.frozen_layers import FROM_SCRATCH
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn


def model_of(settings: Settings) -> Any:
    backbone = backbone_of(settings)
    return build_model(faster_rcnn(settings, len(CLASSES), kind=None if backbone is None else backbone.kind))


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
@pytest.mark.parametrize("norm", ["frozen-bn", "gn"])
def test_keys_and_shapes_are_those_of_mmdets_resnet(depth: int, norm: str) -> None:
    state = fresh(depth, 16, "GN" if norm == "gn" else "BN")
    expected = {name: tuple(value.shape) for name, value in state.items() if "num_batches" not in name}
    assert shapes_of(depth, 16, norm) == expected


@pytest.mark.parametrize("kind", ["caffe", "torchvision"])
@pytest.mark.parametrize("depth", [18, 50])
def test_a_backbone_is_loaded_whole_and_sees_images_as_it_was_trained(tmp_path: Path, kind: str, depth: int) -> None:
    state = MAKERS[kind](depth)
    settings = with_file(saved(tmp_path, state), depth=depth)
    backbone = backbone_of(settings)
    assert backbone is not None
    assert backbone.kind == kind
    model, look = model_of(settings), LOOKS[backbone.kind]
    for name, value in model.backbone.state_dict().items():
        assert "num_batches" in name or torch.equal(value, state[name]), name
    seen = model.data_preprocessor
    assert seen.mean.flatten().tolist() == pytest.approx(look.mean)
    assert seen.std.flatten().tolist() == pytest.approx(look.std)
    assert bool(seen._channel_conversion) is (kind == "torchvision")
    if depth == 50:
        strided = model.backbone.layer2[0]
        assert (strided.conv1.stride, strided.conv2.stride) == {
            "caffe": ((2, 2), (1, 1)), "torchvision": ((1, 1), (2, 2)),
        }[kind]  # fmt: skip


def test_a_grey_level_reaches_the_network_as_each_kind_wants_it(tmp_path: Path) -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)  # blue, green, red
    pixels = {}
    for kind, maker in MAKERS.items():
        model = model_of(with_file(saved(tmp_path, maker(), f"{kind[:2]}.pth")))
        pixels[kind] = model.data_preprocessor({"inputs": [image], "data_samples": None})["inputs"][0, :, 0, 0]
    torch.testing.assert_close(pixels["caffe"], torch.tensor([10 - 103.53, 20 - 116.28, 30 - 123.675]))
    expected = torch.tensor([(30 - 123.675) / 58.395, (20 - 116.28) / 57.12, (10 - 103.53) / 57.375])
    torch.testing.assert_close(pixels["torchvision"], expected)


WRAPPED: dict[str, Callable[[STATE], Any]] = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "module": lambda s: {"state_dict": {f"module.{name}": value for name, value in s.items()}},
    "detector": lambda s: {"state_dict": below("backbone.", s), "meta": {"epoch": 12}},
    "detector in DDP": lambda s: {"model": below("module.backbone.", s)},
    "teacher and student": lambda s: {
        "state_dict": {
            **below("student.backbone.", {name: torch.zeros_like(value) for name, value in s.items()}),
            **below("teacher.backbone.", s),
        }
    },
    "student alone": lambda s: {"state_dict": below("student.backbone.", s)},
    "with a training log": lambda s: {"state_dict": below("backbone.", s), "message_hub": training_log()},
    "averaged": lambda s: {
        "state_dict": below("backbone.", s),
        "ema_state_dict": below("module.backbone.", {name: value * 2 for name, value in s.items()}),
    },
    "contrastive": lambda s: {"state_dict": below("module.encoder_q.", s)},
    "our checkpoint": lambda s: {"format": 1, "student": below("backbone.", fresh()), "teacher": below("backbone.", s)},
    "detectron2": lambda s: {"model": detectron2({n: v for n, v in s.items() if n[0] != "f" and "num_b" not in n})},
    "half precision": lambda s: {name: value.half() for name, value in s.items()},
}


@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("wrapped", list(WRAPPED))
def test_the_backbone_is_found_in_what_other_programs_write(tmp_path: Path, wrapped: str, kind: str) -> None:
    state = MAKERS[kind]()
    settings = with_file(saved(tmp_path, WRAPPED[wrapped](state)))
    backbone = backbone_of(settings)
    assert backbone is not None
    assert backbone.kind == kind
    loaded = model_of(settings).backbone.state_dict()
    tolerance = 1e-2 if wrapped == "half precision" else 0
    torch.testing.assert_close(loaded["layer4.1.bn2.bias"], state["layer4.1.bn2.bias"], rtol=tolerance, atol=tolerance)


BROKEN: dict[str, tuple[Callable[[STATE], Any], str]] = {
    "no key fits": (lambda s: {f"features.{i}": v for i, v in enumerate(s.values())}, "holds no ResNet"),
    "another network": (lambda s: {"patch_embed.proj.weight": torch.ones(3)}, "holds no ResNet"),
    "empty": (lambda s: {}, "It holds nothing"),
    "a tensor": (lambda s: s["conv1.weight"], "holds no ResNet"),
    "a key is missing": (
        lambda s: {name: value for name, value in s.items() if name != "layer3.0.bn2.running_var"},
        "1 missing (layer3.0.bn2.running_var)",
    ),
    "norms are missing": (
        lambda s: {name: v for name, v in s.items() if "bn" not in name},
        "missing (bn1.weight, bn1.",
    ),
    "a stage is missing": (lambda s: {n: v for n, v in s.items() if "layer3" not in n}, "have 2, 2, 0, 2 blocks"),
    "a block is missing": (lambda s: {n: v for n, v in s.items() if "layer3.1" not in n}, "have 2, 2, 1, 2 blocks"),
    "a shape does not fit": (
        lambda s: {**s, "layer2.0.conv1.weight": torch.ones(16, 4, 3, 3)},
        "1 of another shape (layer2.0.conv1.weight is (16, 4, 3, 3) and not (16, 8, 3, 3))",
    ),
    "other layers": (lambda s: {**s, "layer1.0.se.fc1.weight": torch.ones(1)}, "1 too many (layer1.0.se.fc1.weight)"),
    "not finite": (lambda s: {**s, "layer1.0.bn1.bias": s["layer1.0.bn1.bias"] * float("nan")}, "not finite"),
    "two of them": (lambda s: {**below("encoder_q.", s), **below("encoder_k.", s)}, "2 ResNets (encoder_q, encoder_k)"),
}


@pytest.mark.parametrize("broken", list(BROKEN))
@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_file_whose_backbone_does_not_fit_is_refused(tmp_path: Path, broken: str, kind: str) -> None:
    change, message = BROKEN[broken]
    path = saved(tmp_path, change(MAKERS[kind]()))
    fault = fault_of(with_file(path))
    assert message in fault.message
    assert str(path) in fault.message
    assert "--set pretrained=FILE" in str(fault.remedy)


@pytest.mark.parametrize(
    ("depth", "channels", "asked", "held", "remedy"),
    [
        (50, 8, {}, "is a ResNet-50 with depth=50; the settings ask for depth=18", "--set depth=50, or"),
        (34, 8, {}, "is a ResNet-34 with depth=34", "--set depth=34"),
        (101, 8, {"depth": 50}, "is a ResNet-101 with depth=101; the settings ask for depth=50", "--set depth=101"),
        (18, 16, {}, "with base_channels=16; the settings ask for base_channels=8", "--set base_channels=16"),
        (50, 16, {"norm": "gn"}, "depth=50, base_channels=16, norm=frozen-bn; ", "--set base_channels=16 --set norm="),
    ],
)
def test_a_resnet_of_other_settings_is_refused_with_the_settings_that_fit(
    tmp_path: Path, depth: int, channels: int, asked: dict[str, Any], held: str, remedy: str
) -> None:
    for maker in MAKERS.values():
        fault = fault_of(with_file(saved(tmp_path, maker(depth, channels)), **asked))
        assert held in fault.message
        assert remedy in str(fault.remedy)


def test_a_resnet_152_is_named_and_no_depth_is_proposed(tmp_path: Path) -> None:
    fault = fault_of(with_file(saved(tmp_path, torchvision(152)), depth=50))
    assert "is a ResNet-152" in fault.message
    assert "depth=" not in str(fault.remedy)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": below("backbone.", s)}], ids=["bare", "below"])
@pytest.mark.parametrize("name", ["x.pth", "resnet18-f37072fd.pth", "resnet50_caffe.pth"])
def test_random_weights_are_no_pretrained_backbone_whatever_their_name(tmp_path: Path, wrap: Any, name: str) -> None:
    fault = fault_of(with_file(saved(tmp_path, wrap(fresh()), name)))
    assert "was never trained" in fault.message
    assert FROM_SCRATCH in str(fault.remedy)
    fault_of(with_file(tmp_path / name, pretrained_kind="torchvision"))


CAFFE_SETTINGS = "model = dict(backbone=dict(style='caffe'), data_preprocessor=dict(bgr_to_rgb=False))"
PYTORCH_SETTINGS = "model = dict(backbone=dict(style='pytorch'), data_preprocessor=dict(bgr_to_rgb=True))"
MIXED_SETTINGS = "model = dict(backbone=dict(style='pytorch'), data_preprocessor=dict(bgr_to_rgb=False))"


@pytest.mark.parametrize(
    ("content", "name", "kind", "why"),
    [
        (caffe, "x.pth", "caffe", "hold no statistics"),
        (torchvision, "x.pth", "torchvision", "the stem's gain"),
        (neither, "x.pth", None, "neither its name nor its numbers tell"),
        (neither, "resnet50_msra-5891d200.pth", "caffe", "its name"),
        (neither, "resnet50-0676ba61.pth", "torchvision", "its name"),
        (torchvision, "resnet50_caffe.pth", None, "says caffe; the stem's gain"),
        (caffe, "resnet50-0676ba61.pth", None, "is torchvision's; its batch norms hold no statistics"),
        (lambda: {"state_dict": neither(), "meta": {"cfg": CAFFE_SETTINGS}}, "x.pth", "caffe", "style caffe"),
        (lambda: {"state_dict": neither(), "meta": {"config": PYTORCH_SETTINGS}}, "x.pth", "torchvision", "pytorch"),
        (lambda: {"state_dict": neither(), "meta": {"cfg": MIXED_SETTINGS}}, "x.pth", None, "bgr_to_rgb=False"),
        (lambda: {"state_dict": caffe(), "meta": {"cfg": PYTORCH_SETTINGS}}, "x.pth", None, "style pytorch"),
    ],
)
def test_a_kind_is_told_by_what_agrees_and_refused_where_nothing_does(
    tmp_path: Path, content: Any, name: str, kind: str | None, why: str
) -> None:
    settings = with_file(saved(tmp_path, content(), name))
    if kind is None:
        fault = fault_of(settings)
        assert "cannot be told" in fault.message
        assert why in fault.message
        assert "--set pretrained_kind=caffe (blue first" in str(fault.remedy)
        assert "--set pretrained_kind=torchvision (red first" in str(fault.remedy)
        for asked in ("caffe", "torchvision"):
            backbone = backbone_of(replace(settings, pretrained_kind=asked))
            assert backbone is not None
            assert (backbone.kind, backbone.why[:24]) == (asked, "pretrained_kind says so")
    else:
        backbone = backbone_of(settings)
        assert backbone is not None
        assert backbone.kind == kind
        assert why in backbone.why


def test_folded_norms_outweigh_the_gain_of_the_stem(tmp_path: Path) -> None:
    state = caffe()
    state["bn1.weight"].mul_(58)
    backbone = backbone_of(with_file(saved(tmp_path, state)))
    assert backbone is not None
    assert backbone.kind == "caffe"
    for name, value in state.items():  # as detectron2 writes them
        if name.endswith("running_var"):
            value.sub_(1e-5)
    assert is_folded(state)
    assert is_trained(state)
    assert not is_trained(fresh())
    assert not is_trained(fresh(norm="GN"))


def test_the_stems_gain_does_not_depend_on_how_norm_and_filter_share_it() -> None:
    state = torchvision()
    gain = stem_gain(state)
    state["conv1.weight"].mul_(7)
    state["bn1.running_var"].mul_(49)
    assert stem_gain(state) == pytest.approx(gain, rel=1e-3)


def test_group_norms_of_others_are_taken_only_if_the_user_says_how(tmp_path: Path) -> None:
    state = fresh(norm="GN")
    for name, value in state.items():
        if "gn" in name:
            value.uniform_(0.1, 0.4)
    settings = with_file(saved(tmp_path, state), norm="gn", frozen_stages=-1)
    assert "--set pretrained_kind=scratch (" in str(fault_of(settings).remedy)
    assert backbone_of(replace(settings, pretrained_kind="scratch")) is not None


def test_a_broken_file_of_ones_own_is_not_to_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    for content in (b"hello", b"", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        fault = fault_of(with_file(path, depth=18))
        assert "delete" not in str(fault)
        assert "damaged" in str(fault)


def test_a_resnet_that_is_cut_off_is_told_by_what_it_lacks(tmp_path: Path) -> None:
    state = {name: value for name, value in torchvision(18).items() if not name.startswith("layer4")}
    fault = fault_of(with_file(saved(tmp_path, state), depth=18))
    assert "no key ends in 'layer4.0.conv1.weight' beside 'conv1.weight'" in str(fault)
