"""A stock detector as one function of one image, in operations that TorchScript and ONNX have.

What takes shapes or loops from the image, RoIAlign and NMS, are functions of TorchScript here, and ONNX's own operators
in a graph of ONNX. Everything is computed as mmdet computes it (``tests/using/test_exporting.py``).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cissod_bench.contract.stock import Stock
from cissod_bench.quiet import quiet_imports

_MOST_GROWTH = abs(math.log(16 / 1000))  # of a box in a refinement, as mmdet limits it


def nms(boxes: Tensor, scores: Tensor, most: float) -> Tensor:
    """Return the rows that NMS keeps, best first, int64 (K,).

    Args:
        boxes: xyxy, shape (N, 4).
        scores: shape (N,).
        most: boxes that overlap a better one by more are dropped.
    """
    order = scores.argsort(descending=True, stable=True)
    own = boxes[order]
    area = (own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])
    alive = torch.ones(own.size(0), dtype=torch.bool, device=boxes.device)
    for row in range(own.size(0)):
        if bool(alive[row]):
            low = torch.maximum(own[row, :2], own[row + 1 :, :2])
            high = torch.minimum(own[row, 2:], own[row + 1 :, 2:])
            common = (high - low).clamp(min=0).prod(dim=1)
            union = area[row] + area[row + 1 :] - common
            alive[row + 1 :] = alive[row + 1 :] & (common <= most * union)  # "&=" of TorchScript writes to a copy
    return order[alive]


def roi_align(features: Tensor, rois: Tensor, bins: int, scale: float, sampling: int) -> Tensor:
    """Return the features of RoIs that lie in the image, shape (R, C, bins, bins), by mmcv's rules.

    Args:
        features: of one image, shape (1, C, H, W).
        rois: xyxy in the image's pixels, shape (R, 4).
        bins: a side.
        scale: pixels of the features a pixel of the image.
        sampling: samples per bin and direction; 0 takes as many as a bin spans.
    """
    corners = rois * scale - 0.5
    sides = corners[:, 2:] - corners[:, :2]
    per_bin = (sides / bins).ceil().clamp(min=1).long()
    if sampling > 0:
        per_bin = torch.full_like(per_bin, sampling)
    codes = per_bin[:, 0] * 100000 + per_bin[:, 1]
    pooled = features.new_zeros(rois.size(0), features.size(1), bins, bins)
    limit = torch.tensor([features.size(3) - 1, features.size(2) - 1], dtype=features.dtype, device=features.device)
    every: list[int] = torch.unique(codes).tolist()
    for code in every:
        rows = (codes == code).nonzero()[:, 0]
        across, down = int(code) // 100000, int(code) % 100000
        x = (torch.arange(bins * across, device=rois.device).to(rois.dtype) + 0.5) / (bins * across)
        y = (torch.arange(bins * down, device=rois.device).to(rois.dtype) + 0.5) / (bins * down)
        xs = (corners[rows, 0:1] + sides[rows, 0:1] * x).clamp(min=0)
        ys = (corners[rows, 1:2] + sides[rows, 1:2] * y).clamp(min=0)
        grid = torch.stack([xs[:, None, :].expand(-1, y.size(0), -1), ys[:, :, None].expand(-1, -1, x.size(0))], dim=-1)
        grid = 2 * torch.minimum(grid, limit) / limit.clamp(min=1) - 1
        flat = grid.reshape(1, rows.size(0) * y.size(0), x.size(0), 2)
        samples = F.grid_sample(features, flat, mode="bilinear", padding_mode="border", align_corners=True)
        samples = samples.reshape(features.size(1), rows.size(0), bins, down, bins, across)
        pooled[rows] = samples.mean(dim=(3, 5)).transpose(0, 1)
    return pooled


class _Nms(torch.autograd.Function):
    """`nms`, as ONNX's NonMaxSuppression in its graphs."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: float) -> Tensor:
        return nms(boxes, scores, most)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: float) -> Any:
        def constant(value: Any, kind: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=kind))

        batch = g.op("Unsqueeze", boxes, constant([0], torch.int64))
        of_class = g.op("Unsqueeze", scores, constant([0, 1], torch.int64))
        numbers = constant([2**31 - 1], torch.int64), constant([most], torch.float32)
        found = g.op("NonMaxSuppression", batch, of_class, *numbers)
        return g.op("Gather", found, constant(2, torch.int64), axis_i=1)


