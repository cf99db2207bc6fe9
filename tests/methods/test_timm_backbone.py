"""Every method trains on a frozen backbone of timm and leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm_files import changes, needs_lites, needs_timm, saved_network
from tiny import tiny_training

from cissod_bench.catalogue import list_methods

AS_PHOTO = ("shared_boxes=true", "nms_iou=0.3", "amp=bf16")
FEW = ("labelled_per_gpu=1", "unlabelled_per_gpu=1", "workers=0", "unsup_start=0", "warmup_iterations=0")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder for all of them, in which the split is drawn once."""
    return tmp_path_factory.mktemp("work")


@needs_timm
@pytest.mark.parametrize("method", list_methods())
def test_a_method_trains_above_a_frozen_backbone_of_timm(method: str, work: Path) -> None:
    own = changes(saved_network(work))
    training = tiny_training(work, method, *FEW, *own, *AS_PHOTO, "iterations=3", "generations=3")
    losses: list[float] = []
    training.log = lambda line: losses.append(line["loss"])
    student, teacher = training.detector.student, training.detector.teacher
    before = {name: value.clone() for name, value in student.state_dict().items()}
    training.run()
    assert len(losses) == 3
    assert torch.isfinite(torch.tensor(losses)).all()
    assert teacher.backbone is student.backbone
    assert not any(module.training for module in student.backbone.modules())
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in moved} >= {"neck", "roi_head"}
    assert not any(name.startswith("backbone.") for name in moved)


@needs_timm
def test_a_run_continues_above_a_frozen_backbone_of_timm(work: Path) -> None:
    own = changes(saved_network(work))
    first = tiny_training(work / "again", "soft-teacher", *FEW, *own, "iterations=2", "generations=1")
    first.run()
    again = tiny_training(work / "again", "soft-teacher", *FEW, *own, "iterations=2", "generations=1")
    assert again.resume()
    for name, value in first.detector.state_dict().items():
        assert torch.equal(value, again.detector.state_dict()[name]), name


@needs_lites
def test_preset_photo_trains_with_the_weights_of_its_package(work: Path) -> None:
    few = ("iterations=1", "generations=1", "short_side=96,96", "long_side=128", "test_short_side=96")
    training = tiny_training(work / "photo", "soft-teacher", *FEW, *few, preset_name="photo")
    losses: list[float] = []
    training.log = lambda line: losses.append(line["loss"])
    training.run()
    assert torch.isfinite(torch.tensor(losses)).all()
    assert training.detector.backbone_record["kind"] == "timm"
