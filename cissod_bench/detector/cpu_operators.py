"""RoIAlign and NMS on a CPU, vectorised; on other devices mmcv's own operators work.

mmcv computes both on one thread and value by value. Here RoIAlign is a weighted sum of feature vectors
(`torch.nn.functional.embedding_bag`), and NMS compares blocks of boxes at once. Values are mmcv's up to the order of
summation, kept boxes are the same (``tests/detector/test_cpu_operators.py``). mmcv's RoIAlign also reads features in
channels_last format as if they were in the usual one, which gives other values without a word; wherever it works here,
it is given the usual one.

The switch is the environment variable ``CISSOD_OPERATORS``: "mmcv" lets mmcv's operators compute on the CPU, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import mmcv.ops
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor
from torch.nn import functional

from cissod_bench.errors import UsageFault

SWITCH = "CISSOD_OPERATORS"
_BLOCK = 128  # boxes compared at once in NMS: their overlaps with 1000 others fit a processor's cache
_TAPS = (
    1 << 21
)  # weighted feature vectors summed in one call, about: bounds the memory of RoIs with many samples per bin


def with_cpu_operators(config: dict[str, Any]) -> dict[str, Any]:
    """Return mmdet settings in which RoIAlign, its extractor and NMS are those of this module, wherever they stand.

    Where the switch asks for mmcv's, only RoIAlign is replaced, by mmcv's with features in the usual format.

    Args:
        config: settings of a detector; they are not changed.
    """
    types: dict[str, Any] = {"RoIAlign": RoIAlign, "SingleRoIExtractor": RoIExtractor, "nms": nms}
    if operators(torch.device("cpu")) == "mmcv":
        types = {"RoIAlign": UsualRoIAlign}
    return dict(_replaced(config, types))


def operators(device: torch.device) -> str:
    """Return whose RoIAlign and NMS a detector on a device has: "mmcv", or "vectorised", the default on a CPU.

    Raises:
        UsageFault: the switch says something else.
    """
    chosen = os.environ.get(SWITCH, "") or "vectorised"
    if chosen not in ("vectorised", "mmcv"):
        raise UsageFault(
            f"The variable {SWITCH} must be mmcv or vectorised. Got {chosen!r} instead.", remedy=f"unset {SWITCH}"
        )
    return chosen if device.type == "cpu" else "mmcv"


def _replaced(value: Any, types: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_replaced(inner, types) for inner in value]
    if not isinstance(value, dict):
        return value
    content = {key: _replaced(inner, types) for key, inner in value.items()}
    kind = content.get("type")
    return {**content, "type": types[kind]} if isinstance(kind, str) and kind in types else content


class UsualRoIAlign(mmcv.ops.RoIAlign):  # type: ignore[misc]
    """mmcv's layer; it is given features in the usual memory format, the only one that it reads rightly."""

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Return the RoIs' features, shape (R, C, rows, columns), of features (B, C, H, W) in any memory format."""
        pooled: Tensor = super().forward(features.contiguous(), rois)
        return pooled


class RoIAlign(UsualRoIAlign):
    """mmcv's layer; on a CPU it averages by `roi_align`."""

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Return the RoIs' features, shape (R, C, rows, columns); see `roi_align`."""
        if features.device.type != "cpu" or self.pool_mode != "avg" or features.dtype != torch.float32:
            return super().forward(features, rois)
        return roi_align(
            features, rois, self.output_size, self.spatial_scale, self.sampling_ratio, aligned=self.aligned
        )


class RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """mmdet's; on a CPU it averages the RoIs of all levels at once (`roi_align_levels`) and not level after level."""

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Return the RoIs' features, shape (R, C, rows, columns); arguments as mmdet has them."""
        if roi_scale_factor is not None or not self.at_once(feats):
            usual: Tensor = super().forward(feats, rois, roi_scale_factor)
            return usual
        layer, levels = self.roi_layers[0], self.map_roi_levels(rois, len(feats))
        scales = [own.spatial_scale for own in self.roi_layers]
        return roi_align_levels(
            feats, rois, levels, layer.output_size, scales, layer.sampling_ratio, aligned=layer.aligned
        )

    def at_once(self, feats: Sequence[Tensor]) -> bool:
        """Tell whether it does so with these features, (B, C, H, W) per level.

        Not where bins have as many samples as they span pixels (preset `full`): large maps would be held twice.
        """
        layers = list(self.roi_layers)
        alike = {(*layer.output_size, layer.sampling_ratio, layer.aligned) for layer in layers}
        plain = all(type(own) is RoIAlign and own.pool_mode == "avg" and own.sampling_ratio > 0 for own in layers)
        on_cpu = all(maps.device.type == "cpu" and maps.dtype == torch.float32 for maps in feats)
        return len(layers) == len(feats) and len(alike) == 1 and plain and on_cpu


