"""The shared detector: equal to mmdet's SoftTeacher where that is right, and right where that is not (B1-B20)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectors import CLASSES, GROUPS, TINY, batch, tiny_detector, view
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes  # noqa: F401  registers box types
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from cissod_bench.contract.parts import Context, Parts
from cissod_bench.detector.formulas import project
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.detector.teacher_pass import ViewDetections
from cissod_bench.errors import EnvironmentFault

TOY_LOGITS = torch.tensor(
    [[2.0, 0.0, 1.0], [0.5, 1.0, 0.0], [1.0, -1.0, 2.0], [0.0, 0.0, 3.0], [-1.0, 2.0, 0.5]], dtype=torch.float64
)
TOY_LABELS = torch.tensor([0, 1, 2, 2, 0])
TOY_WEIGHTS = torch.tensor([1, 1, 0.8, 0.9, 1], dtype=torch.float64)


def context(iteration: int = 0, **fields: Any) -> Context:
    return Context(iteration, 100, **fields)


def stock_soft_teacher(detector: Any) -> Any:
    """mmdet's SoftTeacher with the same weights and thresholds."""
    config = ConfigDict(
        type="SoftTeacher",
        detector=faster_rcnn(TINY, len(CLASSES)),
        data_preprocessor=faster_rcnn(TINY, len(CLASSES))["data_preprocessor"],
        semi_train_cfg={
            "freeze_teacher": True, "sup_weight": 1.0, "unsup_weight": TINY.unsup_weight,
            "pseudo_label_initial_score_thr": TINY.initial_threshold, "rpn_pseudo_thr": TINY.rpn_threshold,
            "cls_pseudo_thr": TINY.theta, "reg_pseudo_thr": TINY.box_threshold, "jitter_times": TINY.jitter_times,
            "jitter_scale": TINY.jitter_scale, "min_pseudo_bbox_wh": (1e-2, 1e-2),
        },
        semi_test_cfg={"predict_on": "teacher"},
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope("mmdet"):
        stock = MODELS.build(config)
    stock.student.load_state_dict(detector.student.state_dict())
    stock.teacher.load_state_dict(detector.teacher.state_dict())
    stock.student.train()
    stock.teacher.eval()
    return stock


def stock_losses(stock: Any, views: dict[str, Any]) -> dict[str, float]:
    prepared = {}
    for name, samples in views.items():
        data = {"inputs": [v["inputs"] for v in samples], "data_samples": [v["data_samples"] for v in samples]}
        prepared[name] = stock.data_preprocessor(copy.deepcopy(data), False)
    losses = dict(stock.loss_by_gt_instances(prepared["sup"]["inputs"], prepared["sup"]["data_samples"]))
    weak, info = stock.get_pseudo_instances(prepared["weak"]["inputs"], prepared["weak"]["data_samples"])
    strong = stock.project_pseudo_instances(weak, prepared["strong"]["data_samples"])
    losses.update(stock.loss_by_pseudo_instances(prepared["strong"]["inputs"], strong, info))
    summed: dict[str, float] = {}
    for name, value in losses.items():
        if "loss" in name:
            value = sum(v.sum() for v in value) if isinstance(value, list) else value.sum()
            summed[name] = float(value)
    return summed


def test_losses_equal_mmdets_soft_teacher_on_the_same_random_draws() -> None:
    detector = tiny_detector()
    stock = stock_soft_teacher(detector)
    views = batch()
    torch.manual_seed(5)
    expected = stock_losses(stock, copy.deepcopy(views))
    torch.manual_seed(5)
    own = {name: float(value.sum()) for name, value in detector(views, context()).items()}
    pairs = {
        "rpn_loss_rpn_cls": "sup_loss_rpn_cls", "rpn_loss_rpn_bbox": "sup_loss_rpn_bbox", "loss_cls": "sup_loss_cls",
        "loss_bbox": "sup_loss_bbox", "unsup_rpn_loss_rpn_cls": "unsup_loss_rpn_cls",
        "unsup_rpn_loss_rpn_bbox": "unsup_loss_rpn_bbox", "unsup_loss_cls": "unsup_loss_cls",
        "unsup_loss_bbox": "unsup_loss_bbox",
    }  # fmt: skip
    for mine, theirs in pairs.items():
        value = expected.get(theirs, expected.get(theirs.replace("sup_", "", 1)))
        assert value is not None, (theirs, sorted(expected))
        assert own[mine] == pytest.approx(value, rel=1e-4, abs=1e-6), mine
    assert own["unsup_loss_bbox"] > 0
    assert own["unsup_loss_cls"] > 0


def test_classification_loss_is_weighted_cross_entropy_over_the_normaliser() -> None:
    parts = Parts(2)
    rows = F.cross_entropy(TOY_LOGITS, TOY_LABELS, reduction="none")
    torch.testing.assert_close(
        rows, torch.tensor([0.407606, 0.680270, 0.349012, 0.094923, 3.241311], dtype=torch.float64), atol=1e-6, rtol=0
    )
    loss = parts.classification_loss(TOY_LOGITS, TOY_LABELS, TOY_WEIGHTS, TOY_WEIGHTS.sum(), context())
    assert loss.item() == pytest.approx(0.998686674, abs=1e-9)


def test_unlabelled_images_wait_for_their_share_of_the_iterations() -> None:
    detector = tiny_detector(settings=replace(TINY, unsup_start=0.25))
    assert "unsup_loss_cls" not in detector(batch(), context(24))
    assert "unsup_loss_cls" in detector(batch(), context(25))


def test_moving_the_detector_moves_its_preprocessors_too() -> None:
    """Images would stay on the CPU: mmdet's preprocessor learns its device from its model's own ``to`` only."""
    detector = tiny_detector().to_device(torch.device("meta"))
    for model in (detector.student, detector.teacher):
        assert model.data_preprocessor.device.type == "meta"
        assert model.data_preprocessor.mean.device.type == "meta"


def test_projection_is_exact_under_mixed_precision() -> None:
    boxes = torch.tensor([[1001.3, 700.7, 1203.9, 777.1]])
    matrix = torch.tensor([[0.77, 0.0, 3.3], [0.0, 0.77, 1.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = project(boxes, matrix, 800, 1333)
    torch.testing.assert_close(moved, project(boxes, matrix, 800, 1333), rtol=0, atol=0)


@pytest.mark.parametrize("named", ["/nowhere/r50.pth", "http://127.0.0.1:9/r50.pth"])
def test_a_pretrained_backbone_that_cannot_be_had_is_named_with_the_way_out(named: str) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be read or fetched") as fault:
        tiny_detector(settings=replace(TINY, pretrained=named))
    assert named in fault.value.message
    assert "--set pretrained=FILE" in str(fault.value)


class Watcher(Parts):
    """Counts what it is asked, and when it may collect."""

    def __init__(self) -> None:
        super().__init__(len(CLASSES), TINY.theta)
        self.calls: list[tuple[str, str, bool]] = []

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        self.calls.append(("loss", context.branch, context.collect))
        return super().classification_loss(logits, labels, label_weights, normaliser, context)


def test_b1_the_regression_branch_never_asks_for_a_classification_loss() -> None:
    detector = tiny_detector(Watcher())
    losses = detector(batch(), context())
    assert detector.parts.calls == [("loss", "sup", True), ("loss", "unsup_cls", True)]
    assert losses["unsup_loss_bbox"].requires_grad


class PerClass(Parts):
    """A threshold per class: only class 1 passes."""

    def thresholds(self, context: Context) -> torch.Tensor:
        return torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])


class Labels(PerClass):
    seen: list[torch.Tensor]

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        if context.branch == "unsup_cls":
            self.seen.append(labels)
        return super().classification_loss(logits, labels, label_weights, normaliser, context)


def test_b2_every_class_has_its_own_threshold() -> None:
    parts = Labels(len(CLASSES))
    parts.seen = []
    tiny_detector(parts)(batch(), context())
    assert set(parts.seen[0].unique().tolist()) <= {1, len(CLASSES)}
    assert (parts.seen[0] == 1).any()


class SureObjects(Parts):
    """Says that the RPN's threshold is a score that no detection has."""

    def rpn_threshold(self, threshold: float) -> float:
        assert threshold == TINY.rpn_threshold
        return 1.0


def test_the_rpn_learns_from_detections_above_the_score_that_the_method_says() -> None:
    for parts in (Parts(len(CLASSES)), SureObjects(len(CLASSES))):
        detector, views = tiny_detector(parts), batch()
        pseudo = detector.teach(views["weak"], views["strong"], context()).pseudo
        of_rpn, *_ = detector._trusted(pseudo, parts.theta_fixed)
        assert any(len(objects) for objects in of_rpn) == (type(parts) is Parts)


def test_thresholds_are_strict() -> None:
    detector = tiny_detector()
    views = batch()
    teacher = detector.teach(views["weak"], views["strong"], context())
    scores = torch.cat([p.scores for p in teacher.pseudo])
    best = float(scores.max())
    detector.parts.theta_fixed.fill_(best)
    ctx = context()
    detector.unsupervised_losses(detector._student_features({"strong": views["strong"]})["strong"], teacher, ctx)
    assert sum(float(ctx.logs[f"pseudo_cls_{group}"]) for group in GROUPS) == 0


def test_b6_the_teacher_stays_in_evaluation_mode() -> None:
    detector = tiny_detector()
    detector.train()
    assert detector.student.training
    assert not any(module.training for module in detector.teacher.modules())


def test_b9_rows_of_weight_zero_do_not_change_the_normaliser() -> None:
    parts = Parts(2)
    weights = torch.tensor([1.0, 1, 0, 0, 1], dtype=torch.float64)
    rows = F.cross_entropy(TOY_LOGITS, TOY_LABELS, reduction="none")
    loss = parts.classification_loss(TOY_LOGITS, TOY_LABELS, weights, weights.sum().clamp(min=1), context())
    assert loss.item() == pytest.approx(float(rows[[0, 1, 4]].mean()))


def test_b13_the_methods_state_exists_once_and_teachers_buffers_are_not_averaged() -> None:
    detector = tiny_detector()
    detector.parts.register_buffer("count", torch.tensor(3.0))
    owners = [name for name in detector.state_dict() if name.endswith("count")]
    assert owners == ["parts.count"]
    for model in (detector.student, detector.teacher):
        model.register_buffer("tally", torch.tensor(1.0))
    detector.student.tally.fill_(9.0)
    detector.update_teacher(50)
    assert detector.teacher.tally.item() == 1.0


def test_teacher_moves_by_its_momentum() -> None:
    detector = tiny_detector()
    with torch.no_grad():
        for parameter in detector.student.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in detector.teacher.parameters()]
    detector.update_teacher(3)  # momentum 1 - 1/4
    for old, new in zip(before, detector.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    assert not any(p.requires_grad for p in detector.teacher.parameters())


@pytest.mark.parametrize("theta", [0.18, 1.0])
def test_without_pseudo_labels_losses_are_finite_and_reach_every_trainable_parameter(theta: float) -> None:
    settings = TINY if theta < 1 else TINY.__class__(**{**TINY.__dict__, "initial_threshold": 1.0})
    detector = tiny_detector(settings=settings)
    views = batch()
    if theta == 1.0:
        for one in views["sup"]:
            one["data_samples"].gt_instances = one["data_samples"].gt_instances[:0]
    losses = detector(views, context())
    total = sum(value.sum() for value in losses.values())
    assert torch.isfinite(total)
    total.backward()
    unused = [n for n, p in detector.student.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_background_counts_as_much_as_the_teacher_takes_it_for_background() -> None:
    seen = {}

    class Weights(Parts):
        def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
            seen[context.branch] = (labels, label_weights, normaliser)
            return super().classification_loss(logits, labels, label_weights, normaliser, context)

    tiny_detector(Weights(len(CLASSES), TINY.theta))(batch(), context())
    labels, weights, normaliser = seen["unsup_cls"]
    background = labels == len(CLASSES)
    assert (weights[~background] == 1).all()
    assert ((weights[background] > 0) & (weights[background] < 1)).all()
    assert normaliser.item() == pytest.approx(max(weights.sum().item(), 1))
    labels, weights, normaliser = seen["sup"]
    assert (weights == 1).all()
    assert normaliser.item() == len(labels)


def test_pseudo_labels_land_on_the_same_pixels_in_the_strong_view() -> None:
    detector = tiny_detector()
    views = batch()
    torch.manual_seed(0)
    straight = detector.teach(views["weak"], views["weak"], context())
    torch.manual_seed(0)
    flipped = detector.teach(views["weak"], views["strong"], context())
    for one, other in zip(straight.pseudo, flipped.pseudo, strict=True):
        assert len(one.boxes) > 0
        mirrored = torch.stack([96 - one.boxes[:, 2], one.boxes[:, 1], 96 - one.boxes[:, 0], one.boxes[:, 3]], dim=1)
        torch.testing.assert_close(other.boxes, mirrored)


def test_b16_with_1203_classes_only_candidates_are_decoded_and_background_scores_need_no_box() -> None:
    torch.manual_seed(0)
    names = [f"class {number}" for number in range(1203)]
    detector = SemiSupervisedDetector(faster_rcnn(TINY, 1203), Parts(1203, TINY.theta), TINY, {"all": names}, names)
    with torch.no_grad():
        detector.teacher.roi_head.bbox_head.fc_cls.weight.normal_(0, 4.0)
    regressed, decoded, candidates = [], [], []
    head = detector.teacher.roi_head.bbox_head
    head.fc_reg.register_forward_hook(lambda _, inputs, __: regressed.append(len(inputs[0])))
    own = head.bbox_coder.decode

    def decode(boxes: torch.Tensor, deltas: torch.Tensor, **limits: Any) -> torch.Tensor:
        decoded.append(deltas.shape)
        return own(boxes, deltas, **limits)

    head.bbox_coder.decode = decode
    activation = detector.parts.activation
    detector.parts.activation = lambda logits: candidates.append(activation(logits)) or candidates[-1]
    detector(batch(), context())
    (first, background), images = candidates, 2
    assert len(regressed) == 2, "boxes are regressed for the detections and for their jittered copies"
    assert len(background) > 0, "scores are asked for the student's background RoIs, too"
    sizes = [shape[0] for shape in decoded]
    assert sum(sizes[:images]) == int((first[:, :-1] > TINY.score_floor).sum()) > 0
    assert max(sizes) <= TINY.max_dets * TINY.jitter_times < first[:, :-1].numel() / images
    assert all(shape[1] == 4 for shape in decoded), "one class a box"


def test_prediction_is_in_original_pixels_and_leaves_the_modes_as_they_were() -> None:
    detector = tiny_detector()
    one = view(1, height=64, width=96)
    half = copy.deepcopy(one)
    half["data_samples"].set_metainfo({"scale_factor": (2.0, 2.0), "ori_shape": (32, 48)})
    (boxes, *_), (small, *_) = (detector.predict([v], context(), teacher=True)[0] for v in (one, half))
    torch.testing.assert_close(small * 2, boxes)
    assert detector.student.training
    assert not detector.teacher.training


def test_a_speck_that_jitter_turns_over_does_not_stop_the_teacher() -> None:
    """RoIAlign on a CPU ends the program at a box with a negative side."""
    detector = tiny_detector()
    inputs, samples = detector._prepare(detector.teacher, batch()["weak"][:1])
    speck = ViewDetections(
        torch.tensor([[10.0, 10.0, 10.02, 10.02]]), torch.tensor([1]), torch.ones(1), torch.zeros(1, 32)
    )
    torch.manual_seed(0)
    (u,) = detector._uncertainties(detector.teacher.extract_feat(inputs), samples, [speck])
    assert torch.isfinite(u).all()


@pytest.mark.parametrize(("limits", "most"), [("train", 20), ("test", 7)])
def test_the_teachers_proposals_have_the_limits_of_training_or_of_scoring_as_it_is_set(limits: Any, most: int) -> None:
    """B12. In scoring they always have their own."""
    settings = replace(TINY, proposals_train=(50, 20), proposals_test=(30, 7), teacher_proposals=limits)
    detector, data, seen = tiny_detector(settings=settings), batch(), list[int]()
    shared = detector._shared

    def watched(model: Any, features: Any, boxes: Any) -> Any:
        seen.extend(len(own) for own in boxes)
        return shared(model, features, boxes)

    detector._shared = watched  # type: ignore[method-assign]
    detector.teach(data["weak"], data["strong"], context())
    assert seen[:2] == [most, most]
    seen.clear()
    detector.predict(data["weak"], context(), teacher=True)
    assert seen == [7, 7]
