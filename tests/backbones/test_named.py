"""A backbone by one word: the settings that go together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Called
from detectors import CLASSES
from timm_files import NETWORK, needs_timm, saved_network

from cissod_bench.backbones.named import named_backbone
from cissod_bench.contract.changes import with_changes
from cissod_bench.contract.presets import PRESETS, preset
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.errors import UsageFault


@pytest.mark.parametrize("name", PRESETS)
def test_a_resnet_fits_every_preset(name: str) -> None:
    own = with_changes(preset(name, task_iterations=20), named_backbone("resnet34=my.pth"))
    assert (own.backbone, own.depth, own.base_channels, own.norm) == ("resnet", 34, 64, "frozen-bn")
    assert own.pretrained == "my.pth"
    config = faster_rcnn(own, len(CLASSES), kind="torchvision")
    assert config["data_preprocessor"]["bgr_to_rgb"] is True
    assert config["backbone"]["depth"] == 34


@needs_timm
def test_a_network_of_timm_brings_its_own_mean_and_norm(tmp_path: Path) -> None:
    file = saved_network(tmp_path)
    words = named_backbone(f"timm:{NETWORK}={file}")
    own = with_changes(preset("photo", task_iterations=20), words)
    assert (own.timm_name, own.pretrained, own.norm) == (NETWORK, str(file), "frozen-bn")
    assert faster_rcnn(own, len(CLASSES))["data_preprocessor"]["std"] != [128.0] * 3  # which is lite0's


def test_weights_that_need_no_file_are_named() -> None:
    assert named_backbone("") == ()
    assert "pretrained=package:efficientnet-lite0" in named_backbone("timm:tf_efficientnet_lite0")
    assert "pretrained=open-mmlab://detectron2/resnet50_caffe" in named_backbone("resnet50")
    with pytest.raises(UsageFault, match="No package brings weights of timm's convnext_tiny"):
        named_backbone("timm:convnext_tiny")
    with pytest.raises(UsageFault, match="There is no backbone 'resnet5'"):
        named_backbone("resnet5")


def test_run_takes_it_before_its_changes(call: Callable[..., Called]) -> None:
    words = ("run", "--task", "toy", "--method", "supervised", "--dry-run")
    assert "There is no backbone 'resnet5'" in call(*words, "--backbone", "resnet5").err
    done = call(*words, "--backbone", "resnet50=a.pth", "--set", "depth=7")
    assert "Setting 'depth' must be" in done.err
