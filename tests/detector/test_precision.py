"""Mixed precision: coordinates are exact, however large the image; without it no number changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from detectors import CLASSES, TINY, batch, tiny_detector, view
from torch import Tensor

from cissod_bench.catalogue import load_method
from cissod_bench.contract.parts import Context
from cissod_bench.detector.precision import as_float, in_software, without_autocast
from cissod_bench.errors import UsageFault

WIDE = {"height": 96, "width": 1600}
FEW = replace(TINY, proposals_train=(300, 200), proposals_test=(300, 200), max_dets=300, score_floor=0.0, nms_iou=1.0)


@pytest.mark.parametrize("known", [{}, {"avx512_bf16": False, "amx_bf16": False}, {"architecture": "x86_64"}])
def test_bf16_without_instructions_for_it_is_told(known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert in_software("bf16", torch.device("cpu"))
    assert not in_software("off", torch.device("cpu"))
    assert not in_software("bf16", torch.device("cuda"))
    for name in ("avx512_bf16", "amx_bf16", "bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=name: {**known, has: True})
        assert not in_software("bf16", torch.device("cpu"))


def mixed(on: bool = True) -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16) if on else nullcontext()


def still(detector: Any) -> Any:
    """The detector with regressors that move no box: proposals are anchors, detections proposals."""
    with torch.no_grad():
        for model in (detector.student, detector.teacher):
            for layer in (model.rpn_head.rpn_reg, model.roi_head.bbox_head.fc_reg):
                layer.weight.zero_()
                layer.bias.zero_()
    return detector


def anchors(model: Any, width: int = 1600, height: int = 96) -> Tensor:
    """All anchors of a padded image in float64, clipped to it, shape (A, 4)."""
    generator = model.rpn_head.prior_generator
    sizes = [(-(-height // stride), -(-width // stride)) for stride, _ in generator.strides]
    boxes = torch.cat(generator.grid_priors(sizes, dtype=torch.float32, device="cpu"))
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    return boxes.clamp(min=0).minimum(limit)


def farthest(boxes: Tensor, known: Tensor) -> float:
    """How far the worst of some boxes is from the nearest known one, pixels."""
    return float(torch.cdist(boxes.double(), known.double(), p=float("inf")).amin(dim=1).max())


def proposals_of(detector: Any, *, teacher: bool, on: bool) -> list[Tensor]:
    model = detector.teacher if teacher else detector.student
    views = [view(7, 3, **WIDE)]
    with torch.no_grad(), mixed(on):
        inputs, samples = detector._prepare(model, views)
        features = model.extract_feat(inputs)
        if teacher:
            return list(detector._proposals(model, features, samples, Context(0, 10, branch="teacher")))
        return [one.bboxes for one in detector._rpn_losses(features, samples)[1]]


@pytest.mark.parametrize("teacher", [True, False])
def test_proposals_far_to_the_right_are_anchors_to_the_last_digit(teacher: bool) -> None:
    detector = still(tiny_detector(settings=FEW))
    known = anchors(detector.student)
    for on in (False, True):
        (boxes,) = proposals_of(detector, teacher=teacher, on=on)
        assert boxes.dtype == torch.float32
        assert (boxes[:, 2] > 1024).sum() > 10
        assert farthest(boxes, known) < 1e-3


def test_boxes_of_the_detector_are_those_of_full_precision() -> None:
    detector = still(tiny_detector(settings=FEW))
    known = anchors(detector.student)
    for on in (False, True):
        with torch.no_grad(), mixed(on):
            inputs, samples = detector._prepare(detector.teacher, [view(7, 3, **WIDE)])
            features = detector.teacher.extract_feat(inputs)
            (found,) = detector._detect(detector.teacher, features, samples, Context(0, 10, branch="teacher"))
        assert found.boxes.dtype == torch.float32
        assert (found.boxes[:, 0] > 1024).sum() > 10
        assert farthest(found.boxes, known) < 1e-2


def test_boxes_are_decoded_from_the_layers_outputs_in_full_precision() -> None:
    detector = tiny_detector()
    torch.manual_seed(0)
    corner = torch.rand(50, 2) * torch.tensor([1400.0, 60.0])
    rois = torch.cat([torch.zeros(50, 1), corner, corner + 20], dim=1)
    deltas = torch.randn(50, 4 * len(CLASSES)).bfloat16()
    rows, labels = torch.arange(50), torch.arange(50) % len(CLASSES)
    with mixed():
        boxes = detector._decode(detector.teacher, rois, deltas, (96, 1600), rows, labels)
    expected = detector._decode(detector.teacher, rois, deltas.float(), (96, 1600), rows, labels)
    torch.testing.assert_close(boxes, expected, rtol=0, atol=0)


@contextmanager
def pooled_by(extractor: Any) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = extractor.register_forward_hook(lambda _, __, output: seen.append(output))
    yield seen
    handle.remove()


@pytest.mark.parametrize("settings", [TINY, replace(TINY, roi_sampling=0, roi_size=7)], ids=["one sample", "adaptive"])
def test_rois_are_pooled_where_they_are(settings: Any) -> None:
    detector = tiny_detector(settings=settings)
    extractor = detector.teacher.roi_head.bbox_roi_extractor
    # Column numbers that bfloat16 holds exactly, so that what differs is where RoIAlign looks.
    features = tuple(
        (torch.arange(1600 // s) // (32 // s)).float().expand(1, 16, 96 // s, 1600 // s).contiguous()
        for s in settings.strides
    )
    boxes = torch.tensor([[1025.3, 10.1, 1040.7, 30.9], [1533.1, 3.3, 1590.9, 80.2], [3.3, 2.2, 17.7, 40.4]])
    with torch.no_grad(), pooled_by(extractor) as seen:
        rois, _ = detector._shared(detector.teacher, features, [boxes])
        with mixed():
            mixed_rois, _ = detector._shared(detector.teacher, tuple(f.bfloat16() for f in features), [boxes])
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=0)
    torch.testing.assert_close(mixed_rois, rois, rtol=0, atol=0)


def test_uncertainty_of_a_small_box_far_to_the_right_is_that_of_full_precision() -> None:
    """The threshold is 2 %: the steps of half precision alone would be 5 % of a box of 20 pixels."""
    detector = still(tiny_detector())
    boxes = torch.tensor([[1500.3, 40.2, 1520.9, 60.1]])
    u = []
    for on in (False, True):
        torch.manual_seed(3)
        with torch.no_grad(), mixed(on):
            inputs, samples = detector._prepare(detector.teacher, [view(7, 1, **WIDE)])
            features = detector.teacher.extract_feat(inputs)
            (found,) = detector._detect(detector.teacher, features, samples, Context(0, 10, branch="teacher"))
            one = found.kept(torch.arange(len(found.boxes)) == 0)
            one.boxes, one.labels = boxes, torch.tensor([1])
            torch.manual_seed(4)
            u.append(detector._uncertainties(features, samples, [one])[0])
    torch.testing.assert_close(u[1], u[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["soft-teacher", "ours", "eqlv2", "c2am", "daso", "defrcn", "crest"])
def test_losses_of_every_method_are_float32_and_finite_in_mixed_precision(method: str, tmp_path: Any) -> None:
    from tiny import tiny_training

    training = tiny_training(tmp_path, load_method(method), "iterations=12", "unsup_start=0")
    views = next(iter(_batches(training)))
    with mixed():
        losses = training.detector(views, Context(5, 12))
    assert {name for name, value in losses.items() if value.dtype != torch.float32} == set()
    total = torch.stack([value.sum() for value in losses.values()]).sum()
    assert torch.isfinite(total)
    total.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("method", ["soft-teacher", "ours", "eqlv2", "c2am", "daso", "defrcn", "crest"])
def test_two_steps_of_every_method_in_bf16_are_near_those_in_float32(method: str, tmp_path: Any) -> None:
    from tiny import tiny_training

    lines: dict[str, list[dict[str, float]]] = {}
    for amp in ("off", "bf16"):
        training = tiny_training(tmp_path, load_method(method), "iterations=12", "workers=0", f"amp={amp}")
        training.log = lines.setdefault(amp, []).append
        training.run(until=2)
        assert training.position.skipped == 0
        assert not training.scaler.is_enabled()
        assert {p.dtype for p in training.detector.parameters()} == {torch.float32}
    plain, half = lines["off"][0], lines["bf16"][0]
    losses = [name for name in plain if "loss" in name]
    assert [name for name in losses if not math.isfinite(half[name])] == []
    labelled = [name for name in losses if not name.startswith("unsup") and name != "loss"]
    assert [half[name] for name in labelled] == pytest.approx([plain[name] for name in labelled], rel=0.02)
    assert half["loss"] == pytest.approx(plain["loss"], rel=0.1)  # few pseudo boxes, and one more or less counts
    assert half["loss"] != plain["loss"]
    assert math.isfinite(lines["bf16"][1]["loss"])


def test_fp16_without_a_gpu_is_refused(tmp_path: Any) -> None:
    from tiny import tiny_training

    with pytest.raises(UsageFault, match="amp=fp16 needs a GPU") as told:
        tiny_training(tmp_path, "soft-teacher", "amp=fp16")
    assert told.value.remedy.startswith("--set amp=off")


def _batches(training: Any) -> Iterator[Any]:
    from cissod_bench.loading.loaders import training_batches

    training._begin()
    yield from training_batches(training.dataset, training.sampler, 0, 1, 0)


def test_without_mixed_precision_nothing_is_copied_or_changed() -> None:
    values = [torch.rand(3), torch.rand(2)]
    assert [a is b for a, b in zip(as_float(values), values, strict=True)] == [True, True]
    assert as_float((1, "a", None)) == (1, "a", None)
    detector = tiny_detector()
    torch.manual_seed(0)
    plain = detector(batch(), Context(0, 10))
    torch.manual_seed(0)
    with without_autocast(torch.device("cpu")):
        again = detector(batch(), Context(0, 10))
    assert all(torch.equal(plain[name], again[name]) for name in plain)
