"""Detections of a trained detector on the images that are scored, as a COCO result file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from cissod_bench.atomic import write_bytes
from cissod_bench.training.data import Source, ViewsDataset, scoring_batches
from cissod_bench.training.detector import SemiSupervisedDetector
from cissod_bench.training.parts import Context, Detections
from cissod_bench.training.settings import Settings


@torch.no_grad()
def predict(
    detector: SemiSupervisedDetector,
    source: Source,
    category_ids: tuple[int, ...],
    settings: Settings,
    *,
    teacher: bool,
    progress: Callable[[int], None] = lambda images: None,
) -> list[dict[str, Any]]:
    """Return detections in COCO's result format.

    Args:
        detector: as trained.
        source: the images that are scored.
        category_ids: category id of every channel.
        settings: the run's.
        teacher: the teacher's detections, else the student's.
        progress: told how many images were done since the last call.
    """
    dataset = ViewsDataset([source.without_boxes()], [("test",)], settings)
    context = Context(settings.iterations, settings.iterations)
    found: list[dict[str, Any]] = []
    for batch in scoring_batches(dataset, range(len(source)), settings.test_batch, settings.workers):
        results = detector.predict(batch["test"], context, teacher=teacher)
        for view, (boxes, labels, scores) in zip(batch["test"], results, strict=True):
            found += _records(view["data_samples"].img_id, boxes, labels, scores, category_ids)
        progress(len(results))
    return found


@torch.no_grad()
def detections(
    detector: SemiSupervisedDetector, source: Source, settings: Settings, indices: Sequence[int]
) -> Iterator[Detections]:
    """Yield the teacher's detections on some images of a source, each in the view that images are scored in.

    Args:
        detector: as trained so far.
        source: e.g. D_u; its boxes, if it has any, are not read.
        settings: the run's.
        indices: rows of the source.
    """
    dataset = ViewsDataset([source.without_boxes()], [("test",)], settings)
    context = Context(settings.iterations, settings.iterations)
    for batch in scoring_batches(dataset, indices, settings.test_batch, settings.workers):
        results = detector.predict(batch["test"], context, teacher=True)
        for view, found in zip(batch["test"], results, strict=True):
            sample = view["data_samples"]
            yield Detections(sample.img_id, sample.img_index, *found)


def _records(
    image_id: int, boxes: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor, category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    corners = boxes.double().cpu()
    xywh = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 6),
        }
        for box, label, score in zip(xywh, labels.tolist(), scores.double().tolist(), strict=True)
    ]


def write_predictions(path: Path, found: list[dict[str, Any]]) -> None:
    """Write a result file, gzipped; the same detections give the same bytes."""
    write_bytes(path, gzip.compress(msgspec.json.encode(found), 6, mtime=0))
