"""Predictions: COCO results, the same bytes for the same detections, in little memory however many there are."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tiny import tiny_training

from cissod_bench.contract.parts import Detections
from cissod_bench.errors import DataFault
from cissod_bench.training import result_files as module
from cissod_bench.training.predict import predict
from cissod_bench.training.result_files import write_predictions

CATEGORIES = tuple(range(3, 3 + 2 * 365, 2))


def drawn(images: int, boxes: int = 100) -> Iterator[Detections]:
    """Detections as a detector gives them."""
    generator = torch.Generator().manual_seed(0)
    for number in range(images):
        corner = 600 * torch.rand(boxes, 2, generator=generator)
        corners = torch.cat([corner, corner + 300 * torch.rand(boxes, 2, generator=generator)], dim=1)
        scores = torch.rand(boxes, generator=generator)
        yield Detections(7 * number + 1, number, corners, torch.randint(365, (boxes,), generator=generator), scores)


def as_dicts(found: Iterator[Detections]) -> list[dict[str, Any]]:
    """The format spelt out: x, y, width, height to 0.001 pixels, scores to 1e-6."""
    return [
        {
            "image_id": one.image_id,
            "category_id": CATEGORIES[label],
            "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 6),
        }
        for one in found
        for (x1, y1, x2, y2), label, score in zip(
            one.boxes.double().tolist(), one.labels.tolist(), one.scores.double().tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize(("images", "boxes"), [(0, 0), (3, 0), (1, 1), (40, 5)])
def test_the_file_is_the_packed_list_of_all_detections_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, images: int, boxes: int
) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    file = tmp_path / "predictions.json.gz"
    write_predictions(file, drawn(images, boxes), CATEGORIES)
    expected = as_dicts(drawn(images, boxes))
    text = gzip.decompress(file.read_bytes())
    assert text == msgspec.json.encode(expected)
    assert json.loads(text) == expected
    assert len(expected) == images * boxes


def test_the_same_detections_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.json.gz" for number in range(3)]
    for file, piece in zip(files, (10_000, 10_000, 33), strict=True):
        monkeypatch.setattr(module, "_PIECE", piece)
        write_predictions(file, drawn(300), CATEGORIES)
    one, other, pieces = (file.read_bytes() for file in files)
    assert one == other == pieces
    assert one[4:8] == b"\0\0\0\0", "no time in the header"


def test_many_detections_are_never_held_as_objects(tmp_path: Path) -> None:
    images = 1000
    tracemalloc.start()
    try:
        write_predictions(tmp_path / "predictions.json.gz", drawn(images), CATEGORIES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    packed = (tmp_path / "predictions.json.gz").stat().st_size
    assert peak < packed + 12e6, f"{peak / 1e6:.0f} MB; a list of dicts would be {images * 0.046:.0f} MB"


def test_a_fault_while_predicting_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[Detections]:
        yield from drawn(5)
        raise DataFault("image 5 is missing")

    with pytest.raises(DataFault, match="image 5"):
        write_predictions(tmp_path / "predictions.json.gz", broken(), CATEGORIES)
    assert list(tmp_path.iterdir()) == []


def test_every_image_is_predicted_once_in_its_order_by_the_model_that_is_asked(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "soft-teacher", "test_batch=4")
    source = training.dataset.sources[0]
    with torch.no_grad():
        training.detector.student.roi_head.bbox_head.fc_cls.weight.normal_(0, 1)
    done: list[int] = []
    found = {
        who: list(predict(training.detector, source, training.settings, teacher=who == "teacher", progress=done.append))
        for who in ("teacher", "student")
    }
    assert sum(done) == 2 * len(source)
    for some in found.values():
        assert [one.image_id for one in some] == source.image_ids.tolist()
        assert [one.image_index for one in some] == list(range(len(source)))
    assert any(not torch.equal(a.scores, b.scores) for a, b in zip(*found.values(), strict=True))


def test_files_that_the_release_lacks_are_not_looked_for(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, "soft-teacher", "test_batch=4")
    source = training.dataset.sources[0]
    source.file(1).unlink()
    found = predict(training.detector, source, training.settings, teacher=True, absent=(source.name(1),))
    assert [one.image_index for one in found] == [0, *range(2, len(source))]
