"""A method of ours: the process of such a side of ``step_time.py``, and the weights and thresholds of all sides."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np
import torch
from step_work import FIRST, ITERATIONS, Batch, Step, Work, draw_batch, serve
from torch import Tensor, nn

from cissod_bench.catalogue import load_method, load_task
from cissod_bench.contract.method import RunFacts
from cissod_bench.contract.parts import Context
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.training.loop import Training
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics

PSEUDO_LABELS = 5  # detections per image above the initial threshold, half of them above theta
LOGITS, DELTAS = 4.0, 0.3  # standard deviation of the random heads' output


def facts_of(settings: Settings, classes: int) -> RunFacts:
    """Return the facts of a run on images that hold a few classes each."""
    names = tuple(f"class {number}" for number in range(classes))
    rng = np.random.default_rng(0)
    labelled = tuple(tuple(map(int, np.unique(rng.integers(0, classes, 4)))) for _ in range(10 * classes))
    return RunFacts(
        task=load_task("coco-split1"),
        variant={},
        profile="default",
        classes=names,
        groups={"maj": names[: classes // 2], "min": names[classes // 2 :]},
        settings=settings,
        iterations=settings.iterations,
        generations=settings.generations,
        labelled_classes=labelled,
        labelled_boxes=(40,) * classes,
        num_unlabelled=100_000,
        seed=0,
    )


def detector_of(method: str, settings: Settings, classes: int, device: torch.device) -> SemiSupervisedDetector:
    """Return a method's detector with random weights; its heads prefer some classes, as trained ones do."""
    facts = facts_of(settings, classes)
    torch.manual_seed(0)
    model = faster_rcnn(settings, classes)
    detector = SemiSupervisedDetector(model, load_method(method).parts(facts), settings, facts.groups, facts.classes)
    head, batch = detector.teacher.roi_head.bbox_head, draw_batch(0, settings, classes)
    with torch.no_grad():
        settle_norms(detector.teacher.backbone, detector._prepare(detector.teacher, batch["weak"][:1])[0])
        size = _features(detector, batch).norm(dim=1).mean()
        head.fc_cls.weight.normal_(0, float(LOGITS / size))
        head.fc_reg.weight.normal_(0, float(DELTAS / size))
        detector.student.load_state_dict(detector.teacher.state_dict())
    return detector.to_device(device)


@torch.no_grad()
def settle_norms(backbone: nn.Module, images: Tensor) -> None:
    """Give batch norms that stand still the statistics of some images, as a training would have left them.

    With those of a new network (mean 0, variance 1) they norm nothing: the maps of a random ResNet-50 grow from block
    to block, a hundred thousand times in all.

    Args:
        backbone: of a detector; without batch norms it stays as it is.
        images: normalised, shape (B, 3, H, W).
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # these images alone
    if norms:
        backbone(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def _features(detector: SemiSupervisedDetector, batch: Batch) -> Tensor:
    """Return what the RoI head's last layers see of the proposals of an unlabelled image, shape (R, D)."""
    inputs, samples = detector._prepare(detector.teacher, batch["weak"][:1])
    features = detector.teacher.extract_feat(inputs)
    proposals = [found.bboxes for found in detector.teacher.rpn_head.predict(features, samples, rescale=False)]
    return detector._shared(detector.teacher, features, proposals)[1]


def thresholds_of(detector: SemiSupervisedDetector, settings: Settings, classes: int, batches: int) -> dict[str, float]:
    """Return thresholds that leave the random teacher its share of pseudo labels."""
    scores, spread, images = [], [], 0
    for seed in range(batches):
        batch = draw_batch(seed, settings, classes)
        with torch.no_grad():
            teacher = detector.teach(batch["weak"], batch["strong"], Context(FIRST, ITERATIONS))
        scores += [found.scores for found in teacher.pseudo]
        spread += [found.uncertainty for found in teacher.pseudo]
        images += len(teacher.pseudo)
    all_scores, all_spread = torch.cat(scores), torch.cat(spread)
    kept = min(PSEUDO_LABELS * images, len(all_scores) - 1)
    low, high = between(all_scores, kept), between(all_scores, kept // 2)
    box = between(all_spread, len(all_spread) // 2)
    return {"initial_threshold": low, "rpn_threshold": high, "theta": high, "box_threshold": box}


def between(values: Tensor, above: int) -> float:
    """Return a threshold that about so many numbers are above, in the middle of the widest gap thereabouts.

    A threshold that is one of the numbers would leave it to rounding whether that one is above, and with one pseudo
    label more or less every random draw after it is another.

    Args:
        values: shape (N,), not empty.
        above: how many, 0 to N - 1; an eighth of it more or fewer are above, at least one.
    """
    falling, reach = values.sort(descending=True).values, max(above // 8, 1)
    first, last = max(above - reach, 1), min(above + reach, len(falling) - 1)
    if last < first:
        return float(falling[-1])
    middles, gaps = (falling[first - 1 : last] + falling[first : last + 1]) / 2, -falling[first - 1 : last + 1].diff()
    return float(middles[gaps.argmax()])


def prepare(work: Work, folder: Path, weights: str, batches: int = 4) -> Work:
    """Write the weights of all sides; return the work with its thresholds.

    Args:
        work: without thresholds.
        folder: of the file.
        weights: its name.
        batches: from whose images thresholds come.
    """
    settings, device = work.settings(), torch.device(work.device)
    open_ = replace(settings, initial_threshold=0.0, theta=0.0)
    detector = detector_of("soft-teacher", open_, work.classes, device)
    torch.save(detector.teacher.state_dict(), folder / weights)
    return msgspec.structs.replace(work, thresholds=thresholds_of(detector, open_, work.classes, batches))


def our_step(method: str, settings: Settings, work: Work, folder: Path) -> Step:
    """Return the step of a run's training in its last stage."""
    detector = detector_of(method, settings, work.classes, torch.device(work.device))
    facts = facts_of(settings, work.classes)
    one_image = SimpleNamespace(image_ids=np.zeros(1, np.int64))
    training = Training(
        detector,
        cast(Any, SimpleNamespace(sources=(one_image, one_image))),  # the batches are ours
        TwoSourceSampler((1, 1), (1, 1), 0),
        settings,
        seed=0,
        file=Path("unused"),
        identity={},
        statistics=PseudoLabelStatistics(facts.groups, facts.classes, lambda: None),
    )
    training.position.stage = len(training.spans) - 1
    training._enter_stage()
    return lambda batch, iteration: cast(Tensor, training.step(batch, iteration)["loss"])


if __name__ == "__main__":
    serve(partial(our_step, sys.argv[3]), Path(sys.argv[1]), int(sys.argv[2]))
