"""The backbone of the toy tasks: what it is trained on, how, and that the shipped file is what its record says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pretrain_shapes
import pytest
import torch
from detectors import CLASSES, TINY, batch, tiny_detector

from cissod_bench.backbones.packaged import PACKAGED, install_command, packaged_file
from cissod_bench.backbones.pretrained import backbone_of, read_weights
from cissod_bench.backbones.shape_images import SHAPES, draw_shape, draw_shapes
from cissod_bench.backbones.shape_training import Recipe, linear_probe, normalised, packed, pooled, rate, train
from cissod_bench.contract.parts import Context
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.errors import DataFault, EnvironmentFault, UsageFault
from cissod_bench.splitting.toy_images import OUTLINES

SHORT = Recipe(base_channels=8, side=32, batch=4, steps=3, warmup=1)
FILE = packaged_file(PACKAGED["toy-shapes"])
FROZEN = replace(
    TINY, pretrained="package:toy-shapes", base_channels=20, norm="frozen-bn", frozen_stages=4, strides=(8, 16, 32)
)


def test_an_image_shows_one_shape_and_follows_from_seed_and_number_alone() -> None:
    image, label = draw_shape(7, 3, 64)
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert label in range(len(SHAPES))
    assert np.array_equal(image, draw_shape(7, 3, 64)[0])
    assert not np.array_equal(image, draw_shape(8, 3, 64)[0])
    assert not np.array_equal(image, draw_shape(7, 4, 64)[0])


def test_all_kinds_of_shape_are_drawn_equally_often() -> None:
    assert set(OUTLINES) == set(SHAPES)
    counts = Counter(draw_shapes(0, range(400), 32)[1].tolist())
    assert len(counts) == 10
    assert all(20 <= count <= 60 for count in counts.values())


def test_images_reach_the_training_as_they_reach_a_detector_with_the_backbone() -> None:
    images = draw_shapes(5, range(2), 64)[0]
    model = build_model(faster_rcnn(FROZEN, len(CLASSES), kind="torchvision"))
    inputs = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    seen = model.data_preprocessor({"inputs": inputs, "data_samples": None})["inputs"]
    torch.testing.assert_close(normalised(images), seen)


def test_the_rate_rises_in_a_line_and_falls_to_nothing_as_half_a_cosine() -> None:
    recipe = Recipe(steps=110, warmup=10, lr=1.0)
    assert [rate(step, recipe) for step in (0, 4, 9, 10, 60)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5])
    assert rate(109, recipe) == pytest.approx(0.0, abs=1e-3)


def test_a_training_is_the_same_twice_and_leaves_the_random_numbers_outside_alone() -> None:
    torch.manual_seed(0)
    before, losses = torch.random.get_rng_state(), []
    first, second = (packed(train(SHORT, lambda step, loss, right: losses.append(loss)), SHORT) for _ in range(2))
    assert first == second
    assert losses[:3] == losses[3:]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert packed(train(replace(SHORT, seed=2)), SHORT) != first


def test_a_training_learns_to_name_shapes() -> None:
    losses: list[float] = []
    train(replace(SHORT, batch=16, steps=30, warmup=5, seed=3), lambda step, loss, right: losses.append(loss))
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_linear_classifier_names_what_a_plane_divides_and_nothing_else() -> None:
    torch.manual_seed(1)
    labels = torch.arange(300) % 3
    rows = torch.randn(300, 8)
    assert linear_probe(rows[:150], labels[:150], rows[150:], labels[150:]) < 0.5
    rows[:, 2] += 20 * labels.eq(1)
    rows[:, 5] -= 30 * labels.eq(2)
    assert linear_probe(rows[:150], labels[:150], rows[150:], labels[150:]) == 1.0


def test_the_script_writes_a_file_that_can_be_read_and_a_record_of_it(tmp_path: Path) -> None:
    path = tmp_path / "shapes.pth"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(SHORT).items()]
    assert pretrain_shapes.main([str(path), "--fitted=20", "--asked=10", *options]) == 0
    record = json.loads(path.with_suffix(".json").read_bytes())
    assert record["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert record["recipe"] == asdict(SHORT)
    weights = read_weights(str(path))
    assert (weights.depth, weights.base_channels, weights.norm) == (18, 8, "frozen-bn")
    assert path.read_bytes() == packed(train(SHORT), SHORT)


def test_the_shipped_file_is_the_one_of_its_record_and_small() -> None:
    record = json.loads(FILE.with_suffix(".json").read_bytes())
    content = FILE.read_bytes()
    assert record["sha256"] == sha256(content).hexdigest()
    assert record["bytes"] == len(content) <= 3_000_000
    assert record["recipe"] == asdict(Recipe())


def test_the_shipped_backbone_names_shapes_that_it_has_not_seen() -> None:
    model = build_model(faster_rcnn(FROZEN, len(CLASSES), kind="torchvision"))
    rows, labels = [], []
    with torch.no_grad():
        for seed in (11, 12):
            images, classes = draw_shapes(seed, range(150), 96)
            rows.append(pooled(model.backbone, normalised(images))[-1])
            labels.append(torch.from_numpy(classes))
    assert linear_probe(rows[0], labels[0], rows[1], labels[1], ridge=0.1) > 0.9


def test_a_run_knows_the_shipped_backbone_and_how_it_sees_images() -> None:
    backbone: Any = backbone_of(FROZEN)
    assert backbone.kind == "torchvision"
    assert backbone.why == "its package says so (cissod-bench)"
    assert backbone.weights.path == FILE
    assert backbone.sha256 == sha256(FILE.read_bytes()).hexdigest()


def test_another_width_and_a_name_that_no_package_has_are_refused() -> None:
    with pytest.raises(DataFault, match="is a ResNet-18 with base_channels=20") as fault:
        backbone_of(replace(FROZEN, base_channels=24))
    assert "--set base_channels=20" in str(fault.value.remedy)
    with pytest.raises(UsageFault, match="toy-shape"):
        backbone_of(replace(FROZEN, pretrained="package:toy-shape"))


def test_a_package_of_photographs_is_no_backbone_of_the_kind_resnet() -> None:
    with pytest.raises((DataFault, EnvironmentFault)) as fault:
        backbone_of(replace(FROZEN, pretrained="package:efficientnet-lite0"))
    assert fault.value.remedy


def test_what_this_program_brings_is_not_installed_again() -> None:
    assert "cissod-bench" not in install_command()


def test_a_resnet_of_which_nothing_is_trained_is_one_for_student_and_teacher() -> None:
    detector = tiny_detector(settings=FROZEN).train()
    backbone = detector.student.backbone
    assert detector.teacher.backbone is backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    losses = detector(batch(), Context(iteration=1, iterations=10, generation=0, generations=1))
    torch.stack(list(losses.values())).sum().backward()
    detector.update_teacher(3)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_resnet_that_is_trained_in_part_is_the_students_own() -> None:
    detector = tiny_detector(settings=replace(FROZEN, frozen_stages=3)).train()
    assert detector.teacher.backbone is not detector.student.backbone
    trained = {name for name, value in detector.student.backbone.named_parameters() if value.requires_grad}
    assert trained
    assert all(name.startswith("layer4") for name in trained)
