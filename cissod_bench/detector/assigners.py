"""Which proposals are foreground, background or neither, where images have ignore regions."""

from __future__ import annotations

from typing import Any

from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class MatchedFirstAssigner(MaxIoUAssigner):  # type: ignore[misc]
    """mmdet's assigner with ignore regions that take from the background only.

    mmdet drops every proposal in an ignore region before it matches any: also one that lies on a labelled box, which
    is common where regions are boxes of another class at the same place. And it forgets the regions of an image that
    has no box. Here proposals are matched first; then those of the background that lie in a region by more than
    ``ignore_iof_thr`` of their area are neither foreground nor background. Without regions both are equal.
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
