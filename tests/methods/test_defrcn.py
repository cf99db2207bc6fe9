"""DeFRCN: decoupled gradients, the surgery by name, and which images and classes a stage has."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from defrcn_parts import parts
from detectors import TINY, batch, tiny_detector
from run_facts import facts
from torch import Tensor, nn

from baselines.defrcn import (
    BACKGROUND,
    DROPOUT,
    METHOD,
    ROI_SHARES,
    RPN_SHARES,
    Decoupling,
    balanced_images,
    base_channels,
    base_images,
    dropout_for,
    grown,
)
from cissod_bench.catalogue import load_method
from cissod_bench.contract.parts import Context
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector


def decoupling(channels: int = 3, share: float = 0.75) -> Decoupling:
    layer = Decoupling(channels)
    layer.share = share
    with torch.no_grad():
        layer.weight.copy_(torch.arange(channels) + 0.5)
        layer.bias.copy_(torch.arange(channels) - 1.0)
    return layer


def small(stage: int = 0) -> SemiSupervisedDetector:
    """A small detector within a stage."""
    detector = tiny_detector(parts())
    for model in (detector.student, detector.teacher):
        detector.parts.enter_stage(model, Context(0, 10, stage=stage))
    detector.teacher.requires_grad_(False)
    return detector


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters() if p.grad is not None]


# The decoupling layer.
def test_a_new_decoupling_layer_is_the_identity() -> None:
    layer, features = Decoupling(4), torch.randn(2, 4, 5, 6)
    for share in (0.0, 0.01, 1.0):
        layer.share = share
        assert torch.equal(layer(features), features)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.75, 1.0])
def test_the_gradient_towards_the_features_is_scaled_and_the_affines_is_not(share: float) -> None:
    """y = x * w + b; dL/dx = lambda * w * dL/dy."""
    layer, x, pull = decoupling(share=share), torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5)
    y = layer(x)
    w, b = layer.weight, layer.bias
    torch.testing.assert_close(y, torch.stack([x[:, c] * w[c] + b[c] for c in range(3)], dim=1))
    own = torch.autograd.grad((y * pull).sum(), [x, w, b])
    torch.testing.assert_close(own[0], share * w.detach()[None, :, None, None] * pull)
    torch.testing.assert_close(own[1], (x.detach() * pull).sum(dim=(0, 2, 3)))
    torch.testing.assert_close(own[2], pull.sum(dim=(0, 2, 3)))


def test_all_levels_of_a_branch_share_one_layer_and_the_branches_have_one_each() -> None:
    student = small().student
    found = {name: m for name, m in student.named_modules() if type(m).__name__ == "Decoupling"}
    assert found.keys() == {"rpn_head.decoupling", "roi_head.bbox_roi_extractor.decoupling"}
    assert all(layer.weight.shape == layer.bias.shape == (TINY.fpn_channels,) for layer in found.values())


@pytest.mark.parametrize("stage", [0, 1])
def test_no_gradient_of_the_rpn_reaches_the_backbone(stage: int) -> None:
    detector = small(stage)
    student = detector.student
    before = copy.deepcopy(student.state_dict())
    inputs, samples = detector._prepare(student, batch()["sup"])
    losses, _ = detector._rpn_losses(student.extract_feat(inputs), samples)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert not any(gradient.any() for part in (student.backbone, student.neck) for gradient in gradients(part))
    assert student.rpn_head.decoupling.weight.grad.any()
    torch.optim.SGD(student.parameters(), lr=0.1).step()
    after = student.state_dict()
    shared = [name for name in before if name.startswith(("backbone", "neck"))]
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert not torch.equal(before["rpn_head.rpn_conv.weight"], after["rpn_head.rpn_conv.weight"])


def test_the_stages_scale_the_roi_heads_gradient_on_the_backbone_by_75_and_1_percent() -> None:
    assert (RPN_SHARES, ROI_SHARES) == ((0.0, 0.0), (0.75, 0.01))
    found: list[Tensor] = []
    for stage in (None, 0, 1):
        student = (detector := small(stage or 0)).student
        if stage is None:
            student.roi_head.bbox_roi_extractor.decoupling.share = 1.0
        inputs, samples = detector._prepare(student, batch()["sup"])
        boxes = [sample.gt_instances.bboxes for sample in samples]
        detector._shared(student, student.extract_feat(inputs), boxes)[1].sum().backward()
        found.append(torch.cat([gradient.flatten() for gradient in gradients(student.backbone)]))
    whole, base, tuning = found
    assert whole.norm() > 0.1
    assert (base - 0.75 * whole).norm() < 1e-4 * whole.norm()  # single precision; sums with cancellation
    assert (tuning - 0.01 * whole).norm() < 1e-6 * whole.norm()


def test_the_teacher_has_layers_of_its_own_that_its_forward_uses_and_its_update_averages() -> None:
    detector = small()
    student, teacher = detector.student, detector.teacher
    layers = [model.roi_head.bbox_roi_extractor.decoupling for model in (student, teacher)]
    assert layers[0] is not layers[1]
    inputs, _ = detector._prepare(teacher, batch()["weak"])
    features, boxes = teacher.extract_feat(inputs), [torch.tensor([[5.0, 6.0, 40.0, 50.0]])] * 2
    before = detector._shared(teacher, features, boxes)[1], teacher.rpn_head(features)[0][0]
    with torch.no_grad():
        for model in (student.rpn_head, student.roi_head.bbox_roi_extractor):
            model.decoupling.weight.fill_(3.0)
    assert torch.equal(detector._shared(teacher, features, boxes)[1], before[0])
    detector.update_teacher(1)  # its momentum is 1 - 1 / 2
    for model in (teacher.rpn_head, teacher.roi_head.bbox_roi_extractor):
        assert torch.equal(model.decoupling.weight, torch.full((TINY.fpn_channels,), 2.0))
    assert not torch.equal(detector._shared(teacher, features, boxes)[1], before[0])
    assert not torch.equal(teacher.rpn_head(features)[0][0], before[1])


# Dropout.
def test_dropout_is_for_the_student_in_training_in_the_second_stage_and_for_its_classifier_only() -> None:
    for stage in (0, 1):
        detector = small(stage)
        shared = torch.rand(4, TINY.fc_channels)
        for who, model in (("student", detector.student), ("teacher", detector.teacher)):
            head = model.roi_head.bbox_head
            for training in (True, False):
                model.train(training and who == "student")
                torch.manual_seed(0)
                scores, deltas = head.fc_cls(shared), head.fc_reg(shared)
                plain = F.linear(shared, head.fc_cls.weight, head.fc_cls.bias)
                dropped = stage == 1 and who == "student" and training
                assert torch.equal(scores, plain) == (not dropped), (stage, who, training)
                assert torch.equal(deltas, F.linear(shared, head.fc_reg.weight, head.fc_reg.bias))
                if dropped:
                    torch.manual_seed(0)
                    kept = F.dropout(shared, dropout_for(TINY.fc_channels))
                    other = F.linear(kept, head.fc_cls.weight, head.fc_cls.bias)
                    torch.testing.assert_close(scores, other)
    detector.train()
    assert not detector.teacher.roi_head.bbox_head.fc_cls.dropout.training


def test_a_narrow_heads_logits_are_disturbed_as_those_of_1024_channels_are() -> None:
    """A mean of D channels of 1, dropped with p: variance p / (1 - p) / D."""
    assert [dropout_for(width) for width in (1024, 2048)] == [DROPOUT, DROPOUT] == [0.8, 0.8]
    assert dropout_for(256) == pytest.approx(0.5)
    widths = (8, 32, 256, 1000)
    assert sorted(map(dropout_for, widths)) == [dropout_for(width) for width in widths]
    torch.manual_seed(0)
    for width in (*widths, 1024):
        means = F.dropout(torch.ones(20_000, width), dropout_for(width)).mean(dim=1)
        assert means.var().item() == pytest.approx(0.8 / 0.2 / 1024, rel=0.05), width


# The first stage's classes and images.
def test_base_classes_are_the_first_group_in_channel_order() -> None:
    assert parts().base == (0, 1, 2)
    assert base_channels({"d", "a"}, ("a", "b", "c", "d"), (1, 9, 9, 0)) == (0, 3)


def test_without_a_box_of_the_first_group_all_classes_with_boxes_are_base() -> None:
    """LVIS: a class is frequent in more than 100 images, which a small split does not have."""
    assert base_channels((), ("a", "b", "c"), (0, 3, 1)) == (1, 2)
    assert base_channels({"a"}, ("a", "b", "c"), (0, 3, 1)) == (1, 2)
    assert base_channels((), ("a", "b", "c"), (0, 0, 0)) == (0, 1, 2)


@pytest.mark.parametrize(
    ("images", "drawn"),
    [
        ([(0, 1), (1, 2), (), (2,), (0,)], [1, 0, 1, 0, 1]),  # without a box of another class
        ([(0, 2), (1, 2), (), (2,)], [1, 1, 0, 0]),  # every base box has another class beside it
        ([(2,), ()], [1, 1]),  # no base box at all
    ],
)
def test_the_first_stage_draws_images_of_base_classes(images: Sequence[Sequence[int]], drawn: list[int]) -> None:
    assert base_images(images, (0, 1)).tolist() == [bool(one) for one in drawn]


def test_the_few_shot_set_has_all_of_d_s_and_fills_the_base_classes_up() -> None:
    images = [(0,), (0, 2), (1,), (0,), (0, 1), (), (1,), (0,)]
    assert np.flatnonzero(balanced_images(images, (0, 1), range(8), shots=2)).tolist() == [0, 1, 2, 4]
    assert np.flatnonzero(balanced_images(images, (0, 1), range(7, -1, -1), shots=2)).tolist() == [1, 4, 6, 7]


def test_the_few_shot_set_holds_every_class_ten_times_where_there_are_as_many() -> None:
    rng = np.random.default_rng(0)
    images = [tuple(np.flatnonzero(rng.random(6) < 0.2)) for _ in range(300)]
    chosen = balanced_images(images, (0, 1, 2), rng.permutation(300))
    counts = [sum(channel in own for own, one in zip(images, chosen, strict=True) if one) for channel in range(6)]
    every = [sum(channel in own for own in images) for channel in range(6)]
    assert counts[3:] == every[3:]
    assert all(count >= 10 for count in counts)
    only = [tuple(channel for channel in own if channel < 3) for own in images]
    chosen = balanced_images(only, (0, 1, 2), rng.permutation(300))
    counts = [sum(channel in own for own, one in zip(only, chosen, strict=True) if one) for channel in range(3)]
    assert all(10 <= count < 20 for count in counts)


def test_repeat_factors_are_the_second_stages_copies_and_the_few_shot_set_the_variants() -> None:
    images = (*((number % 3,) for number in range(60)), (0, 3), (4,))
    own = parts(labelled_classes=images)
    first, second = (own.copies(Context(0, 10, stage=stage)) for stage in (0, 1))
    assert first.keys() == second.keys() == {0}
    assert first[0].tolist() == [1] * 60 + [0, 0]
    threshold = facts().task.repeat_threshold
    np.testing.assert_array_equal(second[0], labelled_copies(images, 5, threshold))
    few = parts(labelled_classes=images, variant=METHOD.variants["kshot"])
    assert few.copies(Context(0, 10))[0].tolist() == first[0].tolist()
    drawn = few.copies(Context(0, 10, stage=1))[0]
    assert drawn[60:].tolist() == [1, 1]
    assert [int(drawn[:60][channel::3].sum()) for channel in range(3)] == [9, 10, 10]
    other = parts(labelled_classes=images, variant=METHOD.variants["kshot"], seed=1)
    assert other.copies(Context(0, 10, stage=1))[0].tolist() != drawn.tolist()


# The first stage's classifier.
def test_the_first_stage_is_the_classifier_of_the_base_classes_and_background() -> None:
    own, logits = parts(), torch.randn(7, 6)
    smaller = logits[:, [0, 1, 2, 5]].softmax(dim=1)
    expected = torch.zeros(7, 6)
    expected[:, [0, 1, 2, 5]] = smaller
    torch.testing.assert_close(own.activation(logits), expected)
    torch.testing.assert_close(parts(stage=1).activation(logits), logits.softmax(dim=1))


def test_the_first_stages_loss_leaves_out_rows_of_other_classes() -> None:
    """sum over rows of base classes and background of v_r l_r / Z, with l_r over the K_1 = 4 channels known."""
    labels, weights = torch.tensor([0, 3, 5, 2, 4, 1, 5]), torch.tensor([1, 1, 0.3, 1, 1, 1, 0.8])
    logits, z = torch.randn(7, 6, requires_grad=True), torch.tensor(7.0)
    loss = parts().classification_loss(logits, labels, weights, z, Context(0, 10))
    rows, channel = [0, 2, 3, 5, 6], torch.tensor([0, 3, 2, 1, 3])
    own = F.cross_entropy(logits[rows][:, [0, 1, 2, 5]], channel, reduction="none")
    torch.testing.assert_close(loss, (weights[rows] * own).sum() / z)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert not gradient[[1, 4]].any()
    assert not gradient[:, [3, 4]].any()
    later = parts(stage=1).classification_loss(logits, labels, weights, z, Context(0, 10, stage=1))
    torch.testing.assert_close(later, (weights * F.cross_entropy(logits, labels, reduction="none")).sum() / z)


def test_a_batch_of_other_classes_only_has_no_classification_loss() -> None:
    logits = torch.randn(2, 6, requires_grad=True)
    loss = parts().classification_loss(logits, torch.tensor([3, 4]), torch.ones(2), torch.tensor(2.0), Context(0, 10))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()  # type: ignore[union-attr]


# The surgery.
def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("new", [("a", "b", "c", "d"), ("d", "c", "b", "a"), ("b", "x", "d", "a", "y", "c")])
@pytest.mark.parametrize("old", [("a", "b", "c", "d"), ("c", "a"), ("b",)])
def test_rows_follow_their_class_by_name(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    trained = torch.randn(len(old) + 1, 8)
    rows = grown(trained, (*old, BACKGROUND), (*new, BACKGROUND), block=1, spread=0.01, generator=draws())
    assert rows.shape == (len(new) + 1, 8)
    for place, name in enumerate(new):
        if name in old:
            assert torch.equal(rows[place], trained[old.index(name)])
        else:
            assert 0 < rows[place].abs().max() < 0.05
    assert torch.equal(rows[-1], trained[-1])


def test_blocks_of_the_box_regressor_move_as_one() -> None:
    trained = torch.arange(8.0).repeat_interleave(3).reshape(8, 3)
    rows = grown(trained, ("b", "a"), ("a", "c", "b"), block=4, spread=0.0, generator=draws())
    assert rows[:, 0].tolist() == [4, 5, 6, 7, 0, 0, 0, 0, 0, 1, 2, 3]
    biases = grown(torch.arange(8.0), ("b", "a"), ("a", "c", "b"), block=4, spread=0.0, generator=draws())
    assert biases.tolist() == rows[:, 0].tolist()


def test_fresh_rows_are_drawn_from_the_stated_normal_distribution() -> None:
    rows = grown(torch.ones(4, 1000), ("a",), ("a", "b", "c", "d"), block=4, spread=0.001, generator=draws())
    assert torch.equal(rows[:4], torch.ones(4, 1000))
    assert rows[4:].mean().abs() < 1e-4
    assert math.isclose(rows[4:].std().item(), 0.001, rel_tol=0.05)
    again = grown(torch.ones(4, 1000), ("a",), ("a", "b", "c", "d"), block=4, spread=0.001, generator=draws())
    assert torch.equal(rows, again)


def test_the_surgery_keeps_the_scores_and_boxes_of_the_base_classes_and_redraws_the_others() -> None:
    groups = {"maj": ("disc", "ball", "egg"), "min": ("box", "cone")}  # channels 0, 3, 4 and 1, 2
    own, student = parts(groups=groups), small().student
    head, shared = student.roi_head.bbox_head, torch.randn(9, TINY.fc_channels)
    with torch.no_grad():
        head.fc_cls.bias.normal_()
        head.fc_reg.bias.normal_()
    student.eval()
    before = head.fc_cls(shared), head.fc_reg(shared).reshape(9, 5, 4)
    torch.manual_seed(3)
    own.begin_stage(student, Context(0, 10, stage=1))
    after = head.fc_cls(shared), head.fc_reg(shared).reshape(9, 5, 4)
    assert own.base == (0, 3, 4)
    assert torch.equal(before[0][:, [0, 3, 4, 5]], after[0][:, [0, 3, 4, 5]])
    assert torch.equal(before[1][:, [0, 3, 4]], after[1][:, [0, 3, 4]])
    fresh = head.fc_cls.weight[1:3], head.fc_reg.weight[4:12]
    assert all(math.isclose(w.std().item(), s, rel_tol=0.3) for w, s in zip(fresh, (0.01, 0.001), strict=True))
    assert not head.fc_cls.bias[1:3].any()
    assert not head.fc_reg.bias[4:12].any()
    assert head.fc_cls.weight.requires_grad


def one_step(optimiser: Callable[..., torch.optim.Optimizer], share: float) -> Tensor:
    """How far one optimiser step moves a weight behind a decoupling layer."""
    torch.manual_seed(0)
    layer, decoupled, image = nn.Conv2d(2, 3, 1), decoupling(3, share), torch.randn(4, 2, 5, 5)
    before = layer.weight.detach().clone()
    made = optimiser([layer.weight], lr=1e-3)
    decoupled(layer(image)).square().sum().backward()
    made.step()
    return (layer.weight.detach() - before).abs()


def test_under_adamw_the_shares_change_nothing_which_the_record_says() -> None:
    """Adam's step is m / sqrt(v): a constant factor of the gradient cancels; SGD's step keeps it."""
    torch.testing.assert_close(one_step(torch.optim.SGD, 0.01), 0.01 * one_step(torch.optim.SGD, 1.0))
    without_decay = functools.partial(torch.optim.AdamW, weight_decay=0.0)
    torch.testing.assert_close(one_step(without_decay, 0.01), one_step(without_decay, 1.0), rtol=1e-4, atol=0.0)
    wide = replace(TINY, fc_channels=1024)
    assert parts(settings=replace(wide, optimiser="sgd")).departures() == {}
    made = parts(settings=replace(wide, optimiser="adamw")).departures()
    assert made == {"defrcn.roi_shares": [[0.75, 0.01], [1.0, 1.0]]}
    assert parts(settings=replace(wide, optimiser="sgd", fc_channels=256)).departures() == {
        "defrcn.dropout": [0.8, pytest.approx(0.5)]
    }


def test_it_states_the_papers_numbers_and_none_on_lvis() -> None:
    method = load_method("defrcn")
    assert method.reported == {
        "coco-split1": {"all": 24.4, "maj": 29.4, "min": 9.2},
        "coco-split2": {"all": 20.9, "maj": 30.5, "min": 11.3},
        "coco-o365": {"all": 7.9, "maj": 21.2, "min": 4.3},
    }
    assert "ICCV 2021" in method.citation
