"""Tiny trainings whose teacher and student are asked for their detections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import tiny_training

from cissod_bench import distributed
from cissod_bench.training.loop import Training
from cissod_bench.training.predict import predicted_texts
from cissod_bench.training.result_files import write_texts

CATEGORIES = tuple(range(1, 5))
NAMES = ("teacher.json.gz", "student.json.gz")
SETTINGS = ("test_batch=4", "workers=0", "group_by_aspect=true")


def training_of(folder: Path, *changes: str) -> Training:
    training = tiny_training(folder, "soft-teacher", *SETTINGS, *changes)
    torch.manual_seed(5)
    with torch.no_grad():
        training.detector.student.roi_head.bbox_head.fc_cls.weight.normal_(0, 1)
    return training


def written(training: Training, folder: Path, **options: Any) -> None:
    texts = predicted_texts(training.detector, training.dataset.sources[0], training.settings, CATEGORIES, **options)
    write_texts([folder / name for name in NAMES] if distributed.rank() == 0 else [], texts)
