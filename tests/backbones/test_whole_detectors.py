"""A run that begins as a trained detector: every layer of it, classes by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import CLASSES
from tiny import tiny_training
from torch import Tensor
from weights import SETTINGS, torchvision

from cissod_bench.backbones.whole_detectors import begin_from, plain_name, read_detector
from cissod_bench.contract.changes import with_changes
from cissod_bench.contract.presets import preset
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.errors import DataFault, UsageFault

HEAD = "roi_head.bbox_head."
KNOWN = ("zebra", "Box", "heart", "e_g g")  # two of CLASSES and one of the tiny task's, in another order and writing


def model(classes: int, settings: Settings = SETTINGS) -> Any:
    return build_model(faster_rcnn(settings, classes))


def checkpoint(folder: Path, settings: Settings = SETTINGS, classes: tuple[str, ...] = KNOWN, **meta: Any) -> Path:
    """A file as mmdet writes it, of a detector whose weights are all its own."""
    made = model(len(classes), settings)
    torch.manual_seed(9)
    state = {
        key: torch.randn_like(value) * 0.05 for key, value in made.state_dict().items() if value.is_floating_point()
    }
    state |= {f"backbone.{key}": value for key, value in torchvision().items() if not key.startswith("fc.")}
    meta = meta or {"dataset_meta": {"classes": classes}}
    torch.save({"state_dict": state, "meta": meta, "message_hub": {}}, folder / "coco.pth")
    return folder / "coco.pth"


def rows(state: dict[str, Tensor], layer: str, place: int, values: int = 1) -> Tensor:
    return state[f"{HEAD}{layer}.weight"][place * values : (place + 1) * values]


def test_every_layer_is_taken_and_classes_by_name(tmp_path: Path) -> None:
    held = read_detector(str(checkpoint(tmp_path)))
    assert held.classes == KNOWN
    begun = model(len(CLASSES))
    before = {key: value.clone() for key, value in begun.state_dict().items()}
    assert begin_from(begun, held, CLASSES) == ("box", "egg")
    after = begun.state_dict()
    layers = [key for key in after if key.startswith(("neck.", "rpn_head.")) or ".shared_fcs." in key]
    assert len(layers) > 20
    assert all(torch.equal(after[key], held.state[key]) for key in layers)
    for channel, place in ((CLASSES.index("box"), 1), (CLASSES.index("egg"), 3), (len(CLASSES), len(KNOWN))):
        assert torch.equal(rows(after, "fc_cls", channel), rows(dict(held.state), "fc_cls", place))
        assert after[f"{HEAD}fc_cls.bias"][channel] == held.state[f"{HEAD}fc_cls.bias"][place]
    for channel, place in ((CLASSES.index("box"), 1), (CLASSES.index("egg"), 3)):
        assert torch.equal(rows(after, "fc_reg", channel, 4), rows(dict(held.state), "fc_reg", place, 4))
    for channel in (CLASSES.index("ball"), CLASSES.index("disc")):  # unknown there: as they began
        assert torch.equal(rows(after, "fc_cls", channel), rows(before, "fc_cls", channel))
        assert torch.equal(rows(after, "fc_reg", channel, 4), rows(before, "fc_reg", channel, 4))


def test_one_regressor_for_all_classes_gives_each_its_rows_and_not_the_other_way(tmp_path: Path) -> None:
    shared = replace(SETTINGS, shared_boxes=True)
    held = read_detector(str(checkpoint(tmp_path, shared)))
    begun = model(len(CLASSES))
    begin_from(begun, held, CLASSES)
    for channel in range(len(CLASSES)):
        assert torch.equal(rows(begun.state_dict(), "fc_reg", channel, 4), held.state[f"{HEAD}fc_reg.weight"])
    held = read_detector(str(checkpoint(tmp_path)))
    begun = model(len(CLASSES), shared)
    before = begun.state_dict()[f"{HEAD}fc_reg.weight"].clone()
    assert begin_from(begun, held, CLASSES) == ("box", "egg")
    assert torch.equal(begun.state_dict()[f"{HEAD}fc_reg.weight"], before)


def test_older_files_name_their_classes_otherwise_and_80_without_names_are_cocos(tmp_path: Path) -> None:
    assert read_detector(str(checkpoint(tmp_path, CLASSES=KNOWN))).classes == KNOWN
    assert read_detector(str(checkpoint(tmp_path, epoch=12))).classes == ()
    many = tuple(map(str, range(80)))
    assert read_detector(str(checkpoint(tmp_path, classes=many, epoch=12))).classes[:2] == ("person", "bicycle")
    assert plain_name("Cell_phone ") == plain_name("cell phone") == "cellphone"


def test_another_detector_and_a_file_without_one_are_refused(tmp_path: Path) -> None:
    wide = replace(SETTINGS, fpn_channels=24)
    with pytest.raises(DataFault, match="is not the detector of the settings") as raised:
        begin_from(model(len(CLASSES), wide), read_detector(str(checkpoint(tmp_path))), CLASSES)
    assert "pretrained_part=backbone" in str(raised.value.remedy)
    torch.save(torchvision(), tmp_path / "resnet.pth")
    with pytest.raises(DataFault, match="holds no detector"):
        read_detector(str(tmp_path / "resnet.pth"))
    with pytest.raises(UsageFault, match="names no file"):
        with_changes(preset("mini", task_iterations=1), ["pretrained_part=detector"])


def test_a_training_begins_as_the_detector_of_a_file(tmp_path: Path) -> None:
    changes = ("norm=frozen-bn", f"pretrained={checkpoint(tmp_path)}", "pretrained_part=detector", "frozen_stages=1")
    training = tiny_training(tmp_path, "soft-teacher", *changes)
    held = read_detector(str(tmp_path / "coco.pth"))
    for own in (training.detector.student, training.detector.teacher):
        assert torch.equal(own.state_dict()["rpn_head.rpn_conv.weight"], held.state["rpn_head.rpn_conv.weight"])
        assert torch.equal(own.state_dict()["backbone.conv1.weight"], held.state["backbone.conv1.weight"])
    assert training.detector.backbone_record["classes"] == ["heart"]
    assert training.detector.backbone_record["kind"] == "torchvision"


def test_fine_tune_is_the_detector_of_mmdet_on_a_short_schedule() -> None:
    chosen = preset("fine-tune", task_iterations=180_000)
    assert (chosen.depth, chosen.norm, chosen.fpn_channels, chosen.anchor_scale) == (50, "frozen-bn", 256, 8)
    assert (chosen.pretrained_part, chosen.iterations < 10_000) == ("detector", True)
    assert with_changes(chosen, ["pretrained=my.pth"]).pretrained == "my.pth"
