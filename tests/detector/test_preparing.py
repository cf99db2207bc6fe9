"""Batches of views are those of mmdet's preprocessor."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectors import CLASSES, TINY, view
from mmdet.structures.bbox import HorizontalBoxes
from torch import Tensor

from cissod_bench.detector import preparing
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.preparing import prepared


@pytest.mark.parametrize("sizes", [[(64, 96), (64, 96)], [(50, 70), (96, 33), (32, 32)], [(31, 65)]])
@pytest.mark.parametrize("rgb", [False, True])
def test_a_batch_and_its_samples_are_mmdets_bit_by_bit(sizes: Any, rgb: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = faster_rcnn(TINY, len(CLASSES))
    config["data_preprocessor"].update(bgr_to_rgb=rgb, mean=[103.5, 116.25, 123.7], std=[57.4, 57.1, 58.4])
    preprocessor = build_model(config).data_preprocessor
    views = [view(seed, seed, height=height, width=width) for seed, (height, width) in enumerate(sizes)]
    truth = views[0]["data_samples"].gt_instances
    truth.bboxes = HorizontalBoxes(truth.bboxes)  # as the transforms have them
    before = copy.deepcopy(views)

    def numbers() -> tuple[Tensor, list[Any]]:
        batch, samples = prepared(preprocessor, views)
        rows = [(s.batch_input_shape, s.pad_shape, s.img_shape, s.gt_instances.bboxes.tolist()) for s in samples]
        assert all(isinstance(sample.gt_instances.bboxes, Tensor) for sample in samples)
        return batch, rows

    ours = numbers()
    for one, other in zip(views, before, strict=True):
        assert torch.equal(one["inputs"], other["inputs"])
        assert one["data_samples"].metainfo.keys() == other["data_samples"].metainfo.keys()
        assert type(one["data_samples"].gt_instances.bboxes) is type(other["data_samples"].gt_instances.bboxes)
    monkeypatch.setattr(preparing, "DetDataPreprocessor", object)  # so that mmdet's own is called
    theirs = numbers()
    assert torch.equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]
