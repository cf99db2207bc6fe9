"""The student's RoIs on unlabelled images go through its head in one pass, with the values of separate ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from daso_parts import daso
from detectors import CLASSES, GROUPS, TINY, batch, tiny_detector, view
from torch import Tensor

from cissod_bench.contract.parts import Context, Parts


def _daso() -> Parts:
    parts = daso(classes=CLASSES, groups=GROUPS, settings=TINY, variant={"aligned": "proposals"})
    parts.extra_losses = lambda teacher, student, context: {"loss_align": student.square().mean()}  # type: ignore
    return parts


def _numbers(parts: Parts, alter: Callable[[Any], None]) -> tuple[dict[str, Tensor], dict[str, Tensor], list[int]]:
    """Losses, the student's gradients and how many RoIs its head saw at once, of one iteration."""
    detector, seen = tiny_detector(parts), list[int]()
    extractor = detector.student.roi_head.bbox_roi_extractor
    extractor.register_forward_hook(lambda layer, inputs, outputs: seen.append(len(inputs[1])))
    alter(detector)
    torch.manual_seed(3)
    losses = detector(batch(), Context(3, 10))
    torch.stack([value.sum() for value in losses.values()]).sum().backward()
    gradients = {name: p.grad for name, p in detector.student.named_parameters() if p.grad is not None}
    return losses, gradients, seen


def _separately(detector: Any) -> None:
    """Let every set of RoIs go through pooling and the shared layers on its own."""
    together = detector._shared_each
    detector._shared_each = lambda model, features, sets: [
        found for boxes in sets for found in together(model, features, [boxes])
    ]


@pytest.mark.parametrize("make", [lambda: Parts(len(CLASSES), TINY.theta), _daso])
def test_one_pass_has_the_losses_and_gradients_of_separate_ones(make: Callable[[], Parts]) -> None:
    losses, gradients, seen = _numbers(make(), lambda detector: None)
    expected, expected_gradients, apart = _numbers(make(), _separately)
    assert len(seen) == 2, "one pass on labelled images and one on unlabelled ones"
    assert sum(seen) == sum(apart)
    assert len(apart) == 3 + make().COMPARES_VIEWS
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-5)
    assert losses["unsup_loss_bbox"] > 0
    assert losses["unsup_loss_cls"] > 0


def _views_apart(detector: Any) -> None:
    """Let the student see labelled images and strong views in a pass each."""
    together = detector._student_features
    detector._student_features = lambda batches: {
        name: together({name: views})[name] for name, views in batches.items()
    }


@pytest.mark.parametrize("heights", [(64, 64), (64, 96)])
def test_labelled_images_and_strong_views_of_one_size_are_seen_at_once(heights: tuple[int, int]) -> None:
    passes: list[list[int]] = []

    def numbers(alter: Callable[[Any], None]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        detector, images = tiny_detector(), list[int]()
        detector.student.backbone.register_forward_hook(lambda layer, inputs, outputs: images.append(len(inputs[0])))
        alter(detector)
        data = batch()
        data["sup"] = [view(seed, 3, height=heights[1]) for seed in (0, 1)]
        torch.manual_seed(3)
        losses = detector(data, Context(3, 10))
        torch.stack([value.sum() for value in losses.values()]).sum().backward()
        passes.append(images)
        gradients = {name: p.grad for name, p in detector.student.named_parameters() if p.grad is not None}
        return losses, gradients

    (losses, gradients), (expected, expected_gradients) = numbers(lambda detector: None), numbers(_views_apart)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max().clamp(min=1e-3)
        assert (gradient - expected_gradients[name]).abs().max() <= 1e-3 * scale, name
    assert passes == ([[4], [2, 2]] if heights[0] == heights[1] else [[2, 2], [2, 2]])


def test_the_images_are_held_once_while_the_backbone_works() -> None:
    detector, data = tiny_detector(), batch()
    made, alive = list[weakref.ref[Tensor]](), list[int]()
    prepare = detector._prepare

    def noted(model: Any, views: Any) -> Any:
        images, samples = prepare(model, views)
        made.append(weakref.ref(images))
        return images, samples

    detector._prepare = noted  # type: ignore[method-assign]
    detector.student.backbone.register_forward_pre_hook(
        lambda layer, inputs: alive.append(sum(images() is not None for images in made))
    )
    detector._student_features({name: data[name] for name in ("sup", "strong")})
    assert (len(made), alive) == (2, [0]), "labelled images and strong views go in together, and nobody keeps them"