def roi_align(
    features: Tensor, rois: Tensor, bins: tuple[int, int], scale: float, sampling: int, *, aligned: bool = True
) -> Tensor:
    """Return each RoI's features as the mean of bilinear samples per bin, shape (R, C, rows, columns).

    He et al., Mask R-CNN, ICCV 2017, as mmcv computes it: samples further than a pixel outside the image are 0, those
    within it take the edge's value.

    Args:
        features: float32, shape (B, C, H, W), in any memory format.
        rois: image index and corners (x1, y1, x2, y2) in the image's pixels, shape (R, 5).
        bins: rows and columns of bins.
        scale: pixels of the features per pixel of the image.
        sampling: samples per bin and direction; 0 takes as many as a bin spans pixels.
        aligned: whether pixel i covers [i - 0.5, i + 0.5); False is the first version of the operator.

    Differentiable in ``features`` alone. Time O(R C rows columns samples).
    """
    levels = torch.zeros(len(rois), dtype=torch.int64)
    return roi_align_levels([features], rois, levels, bins, [scale], sampling, aligned=aligned)


def roi_align_levels(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    bins: tuple[int, int],
    scales: Sequence[float],
    sampling: int,
    *,
    aligned: bool = True,
) -> Tensor:
    """Return `roi_align` of RoIs that are each taken from a level of their own, all in one sum.

    Args:
        features: of every level, (B, C, H, W) each.
        rois: as for `roi_align`.
        levels: number of every RoI's level, int64, shape (R,).
        bins: rows and columns of bins.
        scales: of every level, pixels of the features per pixel of the image.
        sampling: as for `roi_align`.
        aligned: likewise.
    """
    vectors, heights, widths, begins = _in_a_row(features)
    corners = rois[:, 1:] * rois.new_tensor(scales)[levels, None] - (0.5 if aligned else 0.0)
    start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp(min=1.0)
    height, width = heights[levels], widths[levels]
    first = begins[levels] + rois[:, 0].long() * height * width

    def taps(rows: Tensor | slice, samples: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return places and weights of what these RoIs' bins sum with samples (down, across), shape (bins, taps)."""
        down, down_weight = _taps(start[rows, 1], size[rows, 1], bins[0], samples[0], height[rows])
        across, across_weight = _taps(start[rows, 0], size[rows, 0], bins[1], samples[1], width[rows])
        down = first[rows, None, None] + down * width[rows, None, None]
        places = down[:, :, None, :, None] + across[:, None, :, None, :]
        weights = down_weight[:, :, None, :, None] * across_weight[:, None, :, None, :]
        return places.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2)

    if sampling > 0:
        places, weights = taps(slice(None), (sampling, sampling))
        summed = functional.embedding_bag(places, vectors, per_sample_weights=weights, mode="sum")
    else:
        summed = _by_samples(vectors, size, bins, taps)
    return summed.view(-1, *bins, vectors.shape[1]).permute(0, 3, 1, 2)


def _in_a_row(features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the vectors of all levels, shape (V, C), each level's height, width and place of its first vector."""
    columns = [of_level.permute(0, 2, 3, 1).reshape(-1, of_level.shape[1]) for of_level in features]
    heights, widths = (torch.tensor([of_level.shape[side] for of_level in features]) for side in (2, 3))
    lengths = torch.tensor([len(column) for column in columns])
    return torch.cat(columns) if len(columns) > 1 else columns[0], heights, widths, lengths.cumsum(0) - lengths


def _by_samples(vectors: Tensor, size: Tensor, bins: tuple[int, int], taps: Any) -> Tensor:
    """Return the features of all RoIs' bins, shape (R rows columns, C); many RoIs are summed in one call.

    Each call keeps a gradient as large as the maps, and so there are few of them; those RoIs whose bins have as many
    samples get their taps together.
    """
    across, down = (size / size.new_tensor([bins[1], bins[0]])).ceil().long().clamp(min=0).unbind(1)
    pairs, group_of, numbers = torch.unique(
        torch.stack([down, across], 1), dim=0, return_inverse=True, return_counts=True
    )
    order, per_roi, begin = group_of.argsort(stable=True), bins[0] * bins[1], 0
    parts: list[tuple[Tensor, Tensor]] = []
    summed, held = [vectors[:0]], 0
    for samples, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        rows, begin = order[begin : begin + number], begin + number
        most = max(_TAPS // max(4 * samples[0] * samples[1] * per_roi, 1), 1)
        for some in rows.split(most):
            parts.append(taps(some, samples))
            held += parts[-1][0].numel()
            if held >= _TAPS:
                summed.append(_bag(vectors, parts))
                parts, held = [], 0
    if parts:
        summed.append(_bag(vectors, parts))
    bins_of = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))
    return torch.cat(summed).view(-1, per_roi, vectors.shape[1])[bins_of].flatten(0, 1)


