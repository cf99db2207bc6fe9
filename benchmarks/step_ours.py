"""A method of ours: the process of such a side of ``step_time.py``, and the weights and thresholds of all sides."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from step_work import FIRST, ITERATIONS, Batch, Step, Work, draw_batch, serve
from torch import Tensor

from cissod_bench.catalogue import load_method, load_task
from cissod_bench.contract.method import RunFacts
from cissod_bench.contract.parts import Context
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.loading.sampler import TwoSourceSampler
from cissod_bench.training.loop import Training
from cissod_bench.training.pseudo_quality import PseudoLabelStatistics

PSEUDO_LABELS = 5  # detections an image above the initial threshold, half of them above theta
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
    head = detector.teacher.roi_head.bbox_head
    with torch.no_grad():
        size = _features(detector, draw_batch(0, settings, classes)).norm(dim=1).mean()
        head.fc_cls.weight.normal_(0, float(LOGITS / size))
        head.fc_reg.weight.normal_(0, float(DELTAS / size))
        detector.student.load_state_dict(detector.teacher.state_dict())
    return detector.to_device(device)


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
    sorted_scores = torch.cat(scores).sort(descending=True).values
    kept = min(PSEUDO_LABELS * images, len(sorted_scores) - 1)
    low, high = float(sorted_scores[kept]), float(sorted_scores[kept // 2])
    box = float(torch.cat(spread).median())
    return {"initial_threshold": low, "rpn_threshold": high, "theta": high, "box_threshold": box}


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
    return Work(
        preset=work.preset,
        changes=work.changes,
        classes=work.classes,
        device=work.device,
        threads=work.threads,
        thresholds=thresholds_of(detector, open_, work.classes, batches),
    )


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
