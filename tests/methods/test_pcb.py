"""DeFRCN's calibration at test time: its formula, a small classifier made here, and a refusal where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from defrcn_parts import parts
from detectors import CLASSES, batch, tiny_detector
from tiny import tiny_plan
from torch import Tensor

from baselines import pcb
from baselines.defrcn import METHOD
from cissod_bench.contract.parts import Context, LabelledImage
from cissod_bench.errors import EnvironmentFault
from cissod_bench.running.run import execute

PCB = dict(METHOD.variants["pcb"])


def made_file(path: Path, *, depth: int = 18, width: int = 8, outputs: int = 7, **changes: Any) -> Path:
    """A small random ResNet in torchvision's layout."""
    from mmdet.models import ResNet

    torch.manual_seed(0)
    network = ResNet(depth, stem_channels=width, base_channels=width, out_indices=(3,))
    features = width * 8 * (1 if depth < 50 else 4)
    weights = {k: v for k, v in network.state_dict().items() if "num_batches_tracked" not in k}
    weights |= {"fc.weight": torch.randn(outputs, features), "fc.bias": torch.randn(outputs)}
    weights |= changes
    torch.save({k: v for k, v in weights.items() if v is not None}, path)
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = made_file(tmp_path / "small.pth")
    monkeypatch.setenv(pcb.VARIABLE, str(made))
    return made


def test_the_score_of_a_calibrated_class_is_the_mean_of_score_and_cosine() -> None:
    classes = torch.tensor([False, True])
    labels, scores = torch.tensor([1, 0, 1, 1]), torch.tensor([0.6, 0.6, 0.05, 0.1])
    cosines = torch.tensor([0.8, 0.8, 0.8, -0.9])
    found = pcb.calibrated(scores, labels, cosines, classes)
    torch.testing.assert_close(found, torch.tensor([0.7, 0.6, 0.05, 0.0]))
    assert torch.equal(pcb.calibrated(scores, labels, cosines, classes, alpha=1.0), scores)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_a_classifier_of_torchvisions_layout_is_read_whatever_its_depth_and_width(tmp_path: Path, depth: int) -> None:
    own = pcb.RegionClassifier(made_file(tmp_path / "a.pth", depth=depth))
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 40, 40], [50, 10, 90, 60]])
    found = own.describe(image, boxes)
    assert found.shape == (2, 7)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(own.describe(image, boxes[1:]), found[1:])
    assert own.describe(image, boxes[:0]).shape == (0, 7)


def test_the_classifier_sees_red_green_and_blue_normalised_as_imagenets(tmp_path: Path) -> None:
    own, seen = pcb.RegionClassifier(made_file(tmp_path / "a.pth")), list[Tensor]()
    run = own.backbone.forward
    own.backbone.forward = lambda pixels: seen.append(pixels) or run(pixels)
    image = torch.stack([torch.full((32, 32), value, dtype=torch.uint8) for value in (104, 116, 124)])  # the means
    own.describe(image, torch.tensor([[0.0, 0, 32, 32]]))
    assert seen[0].shape == (1, 3, 32, 32)
    assert seen[0].abs().max() < 0.02


