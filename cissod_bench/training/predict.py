"""Detections of a trained detector: on the images that are scored, as a COCO result file; on D_u, for a method.

They become packed text image by image, 25 bytes a detection. As a list of Python's dicts, 100 detections on each of
the 80,000 images of Objects365 would take 4.6 GB (measured on 8,000).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import torch

from cissod_bench.contract.parts import Context, Detections, LabelledImage
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.files.whole_files import replacing
from cissod_bench.loading.loaders import ViewsDataset, scoring_batches
from cissod_bench.loading.sources import Source
from cissod_bench.loading.unread import Told, refuse

_PIECE = 10_000  # detections that are turned into text at once
_GZIP = 16 + zlib.MAX_WBITS  # zlib's word for a gzip header, which it writes without a time


def predict(
    detector: SemiSupervisedDetector,
    source: Source,
    settings: Settings,
    *,
    teacher: bool,
    absent: Collection[str] = (),
    progress: Callable[[int], None] = lambda images: None,
) -> Iterator[Detections]:
    """Yield the detections on every image of a source.

    Args:
        detector: as trained.
        source: the images that are scored.
        settings: the run's.
        teacher: the teacher's detections, else the student's.
        absent: files that the release of the data lacks; their boxes stay undetected.
        progress: told how many images were done since the last call.
    """
    rows = range(len(source))
    indices = [row for row in rows if source.name(row) not in absent] if absent else rows
    for found in detections(detector, source, settings, indices, teacher=teacher):
        yield found
        progress(1)


@torch.no_grad()
def detections(
    detector: SemiSupervisedDetector,
    source: Source,
    settings: Settings,
    indices: Sequence[int],
    *,
    teacher: bool = True,
    told: Told = refuse,
) -> Iterator[Detections]:
    """Yield the detections on some images of a source, each in the view that images are scored in.

    Args:
        detector: as trained so far.
        source: e.g. D_u; its boxes, if it has any, are not read.
        settings: the run's.
        indices: rows of the source.
        teacher: the teacher's detections, else the student's.
        told: takes the images that cannot be read, which have no detections then; `refuse` ends the pass.
    """
    dataset = ViewsDataset([source.without_boxes()], [("test",)], settings)
    context = Context(settings.iterations, settings.iterations)
    with closing(scoring_batches(dataset, indices, settings.test_batch, settings.workers, told)) as batches:
        for batch in batches:
            views = batch.get("test", [])
            results = detector.predict(views, context, teacher=teacher) if views else []
            for view, found in zip(views, results, strict=True):
                sample = view["data_samples"]
                yield Detections(sample.img_id, sample.img_index, *found)


def labelled_images(
    source: Source, settings: Settings, indices: Sequence[int], told: Told = refuse
) -> Iterator[LabelledImage]:
    """Yield some images of a source with their boxes, in the view that images are scored in.

    Args:
        source: e.g. D_l.
        settings: the run's.
        indices: rows of the source.
        told: takes the images that cannot be read, which are passed over then; `refuse` ends the pass.
    """
    dataset = ViewsDataset([source], [("test",)], settings)
    with closing(scoring_batches(dataset, indices, settings.test_batch, settings.workers, told)) as batches:
        for view in (view for batch in batches for view in batch.get("test", [])):
            truth = view["data_samples"].gt_instances
            boxes = getattr(truth.bboxes, "tensor", truth.bboxes)
            yield LabelledImage(view["inputs"], boxes, torch.as_tensor(truth.labels))


def _records(found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return detections in COCO's result format."""
    corners = found.boxes.double().cpu()
    xywh = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()
    return [
        {
            "image_id": found.image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 6),
        }
        for box, label, score in zip(xywh, found.labels.tolist(), found.scores.double().tolist(), strict=True)
    ]


def _text(records: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield the JSON array of all records in pieces."""
    before, waiting = b"[", list[dict[str, Any]]()
    for some in records:
        waiting += some
        if len(waiting) >= _PIECE:
            yield before + msgspec.json.encode(waiting)[1:-1]
            before, waiting = b",", []
    yield before + msgspec.json.encode(waiting)[1:] if waiting or before == b"[" else b"]"


def write_predictions(path: Path, found: Iterable[Detections], category_ids: Sequence[int]) -> None:
    """Write a COCO result file, gzipped; the same detections give the same bytes.

    What is held meanwhile is the packed text: the file is opened when it is complete, so that a run that is
    killed while it predicts leaves nothing behind.

    Args:
        path: the file.
        found: detections, image by image.
        category_ids: category id of every channel.
    """
    packer = zlib.compressobj(6, wbits=_GZIP)
    packed = [packer.compress(piece) for piece in _text(_records(one, category_ids) for one in found)]
    packed.append(packer.flush())
    with replacing(path) as stream:
        stream.writelines(packed)
