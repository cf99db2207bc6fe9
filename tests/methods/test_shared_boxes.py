"""One box regressor for all classes: every method trains with it, and a box's class does not move it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_training

from cissod_bench.catalogue import list_methods

FEW = ("labelled_per_gpu=1", "unlabelled_per_gpu=1", "workers=0", "unsup_start=0", "warmup_iterations=0")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder for all of them, in which the split is drawn once."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("method", list_methods())
def test_a_method_trains_with_one_box_regressor_for_all_classes(method: str, work: Path) -> None:
    training = tiny_training(work, method, *FEW, "shared_boxes=true", "iterations=3", "generations=3")
    losses: list[float] = []
    training.log = lambda line: losses.append(line["loss"])
    regressor = training.detector.student.roi_head.bbox_head.fc_reg
    before = regressor.weight.clone()
    training.run()
    assert len(losses) == 3
    assert torch.isfinite(torch.tensor(losses)).all()
    assert regressor.out_features == 4
    assert not torch.equal(regressor.weight, before)


@pytest.mark.parametrize("shared", [False, True])
def test_the_class_of_a_box_chooses_its_output_only_where_there_is_one_per_class(shared: bool, work: Path) -> None:
    detector = tiny_training(work, "soft-teacher", *FEW, f"shared_boxes={str(shared).lower()}").detector
    classes = detector.parts.num_classes
    width = 1 if shared else classes
    deltas = torch.arange(3.0 * width * 4).reshape(3, width * 4)
    rows, labels = torch.tensor([2, 0]), torch.tensor([1, classes - 1])
    expected = torch.stack(
        [deltas.reshape(3, width, 4)[r, 0 if shared else c] for r, c in zip(rows, labels, strict=True)]
    )
    torch.testing.assert_close(detector._of_class(deltas, rows, labels), expected)