def test_a_prototype_is_the_mean_over_the_boxes_of_its_class(tmp_path: Path) -> None:
    own = pcb.RegionClassifier(made_file(tmp_path / "a.pth"))
    images = [
        LabelledImage(
            torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8),
            torch.tensor([[0.0, 0, 30, 30], [20, 20, 60, 60]]),
            torch.tensor(labels),
        )
        for labels in ([0, 2], [2, 2])
    ]
    means, present = pcb.prototypes(own, images, 4, torch.device("cpu"))
    assert present.tolist() == [True, False, True, False]
    described = torch.cat([own.describe(one.image, one.boxes) for one in images])
    torch.testing.assert_close(means[2], described[[1, 2, 3]].mean(dim=0))
    torch.testing.assert_close(means[0], described[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "which is no file"),
        (lambda path: path.write_bytes(b"no weights"), "cannot be read as weights"),
        (lambda path: torch.save({"conv1.weight": torch.zeros(1)}, path), "conv1.weight, fc.weight or fc.bias is mis"),
        (lambda path: torch.save([1], path), "is no classifier in torchvision's layout"),
        (lambda path: made_file(path, **{"layer1.1.conv1.weight": None}), "is no ResNet that is known here"),
        (lambda path: made_file(path, **{"bn1.bias": None}), "does not fit a ResNet-18: bn1.bias"),
        (lambda path: made_file(path, **{"bn1.bias": torch.zeros(3)}), "does not fit a ResNet-18"),
        (lambda path: made_file(path, **{"head.weight": torch.zeros(3)}), "does not fit a ResNet-18: head.weight"),
    ],
)
def test_a_file_that_is_no_classifier_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, message: str
) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    monkeypatch.setenv(pcb.VARIABLE, str(path))
    with pytest.raises(EnvironmentFault, match=message) as caught:
        parts(variant=PCB).begin_run(lambda rows: [])
    assert "without --variant pcb" in str(caught.value)


def test_without_weights_the_run_is_refused_before_its_first_iteration_and_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(pcb.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    plan = tiny_plan(tmp_path, "defrcn", "iterations=3", "generations=1", variant="pcb")
    with pytest.raises(EnvironmentFault, match=r"needs an ImageNet ResNet-101.*is not set and .*nothing") as caught:
        execute(plan, restart=False, say=lambda text: None, quiet=True)
    assert pcb.VARIABLE in str(caught.value.remedy)
    assert not (plan.folder / "log.jsonl").exists()
    parts().begin_run(lambda rows: [])  # the method as it stands needs none


def test_torchs_cache_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pcb.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet101-0.pth"
    cached.parent.mkdir(parents=True)
    made_file(cached)
    assert pcb.weights_file() == cached


def test_only_scores_of_classes_that_are_not_base_change_and_only_where_images_are_scored(file: Path) -> None:
    own = parts(variant=PCB)
    detector, data = tiny_detector(own), batch()
    own.stage = 1
    before = detector.predict(data["weak"], Context(30, 40), teacher=True)
    taught = detector.teach(data["weak"], data["strong"], Context(30, 40))
    support: list[list[int]] = []

    def labelled(rows: Any) -> list[LabelledImage]:
        support.append(list(rows))
        image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
        return [LabelledImage(image, torch.tensor([[0.0, 0, 40, 40], [9, 9, 50, 50]]), torch.tensor([3, 1]))]

    own.begin_run(labelled)
    after = detector.predict(data["weak"], Context(30, 40), teacher=True)
    assert support == [[2, 3]]  # the images with a class that is not base, once
    changed = 0
    for view, (boxes, labels, scores), (others, same, found) in zip(data["weak"], before, after, strict=True):
        assert torch.equal(boxes, others)
        assert torch.equal(labels, same)
        few = labels == 3  # disc; egg, channel 4, has no prototype
        assert torch.equal(scores[~few], found[~few])
        assert own._prototypes is not None
        assert own._classifier is not None
        described = own._classifier.describe(view["inputs"], boxes[few])
        cosines = F.cosine_similarity(described, own._prototypes[0][3][None], dim=1)
        torch.testing.assert_close(found[few], (0.5 * scores[few] + 0.5 * cosines).clamp(min=0))
        changed += int(few.sum())
    assert changed > 0
    again = detector.teach(data["weak"], data["strong"], Context(30, 40))
    assert [p.scores.tolist() for p in again.pseudo] == [p.scores.tolist() for p in taught.pseudo]
    assert not any("classifier" in name or "prototype" in name for name in own.state_dict())


def test_a_run_of_the_variant_ends_with_its_record(tmp_path: Path, file: Path) -> None:
    plan = tiny_plan(tmp_path, "defrcn", "iterations=3", "generations=1", variant="pcb")
    record = execute(plan, restart=False, say=lambda text: None, quiet=True)
    assert record.status == "done"
    assert record.departures["defrcn.pcb"] == ["", pcb.RegionClassifier(file).sha256]
    assert len(CLASSES) == 5