class _RoIAlign(torch.autograd.Function):
    """`roi_align`, as ONNX's RoiAlign in its graphs."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, rois: Tensor, bins: int, scale: float, sampling: int) -> Tensor:
        return roi_align(features, rois, bins, scale, sampling)

    @staticmethod
    def symbolic(g: Any, features: Any, rois: Any, bins: int, scale: float, sampling: int) -> Any:
        count = g.op("Shape", rois, start_i=0, end_i=1)
        zero = g.op("ConstantOfShape", count, value_t=torch.tensor([0], dtype=torch.int64))
        return g.op(
            "RoiAlign", features, rois, zero, coordinate_transformation_mode_s="half_pixel", mode_s="avg",
            output_height_i=bins, output_width_i=bins, sampling_ratio_i=sampling, spatial_scale_f=scale,
        )  # fmt: skip


def stock_model(detector: Stock) -> Any:
    """Return the mmdet model of a stock detector with its weights, in evaluation mode."""
    with quiet_imports():
        import mmdet.models  # noqa: F401  registers the models
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    if "timm_features" in detector.plugins:
        import cissod_bench.using.plugins.timm_features
    if "sigmoid_scores" in detector.plugins:
        import cissod_bench.using.plugins.sigmoid_scores  # noqa: F401
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(ConfigDict(detector.config))
    model.load_state_dict(detector.state)
    return model.requires_grad_(False).eval()


class PlainDetector(nn.Module):
    """A Faster R-CNN of stock mmdet on one image: pixels in, boxes, labels and scores out.

    Args:
        detector: what is exported.
        onnx: let RoIAlign and NMS be ONNX's operators; else they are TorchScript's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: Stock, *, onnx: bool = False) -> None:
        super().__init__()
        self.model = stock_model(detector)
        self.onnx = onnx
        own = self.model.data_preprocessor
        self.unit, self.flip = int(own.pad_size_divisor), bool(own._channel_conversion)
        self.register_buffer("mean", own.mean.clone(), persistent=False)
        self.register_buffer("std", own.std.clone(), persistent=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._nms: Any = _Nms.apply if onnx else torch.jit.script(nms)
            self._roi_align: Any = _RoIAlign.apply if onnx else torch.jit.script(roi_align)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (xyxy in the image's pixels, (M, 4)), labels (M,) and scores (M,), best first.

        Args:
            image: blue, green, red in [0, 255], resized but not padded, float32, shape (1, 3, H, W).
        """
        size = torch._shape_as_tensor(image)
        limit = torch.stack([size[3], size[2], size[3], size[2]]).to(image.dtype)
        pixels = (image.flip(1) if self.flip else image).sub(self.mean).div(self.std)
        down, across = (-image.shape[2]) % self.unit, (-image.shape[3]) % self.unit
        features = self.model.neck(self.model.backbone(F.pad(pixels, (0, across, 0, down))))
        rois = self._proposals(features, limit)
        return self._detections(features, rois, limit)

    def _proposals(self, features: tuple[Tensor, ...], limit: Tensor) -> Tensor:
        """Return the RPN's proposals, xyxy, shape (R, 4)."""
        head, limits = self.model.rpn_head, self.model.test_cfg.rpn
        boxes, scores, levels = [], [], []
        for number, (logits, deltas) in enumerate(zip(*head(features), strict=True)):
            own = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid()
            order = own.argsort(descending=True) if self.onnx else own.argsort(descending=True, stable=True)
            best = order[: limits.nms_pre]
            anchors = self._anchors(number, logits)[best]
            changes = deltas.permute(0, 2, 3, 1).reshape(-1, 4)[best]
            boxes.append(_inside(_refined(anchors, changes, head.bbox_coder.stds), limit))
            scores.append(own[best])
            levels.append(torch.full_like(own[best], float(number)))
        all_boxes, all_scores = torch.cat(boxes), torch.cat(scores)
        apart = all_boxes + (torch.cat(levels) * (all_boxes.max() + 1))[:, None]
        large = ((all_boxes[:, 2:] - all_boxes[:, :2]) > limits.min_bbox_size).all(dim=1).nonzero()[:, 0]
        kept = large[self._nms(apart[large], all_scores[large], float(limits.nms.iou_threshold))]
        return all_boxes[kept[: limits.max_per_img]]

    def _anchors(self, number: int, logits: Tensor) -> Tensor:
        generator = self.model.rpn_head.prior_generator
        across, down = generator.strides[number]
        x = torch.arange(logits.shape[3]).to(logits) * across
        y = torch.arange(logits.shape[2]).to(logits) * down
        corner = torch.stack([x[None, :].expand(y.shape[0], -1), y[:, None].expand(-1, x.shape[0])], dim=-1)
        shifts = torch.cat([corner, corner], dim=-1).reshape(-1, 1, 4)
        anchors: Tensor = (shifts + generator.base_anchors[number].to(logits)).reshape(-1, 4)
        return anchors

    def _detections(self, features: tuple[Tensor, ...], rois: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head, limits = self.model.roi_head.bbox_head, self.model.test_cfg.rcnn
        logits, deltas = head(self._pooled(features, rois))
        own = head.loss_cls.get_activation(logits) if head.custom_cls_channels else logits.softmax(dim=1)
        scores = own[:, : head.num_classes]
        rows, labels = (scores > limits.score_thr).nonzero().unbind(dim=1)
        of_class = deltas.reshape(-1, 1 if head.reg_class_agnostic else head.num_classes, 4)
        changes = of_class[rows, 0 if head.reg_class_agnostic else labels]
        boxes = _inside(_refined(rois[rows], changes, head.bbox_coder.stds), limit)
        values = scores[rows, labels]
        apart = boxes + (labels.to(boxes) * (limit.max() + 1))[:, None]
        kept = self._nms(apart, values, float(limits.nms.iou_threshold))[: limits.max_per_img]
        return boxes[kept], labels[kept], values[kept]

    def _pooled(self, features: tuple[Tensor, ...], rois: Tensor) -> Tensor:
        """Return each RoI's features from the level of its size, shape (R, C, bins, bins)."""
        extractor = self.model.roi_head.bbox_roi_extractor
        layers = extractor.roi_layers
        side = ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).sqrt()
        level = (side / extractor.finest_scale + 1e-6).log2().floor().clamp(min=0, max=len(layers) - 1)
        rows, parts = [], []
        for number, layer in enumerate(layers):
            own = (level == number).nonzero()[:, 0]
            options = (layer.output_size[0], float(layer.spatial_scale), int(layer.sampling_ratio))
            rows.append(own)
            parts.append(self._roi_align(features[number], rois[own], *options))
        return torch.cat(parts)[torch.cat(rows).argsort()]


def _refined(boxes: Tensor, deltas: Tensor, deviations: Any) -> Tensor:
    """Return boxes (M, 4) changed as a regressor says, mmdet's DeltaXYWHBBoxCoder."""
    deltas = deltas * deltas.new_tensor(tuple(deviations))
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) * 0.5 + sides * deltas[:, :2]
    half = sides * deltas[:, 2:].clamp(min=-_MOST_GROWTH, max=_MOST_GROWTH).exp() * 0.5
    return torch.cat([centre - half, centre + half], dim=1)


def _inside(boxes: Tensor, limit: Tensor) -> Tensor:
    """Return boxes (M, 4) cut off at the border of an image of the limit (width, height, width, height)."""
    return torch.minimum(boxes.clamp(min=0), limit)
