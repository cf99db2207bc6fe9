"""Which proposals are foreground, background or neither, where images have ignore regions."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from torch import Tensor


def with_own_assigners(config: dict[str, Any]) -> dict[str, Any]:
    """Return mmdet settings of a detector in which `MatchedFirstAssigner` assigns, which loops over no box.

    Args:
        config: it is changed.
    """
    for head in ("rpn", "rcnn"):
        assigner = config["train_cfg"][head]["assigner"]
        if assigner["type"] == "MaxIoUAssigner":
            assigner["type"] = "MatchedFirstAssigner"
    return config


@TASK_UTILS.register_module()
class MatchedFirstAssigner(MaxIoUAssigner):  # type: ignore[misc]
    """mmdet's assigner with ignore regions that take from the background only.

    mmdet drops every proposal in an ignore region before it matches any: also one that lies on a labelled box, which
    is common where regions are boxes of another class at the same place. And it forgets the regions of an image that
    has no box. Here proposals are matched first; then those of the background that lie in a region by more than
    ``ignore_iof_thr`` of their area are neither foreground nor background. Without regions both are equal, but this one
    reads nothing back from a GPU, where mmdet asks twice a box.
    """

    def assign(
        self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any | None = None, **kwargs: Any
    ) -> Any:
        """Return mmdet's AssignResult.

        Args:
            pred_instances: ``priors``, xyxy, shape (P, 4).
            gt_instances: ``bboxes``, shape (G, 4), and ``labels``, shape (G,).
            gt_instances_ignore: ``bboxes`` of the regions, shape (I, 4).
            kwargs: as mmdet's base class has them.
        """
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        priors = pred_instances.priors
        if (
            gt_instances_ignore is None
            or self.ignore_iof_thr <= 0
            or not len(gt_instances_ignore.bboxes)
            or not len(priors)
        ):
            return result
        inside = self.iou_calculator(priors, gt_instances_ignore.bboxes, mode="iof").max(dim=1).values
        result.gt_inds[(result.gt_inds == 0) & (inside > self.ignore_iof_thr)] = -1
        return result

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> Any:
        """Return mmdet's AssignResult: to each proposal 0 (background), -1 (neither) or 1 + the number of its box.

        A proposal has its best box if their IoU is at least ``pos_iou_thr``, is background below ``neg_iou_thr``, and
        with ``match_low_quality`` every box has the proposals nearest to it, the last of several boxes.

        Args:
            overlaps: IoU, shape (G, P).
            gt_labels: of the boxes, shape (G,).
        """
        if not overlaps.numel() or not isinstance(self.neg_iou_thr, float) or not self.gt_max_assign_all:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        best, box = overlaps.max(dim=0)
        assigned = torch.where((best >= 0) & (best < self.neg_iou_thr), 0, -1)
        assigned = torch.where(best >= self.pos_iou_thr, box + 1, assigned)
        if self.match_low_quality:
            nearest = overlaps.amax(dim=1, keepdim=True)
            matched = (overlaps == nearest) & (nearest >= self.min_pos_iou)
            numbers = torch.arange(1, len(overlaps) + 1, device=overlaps.device)[:, None]
            last = (matched * numbers).amax(dim=0)
            assigned = torch.where(last > 0, last, assigned)
        labels = torch.where(assigned > 0, gt_labels[(assigned - 1).clamp(min=0)], -1)
        return AssignResult(num_gts=len(overlaps), gt_inds=assigned, max_overlaps=best, labels=labels)
