"""C2AM: its formulas against worked numbers and written-out loops, the invariants, and its place in the detector."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectors import CLASSES, GROUPS, TINY, batch, tiny_detector
from run_facts import facts, rows
from tiny import tiny_task, tiny_training
from torch import Tensor
from watched_trainings import losses_of

from baselines import c2am
from baselines.c2am import METHOD, CategoryAwareMargins, CosineClassifier
from cissod_bench.catalogue import load_method
from cissod_bench.contract.parts import Context
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.reporting.paper_tables import METHODS, TABLES

WEIGHT = torch.tensor([[3.0, 0, 0], [0, 1, 0], [0, 0, 2]], dtype=torch.float64)
FEATURES = torch.tensor([[2.0, 1, 2]], dtype=torch.float64)
COSINES = [[0.666666667, 0.333333333, 0.666666667]]
# Label -> margins, logits, loss, loss without margins.
WORKED = {
    0: ([0.0, 0.174849576, 0.064531776], [20.0, 4.927195086, 18.516397865], 0.204425021, 0.69316988),
    1: ([0.0, 0.0, 0.0], [20.0, 10.0, 20.0], 10.69316988, 10.69316988),
    2: ([0.0, 0.1103178, 0.0], [20.0, 6.825278105, 20.0], 0.69314813, 0.69316988),
}


def close(found: Tensor, expected: Any, tolerance: float = 2e-9) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def data(seed: int, number: int = 20, channels: int = 5, features: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Features, weights of very different norms, labels."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(number, features, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, features, generator=generator, dtype=torch.float64)
    weight *= torch.logspace(-1, 1, channels, dtype=torch.float64)[:, None]
    return z, weight, torch.randint(channels, (number,), generator=generator)


def losses(z: Tensor, weight: Tensor, labels: Tensor, alpha: float = 0.5, **switches: Any) -> Tensor:
    margin = c2am.margins(weight.norm(dim=1), labels, alpha, **switches)
    return c2am.margin_losses(c2am.cosines(z, weight), labels, margin)


def reference(z: Tensor, weight: Tensor, label: int, alpha: float = 0.5, s: float = 30.0) -> float:
    """L_r = -ln(e^{s cos_i} / (e^{s cos_i} + sum_{j != i} e^{s cos(theta_j + m_ij)})), written out with angles."""
    norms = [math.hypot(*row) for row in weight.tolist()]
    theta = [
        math.acos(sum(a * b for a, b in zip(row, z.tolist(), strict=True)) / norm / math.hypot(*z.tolist()))
        for row, norm in zip(weight.tolist(), norms, strict=True)
    ]
    own = math.exp(s * math.cos(theta[label]))
    others = 0.0
    for j, angle in enumerate(theta):
        m = max(0.0, alpha / math.pi * math.log(norms[label] / norms[j]))
        if j != label:
            others += math.exp(s * (math.cos(angle + m) if angle + m <= math.pi else -1.0))
    return -math.log(own / (own + others))


# Formulas.


@pytest.mark.parametrize("label", WORKED)
def test_worked_margins_logits_and_losses(label: int) -> None:
    margin, logits, loss, plain = WORKED[label]
    labels = torch.tensor([label])
    cosine = c2am.cosines(FEATURES, WEIGHT)
    close(cosine, COSINES)
    found = c2am.margins(WEIGHT.norm(dim=1), labels)
    close(found, [margin])
    close(30 * c2am.shifted(cosine, found), [logits], 2e-8)
    close(c2am.margin_losses(cosine, labels, found), [loss])
    close(c2am.margin_losses(cosine, labels, torch.zeros(1, 3, dtype=torch.float64)), [plain])


def test_worked_boundary_of_two_classes() -> None:
    """Weights at t = 90 degrees with norms 4 to 1: both logits are equal at theta_1 = (t + m_12) / 2."""
    margin = c2am.margins(torch.tensor([4.0, 1.0], dtype=torch.float64), torch.tensor([0]))
    close(margin, [[0.0, 0.2206356]])
    theta = 0.895715963
    assert theta == pytest.approx((1.570796327 + 0.2206356) / 2, abs=1e-9)
    cosine = torch.tensor([[math.cos(theta), math.cos(math.pi / 2 - theta)]], dtype=torch.float64)
    own, other = (30 * c2am.shifted(cosine, margin))[0]
    close(own, other, 1e-7)


def test_norms_that_differ_by_7_percent_leave_a_margin_that_hardly_moves_a_logit() -> None:
    """Those of majority and minority at the end of a run on photographs, with AdamW; 4 to 1 moves logits by 6.6."""
    margin = c2am.margins(torch.tensor([0.361, 0.337], dtype=torch.float64), torch.tensor([0]))
    close(margin, [[0.0, 0.010949]], 1e-6)
    right_angle = torch.zeros(1, 2, dtype=torch.float64)
    assert (30 * c2am.shifted(right_angle, margin))[0, 1].item() == pytest.approx(-0.33, abs=0.01)
    assert any("0.01 radians" in departure for departure in c2am.METHOD.departures)


@pytest.mark.parametrize("seed", range(4))
def test_losses_are_the_formula_written_out(seed: int) -> None:
    z, weight, labels = data(seed, number=60, features=2)  # in a plane angles come near pi, too
    expected = [reference(own, weight, label) for own, label in zip(z, labels.tolist(), strict=True)]
    close(losses(z, weight, labels), expected, 1e-8)


def test_no_alpha_and_equal_norms_are_the_cosine_softmax() -> None:
    z, weight, labels = data(1)
    plain = F.cross_entropy(30 * F.cosine_similarity(z[:, None], weight[None], dim=2), labels, reduction="none")
    close(losses(z, weight, labels, alpha=0.0), plain, 1e-12)
    equal = F.normalize(weight, dim=1)
    close(losses(z, equal, labels), plain, 1e-9)


def test_the_loss_knows_neither_the_length_of_the_features_nor_the_common_length_of_the_weights() -> None:
    z, weight, labels = data(2)
    expected = losses(z, weight, labels)
    close(losses(7.5 * z, weight, labels), expected, 1e-11)
    close(losses(z, 0.03 * weight, labels), expected, 1e-11)


def test_the_gradient_is_orthogonal_to_every_weight() -> None:
    z, weight, labels = data(3)
    weight.requires_grad_()
    (gradient,) = torch.autograd.grad(losses(z, weight, labels).sum(), weight)
    assert gradient.norm(dim=1).min() > 1e-3
    close((gradient * weight).sum(dim=1), torch.zeros(5), 1e-10)


def test_margins_carry_no_gradient() -> None:
    _, weight, labels = data(4)
    weight.requires_grad_()
    assert not c2am.margins(weight.norm(dim=1), labels).requires_grad


def test_margins_are_not_negative_one_sided_and_0_at_the_label() -> None:
    _, weight, _ = data(5)
    margin = c2am.margins(weight.norm(dim=1), torch.arange(5))
    assert (margin >= 0).all()
    assert not margin.diagonal().any()
    assert not ((margin > 0) & (margin.T > 0)).any()
    assert (margin > 0).sum() == 10


def test_a_margin_lowers_the_competitors_logit_and_never_past_the_opposite_direction() -> None:
    cosine = torch.linspace(-1, 1, 201, dtype=torch.float64)
    before = cosine
    for margin in np.linspace(0.01, math.pi, 40):
        found = c2am.shifted(cosine, torch.full_like(cosine, float(margin)))
        assert ((found >= -1 - 1e-12) & (found <= before + 1e-12)).all()
        assert (found.diff() >= -1e-12).all()
        before = found


def test_without_the_background_margins_are_among_foreground_classes_only() -> None:
    _, weight, _ = data(6)
    norms = weight.norm(dim=1)
    whole, own = (c2am.margins(norms, torch.arange(5), background=switch) for switch in (True, False))
    assert torch.equal(own[:-1, :-1], whole[:-1, :-1])
    assert whole[-1].any()
    assert not own[-1].any()
    assert not own[:, -1].any()


def test_zero_vectors_have_finite_losses_and_gradients() -> None:
    z, weight, labels = data(7)
    z[0], weight[1] = 0, 0
    z.requires_grad_()
    weight.requires_grad_()
    assert not c2am.cosines(z, weight)[0].any()
    total = losses(z, weight, labels).sum()
    total.backward()
    assert torch.isfinite(total)
    assert z.grad is not None
    assert weight.grad is not None
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_features_along_a_weight_have_finite_gradients(sign: float) -> None:
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [1.0, -2.0]])
    z = (sign * weight[:1]).requires_grad_()
    losses(z, weight, torch.tensor([0])).sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


# The classifier.


def test_the_classifier_gives_s_cos_without_a_bias() -> None:
    torch.manual_seed(0)
    classifier = CosineClassifier(1024, 6)
    assert [name for name, _ in classifier.named_parameters()] == ["weight"]
    z = torch.randn(3, 1024)
    expected = 30 * F.cosine_similarity(z[:, None], classifier.weight[None], dim=2)
    torch.testing.assert_close(classifier(z), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(classifier.weight.norm(dim=1), torch.full((6,), 0.32), rtol=0, atol=0.03)


def test_the_classifier_keeps_full_precision_under_mixed_precision() -> None:
    torch.manual_seed(0)
    classifier, z = CosineClassifier(32, 6), torch.randn(4, 32)
    expected = classifier(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = classifier(z)
        assert F.linear(z, classifier.weight).dtype == torch.bfloat16
        assert classifier(z.bfloat16()).dtype == torch.float32
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# In the detector.


def parts_of(**fields: Any) -> CategoryAwareMargins:
    own = {"classes": CLASSES, "groups": GROUPS, "settings": TINY, "labelled_classes": ((0,),)}
    return CategoryAwareMargins(facts(**{**own, **fields}))


def detector_of(**fields: Any) -> SemiSupervisedDetector:
    return tiny_detector(parts_of(**fields))


def loss_of(detector: SemiSupervisedDetector, branch: Any = "sup") -> Tensor:
    logits, labels, v = rows(0, 20, 6)
    context = Context(0, 10, branch=branch, collect=True, student=detector.student)
    return detector.parts.classification_loss(30 * logits.tanh(), labels, v, v.sum(), context)


def test_student_and_teacher_have_cosine_classifiers_that_the_optimiser_and_the_average_know(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "c2am", "iterations=1", "generations=1")
    student, teacher = (
        model.roi_head.bbox_head.fc_cls for model in (training.detector.student, training.detector.teacher)
    )
    assert type(student).__name__ == type(teacher).__name__ == "CosineClassifier"
    assert torch.equal(student.weight, teacher.weight)
    assert student.weight.shape == (5, 32)
    assert not teacher.weight.requires_grad
    groups = training.optimiser.param_groups
    assert any(student.weight is own for group in groups for own in group["params"])
    before = student.weight.clone()
    training.run()
    assert not torch.equal(student.weight, before)


@pytest.mark.parametrize("branch", ["sup", "unsup_cls"])
def test_the_loss_is_weighted_by_v_and_has_the_students_margins(branch: str) -> None:
    detector = detector_of()
    weight = detector.student.roi_head.bbox_head.fc_cls.weight
    with torch.no_grad():
        weight.mul_(torch.logspace(-1, 1, 6)[:, None])
    logits, labels, v = rows(0, 20, 6)
    margin = c2am.margins(weight.norm(dim=1).double(), labels)
    assert margin.max() > 0.2
    expected = (v * c2am.margin_losses(logits.tanh(), labels, margin)).sum() / v.sum()
    torch.testing.assert_close(loss_of(detector, branch), expected)
    with torch.no_grad():
        detector.teacher.roi_head.bbox_head.fc_cls.weight.mul_(torch.logspace(1, -1, 6)[:, None])
    torch.testing.assert_close(loss_of(detector, branch), expected)


def test_variants_switch_the_margins_off_and_spare_the_background() -> None:
    logits, labels, v = rows(0, 20, 6)
    plain = (v * F.cross_entropy(30 * logits.tanh(), labels, reduction="none")).sum() / v.sum()
    found = {}
    for variant in ("", "cosine", "foreground-margins"):
        detector = detector_of(variant=METHOD.variants.get(variant, {}))
        with torch.no_grad():
            detector.student.roi_head.bbox_head.fc_cls.weight[-1] *= 50.0  # the background ahead of all others
        found[variant] = float(loss_of(detector))
    assert found["cosine"] == pytest.approx(float(plain))
    assert found[""] < found["foreground-margins"] < found["cosine"]


def test_scores_of_the_teacher_are_the_softmax_of_s_cos_without_margins() -> None:
    detector = detector_of()
    shown: list[Tensor] = []

    def watched(scores: Tensor, features: Tensor, context: Context) -> Tensor:
        weight = detector.teacher.roi_head.bbox_head.fc_cls.weight
        expected = (30 * F.cosine_similarity(features[:, None], weight[None], dim=2)).softmax(dim=1)
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-5)
        shown.append(scores)
        return scores

    detector.parts.score_transform = watched  # type: ignore[method-assign]
    images = batch()
    found = detector.teach(images["weak"], images["strong"], Context(0, 10))
    kept = torch.cat([one.scores for one in found.confident])
    assert len(kept) > 4
    assert torch.isin(kept, shown[0][:, :-1]).all()


@pytest.mark.parametrize("variant", ["", *METHOD.variants])
def test_every_variant_trains(tmp_path: Path, variant: str) -> None:
    training = tiny_training(
        tmp_path, "c2am", "iterations=4", "generations=2", task=tiny_task(repeat_threshold=1.0), variant=variant
    )
    lines = losses_of(training)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert all(line[f"norm_{name}"] > 0 for line in lines for name in ("maj", "min", "background"))
    assert set(training.detector.parts.state_dict()) == set()
    expected = labelled_copies(training.dataset.sources[0].classes_of_images(), 4, 1.0)
    assert training.position.copies.keys() == {0}
    np.testing.assert_array_equal(training.position.copies[0], expected)


def test_the_row_is_the_papers() -> None:
    method = load_method("c2am")
    assert method.title == METHODS["c2am"]
    assert "CVPR 2022" in method.citation
    printed = {
        task: {column: table.value(task, "c2am", column) for column in table.columns}
        for table in TABLES
        for task in table.tasks
    }
    assert method.reported == printed