def _bag(vectors: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return weighted sums of vectors, shape (bags, C), given places and weights, shape (bags, taps), part by part."""
    sizes = torch.cat([torch.full((len(places),), places.shape[1]) for places, _ in parts])
    places, weights = (torch.cat([part[side].flatten() for part in parts]) for side in (0, 1))
    return functional.embedding_bag(places, vectors, sizes.cumsum(0) - sizes, per_sample_weights=weights, mode="sum")


def _taps(start: Tensor, size: Tensor, bins: int, samples: int, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels that a bin's samples lie between and their weights in the bin's mean, along one axis.

    Args:
        start: where each RoI begins, pixels of the features, shape (r,).
        size: its length, shape (r,).
        bins: number of bins.
        samples: samples per bin.
        length: pixels of each RoI's features along the axis, int64, shape (r,).

    Returns:
        Pixels int64 in [0, length) and weights in [0, 1], both of shape (r, bins, 2 samples).
    """
    bin_size = (size / bins)[:, None, None]
    bin_number = torch.arange(bins, dtype=start.dtype)[None, :, None]
    within = torch.arange(samples, dtype=start.dtype) + 0.5
    at = start[:, None, None] + bin_number * bin_size + within * bin_size / samples
    end = length.to(start.dtype)[:, None, None]
    weight = ((at >= -1) & (at <= end)).to(start.dtype) / samples
    at = torch.minimum(at.clamp(min=0), end - 1)
    low = at.floor()
    high = torch.minimum(low + 1, end - 1)
    share = at - low
    return torch.cat([low, high], 2).long(), torch.cat([(1 - share) * weight, share * weight], 2)


def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    offset: int = 0,
    score_threshold: float = 0.0,
    max_num: int = -1,
) -> tuple[Tensor, Tensor]:
    """Return what non-maximum suppression keeps: boxes with scores, shape (K, 5), and their places, int64 (K,).

    Args:
        boxes: corners, shape (N, 4).
        scores: shape (N,).
        iou_threshold: a box is dropped whose overlap with a better kept one is above it.
        offset: added to sides; where it is not 0, ``mmcv.ops.nms`` takes over.
        score_threshold: boxes at or below it are left out; where it is above 0, ``mmcv.ops.nms`` takes over.
        max_num: the most boxes that are kept; -1 keeps all.
    """
    if boxes.device.type != "cpu" or offset or score_threshold > 0:
        kept: tuple[Tensor, Tensor] = mmcv.ops.nms(boxes, scores, iou_threshold, offset, score_threshold, max_num)
        return kept
    places = kept_boxes(boxes.detach(), scores.detach(), iou_threshold)
    if max_num > 0:
        places = places[:max_num]
    return torch.cat([boxes[places], scores[places, None]], 1), places


def kept_boxes(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the places of the boxes that greedy non-maximum suppression keeps, best score first, int64 (K,).

    Blocks of the best boxes left are settled at once: within a block, "kept unless a kept better one covers it" is
    repeated until nothing changes; what the block keeps then drops from the rest what it covers.
    """
    order = scores.sort(0, descending=True)[1]
    sides = boxes[order].t().contiguous()
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    left = torch.arange(len(order))
    kept = []
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        covers = _overlap(sides[:, block], area[block], sides[:, block], area[block], iou_threshold).triu_(1).float()
        keep = covers.new_ones(len(block))
        while True:
            after = (keep @ covers == 0).float()
            if torch.equal(after, keep):
                break
            keep = after
        best = block[keep.bool()]
        kept.append(best)
        if len(left):
            covered = _overlap(sides[:, best], area[best], sides[:, left], area[left], iou_threshold).any(0)
            left = left[~covered]
    return order[torch.cat(kept)] if kept else order


def kept_in_groups(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Return which boxes of every group greedy non-maximum suppression keeps, bool, shape (B, K); see `kept_boxes`.

    Args:
        boxes: of the groups, best first in each, shape (B, K, 4). Time and memory grow with B K^2.
        iou_threshold: a box is dropped whose overlap with a better kept one of its group is above it.
    """
    sides = boxes.detach().permute(2, 0, 1).contiguous()
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    covers = _overlap(sides, area, sides, area, iou_threshold).triu_(1).float()
    keep = covers.new_ones(len(covers), 1, covers.shape[2])
    while True:
        after = (keep @ covers == 0).float()
        if torch.equal(after, keep):
            return keep[:, 0].bool()
        keep = after


def _overlap(first: Tensor, first_area: Tensor, second: Tensor, second_area: Tensor, threshold: float) -> Tensor:
    """Return whether the IoU of two boxes is above the threshold, bool (..., N, M); sides are (4, ..., N) and M."""
    sides = first[..., :, None], second[..., None, :]
    width = torch.minimum(sides[0][2], sides[1][2]) - torch.maximum(sides[0][0], sides[1][0])
    height = torch.minimum(sides[0][3], sides[1][3]) - torch.maximum(sides[0][1], sides[1][1])
    common = width.clamp_(min=0).mul_(height.clamp_(min=0))
    return common / (first_area[..., :, None] + second_area[..., None, :] - common) > threshold
