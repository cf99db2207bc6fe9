"""RoIAlign and NMS on a CPU against mmcv's operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mmcv.ops
import pytest
import torch
from detectors import TINY, batch, tiny_detector
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from timm_files import needs_timm
from torch import Tensor

from cissod_bench.contract.parts import Context
from cissod_bench.detector import cpu_operators
from cissod_bench.detector.building import build_model
from cissod_bench.detector.cpu_operators import (
    RoIAlign,
    RoIExtractor,
    UsualRoIAlign,
    kept_boxes,
    nms,
    operators,
    roi_align,
)
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.errors import UsageFault
from cissod_bench.records.record import DEFAULT_OPERATORS
from cissod_bench.running.provenance import hardware


def rois_of(generator: torch.Generator, number: int, images: int, side: float) -> Tensor:
    """RoIs of all sizes, some without an extent, some outside the image."""
    image = torch.randint(images, (number, 1), generator=generator).float()
    start = (torch.rand(number, 2, generator=generator) * 1.6 - 0.3) * side
    extent = torch.rand(number, 2, generator=generator) ** 3 * side
    extent[::7] = 0
    return torch.cat([image, start, start + extent], 1)


@settings(max_examples=60, deadline=None)
@example(0, 16, 1, (1, 1), (4, 6), 1.0, 3, True, False)
@example(1, 40, 9, (1, 1), (7, 7), 1.0, 3, False, True)
@given(
    seed=st.integers(0, 2**31),
    number=st.integers(0, 40),
    channels=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    bins=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    scale=st.sampled_from([0.25, 0.125, 1.0]),
    sampling=st.sampled_from([0, 1, 2, 3]),
    aligned=st.booleans(),
    last=st.booleans(),
)
def test_roi_align_has_mmcvs_values_and_gradients(
    seed: int,
    number: int,
    channels: int,
    shape: tuple[int, int],
    bins: tuple[int, int],
    scale: float,
    sampling: int,
    aligned: bool,
    last: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, *shape, generator=generator)
    rois = rois_of(generator, number, 2, max(shape) / scale)
    ours = features.clone(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    theirs = features.clone().requires_grad_()
    pooled = roi_align(ours, rois, bins, scale, sampling, aligned=aligned)
    wanted = mmcv.ops.roi_align(theirs, rois, bins, scale, sampling, "avg", aligned)
    torch.testing.assert_close(pooled, wanted, atol=1e-5, rtol=1e-5)
    weights = torch.randn(pooled.shape, generator=generator)
    (pooled * weights).sum().backward()
    # Hundreds of terms that cancel meet in one pixel of a tiny map, so the bound is one of their absolute sum.
    (added,) = torch.autograd.grad((wanted * weights.abs()).sum(), theirs, retain_graph=True)
    (wanted * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ((ours.grad - theirs.grad).abs() <= 1e-5 * added.clamp(min=1)).all()


@pytest.mark.parametrize("number", [40, 0])
def test_rois_of_all_levels_in_one_sum_are_those_level_by_level(number: int) -> None:
    generator = torch.Generator().manual_seed(7)
    extractor = build_model(faster_rcnn(TINY, 3)).roi_head.bbox_roi_extractor
    rois, results = rois_of(generator, number, 2, 700), []
    sizes = [128 // stride for stride in TINY.strides]
    maps = [torch.randn(2, TINY.fpn_channels, side, side + 1, generator=generator) for side in sizes]
    assert extractor.at_once(maps)
    assert not number or len(extractor.map_roi_levels(rois, len(maps)).unique()) > 2
    for kind in (RoIExtractor, SingleRoIExtractor):
        extractor.__class__ = kind
        features = [of_level.clone().requires_grad_() for of_level in maps]
        pooled = extractor(features, rois)
        (pooled * torch.linspace(-1, 1, pooled.numel()).view(pooled.shape)).sum().backward()
        results.append([pooled, *(of_level.grad for of_level in features)])
    assert torch.equal(results[0][0], results[1][0])
    for ours, theirs in zip(*results, strict=True):  # gradients are summed in another order
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_an_extractor_whose_bins_have_any_number_of_samples_pools_level_by_level() -> None:
    maps = [torch.zeros(1, TINY.fpn_channels, 4, 4)] * len(TINY.strides)
    for changes in ({"roi_sampling": 0}, {}):
        extractor = build_model(faster_rcnn(replace(TINY, **changes), 3)).roi_head.bbox_roi_extractor
        assert extractor.at_once(maps) == (not changes)
    assert not extractor.at_once([of_level.double() for of_level in maps])


def test_roi_align_of_many_samples_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    features, rois = torch.randn(1, 4, 30, 40, generator=generator), rois_of(generator, 25, 1, 120)
    whole = roi_align(features, rois, (3, 3), 0.25, 0)
    monkeypatch.setattr(cpu_operators, "_TAPS", 1)
    torch.testing.assert_close(roi_align(features, rois, (3, 3), 0.25, 0), whole, atol=0, rtol=0)


def test_rois_of_all_sizes_are_summed_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each call's gradient is as large as the maps, whatever it sums.
    calls: list[int] = []
    embedding_bag = cpu_operators.functional.embedding_bag

    def counted(places: Tensor, *rest: Tensor, **options: object) -> Tensor:
        calls.append(places.numel())
        return embedding_bag(places, *rest, **options)

    monkeypatch.setattr(cpu_operators.functional, "embedding_bag", counted)
    generator = torch.Generator().manual_seed(3)
    roi_align(torch.randn(2, 4, 30, 40, generator=generator), rois_of(generator, 60, 2, 120), (7, 7), 0.25, 0)
    assert len(calls) == 1


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    number=st.integers(0, 400),
    crowded=st.floats(0.01, 1.0),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    ties=st.booleans(),
    most=st.sampled_from([-1, 1, 5, 1000]),
)
def test_nms_keeps_mmcvs_boxes(seed: int, number: int, crowded: float, threshold: float, ties: bool, most: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(number, 2, generator=generator) * 200 * crowded
    boxes = torch.cat([start, start + torch.rand(number, 2, generator=generator) * 60], 1)
    scores = torch.rand(number, generator=generator)
    if ties:  # equal boxes, equal scores, boxes without area
        boxes, scores = boxes.round(), (scores * 10).round() / 10
        boxes[::5, 2:] = boxes[::5, :2]
    kept, places = nms(boxes, scores, threshold, max_num=most)
    wanted, wanted_places = mmcv.ops.nms(boxes, scores, threshold, max_num=most)
    assert torch.equal(places, wanted_places)
    assert torch.equal(kept, wanted)


def test_a_chain_of_overlaps_is_settled_from_its_best_box() -> None:
    places = torch.arange(300.0)
    boxes = torch.stack([places * 4, torch.zeros(300), places * 4 + 10, torch.full((300,), 10.0)], 1)
    scores = 1 - places / 1000  # every box covers the next one and is covered by the one before
    assert kept_boxes(boxes, scores, 0.4).tolist() == list(range(0, 300, 2))


def test_detectors_take_these_operators_and_mmcvs_by_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    def layers() -> tuple[set[type], set[object]]:
        model = build_model(faster_rcnn(TINY, 3))
        cfg = model.test_cfg
        return {type(layer) for layer in model.roi_head.bbox_roi_extractor.roi_layers}, {
            cfg.rpn.nms.type,
            cfg.rcnn.nms.type,
            model.train_cfg.rpn_proposal.nms.type,
        }

    assert layers() == ({RoIAlign}, {nms})
    monkeypatch.setenv("CISSOD_OPERATORS", "mmcv")
    assert layers() == ({UsualRoIAlign}, {"nms"})


@pytest.mark.parametrize("switch", ["mmcv", "vectorised"])
def test_rois_have_the_same_features_in_every_memory_format_by_either_switch(
    switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, TINY.fpn_channels, 64 // size, 64 // size, generator=generator) for size in TINY.strides]
    rois = rois_of(generator, 40, 2, 64.0)
    expected = build_model(faster_rcnn(TINY, 3)).roi_head.bbox_roi_extractor(maps, rois)
    monkeypatch.setenv("CISSOD_OPERATORS", switch)
    extractor = build_model(faster_rcnn(TINY, 3)).roi_head.bbox_roi_extractor
    for layout in (torch.contiguous_format, torch.channels_last):
        laid_out = [level.contiguous(memory_format=layout) for level in maps]
        torch.testing.assert_close(extractor(laid_out, rois), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "laid_out", [{"base_channels": 16}, pytest.param({"backbone": "timm:efficientnet_lite0"}, marks=needs_timm)]
)
def test_a_detector_whose_maps_lie_pixel_by_pixel_has_the_same_losses_by_either_switch(
    laid_out: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {}
    for switch in ("mmcv", "vectorised"):
        monkeypatch.setenv("CISSOD_OPERATORS", switch)
        detector = tiny_detector(settings=replace(TINY, **laid_out))
        torch.manual_seed(0)
        losses[switch] = {name: loss.item() for name, loss in detector(batch(), Context(0, 10)).items()}
    assert losses["mmcv"] == pytest.approx(losses["vectorised"], rel=1e-4)


def test_the_switch_is_checked_and_a_record_says_whose_operators_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert hardware(cpu)["operators"] == DEFAULT_OPERATORS
    assert operators(torch.device("cuda")) == "mmcv"
    monkeypatch.setenv("CISSOD_OPERATORS", "mmcv")
    assert hardware(cpu)["operators"] == "mmcv"
    monkeypatch.setenv("CISSOD_OPERATORS", "mmvc")
    with pytest.raises(UsageFault, match="must be mmcv or vectorised"):
        hardware(cpu)
