"""Ignore regions take proposals from the background, never from a labelled box."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectors import CLASSES, TINY
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmengine.structures import InstanceData

from cissod_bench.detector.assigners import MatchedFirstAssigner
from cissod_bench.detector.building import build_model
from cissod_bench.detector.model_config import IGNORE_IOF, faster_rcnn

NO_BOX = torch.zeros(0, 4)
BOX = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
# On the box, in the region but on no box, half of it in the region, far from both.
PROPOSALS = torch.tensor(
    [[11.0, 10.0, 31.0, 30.0], [8.0, 8.0, 16.0, 16.0], [36.0, 20.0, 44.0, 30.0], [60.0, 60.0, 80.0, 80.0]]
)
REGION = torch.tensor([[8.0, 8.0, 40.0, 40.0]])


def assigned(kind: Any, proposals: torch.Tensor, boxes: torch.Tensor, regions: torch.Tensor, **fields: Any) -> Any:
    fields = {"pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0.5, "match_low_quality": False, **fields}
    truth = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) % len(CLASSES))
    ignored = InstanceData(bboxes=regions, labels=torch.zeros(len(regions), dtype=torch.int64))
    return kind(ignore_iof_thr=IGNORE_IOF, **fields).assign(InstanceData(priors=proposals), truth, ignored)


def test_a_proposal_on_a_box_is_foreground_although_an_ignore_region_covers_it() -> None:
    assert assigned(MaxIoUAssigner, PROPOSALS, BOX, REGION).gt_inds.tolist() == [-1, -1, 0, 0]  # what mmdet does
    result = assigned(MatchedFirstAssigner, PROPOSALS, BOX, REGION)
    assert result.gt_inds.tolist() == [1, -1, 0, 0]  # 1: the first box; the share 0.5 is not more than 0.5
    assert result.labels.tolist() == [0, -1, -1, -1]


def test_a_region_counts_in_an_image_without_a_box() -> None:
    assert assigned(MaxIoUAssigner, PROPOSALS, NO_BOX, REGION).gt_inds.tolist() == [0, 0, 0, 0]
    assert assigned(MatchedFirstAssigner, PROPOSALS, NO_BOX, REGION).gt_inds.tolist() == [-1, -1, 0, 0]


@pytest.mark.parametrize(("boxes", "proposals"), [(0, 5), (3, 0), (1, 40), (6, 40)])
@pytest.mark.parametrize("low_quality", [False, True])
def test_without_regions_it_is_mmdets_assigner(boxes: int, proposals: int, low_quality: bool) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        corners = torch.rand(boxes + proposals, 2) * 30
        every = torch.cat([corners, corners + 5 + torch.rand(boxes + proposals, 2) * 30], dim=1)
        fields = {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3, "match_low_quality": low_quality}
        one, other = (
            assigned(kind, every[boxes:], every[:boxes], NO_BOX, **fields)
            for kind in (MaxIoUAssigner, MatchedFirstAssigner)
        )
        for name in ("gt_inds", "max_overlaps", "labels"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_no_proposal_and_a_region_give_no_assignment() -> None:
    assert assigned(MatchedFirstAssigner, NO_BOX, BOX, REGION).gt_inds.tolist() == []


@pytest.mark.parametrize(("share", "expected"), [(-1.0, MaxIoUAssigner), (IGNORE_IOF, MatchedFirstAssigner)])
def test_the_detector_has_it_where_images_have_ignore_regions(share: float, expected: Any) -> None:
    model = build_model(faster_rcnn(TINY, len(CLASSES), ignore_iof=share))
    assert type(model.rpn_head.assigner) is expected
    assert type(model.roi_head.bbox_assigner) is expected
