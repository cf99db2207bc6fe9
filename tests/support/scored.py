"""Small validation files and detections, for tests of scoring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TWO_CLASSES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
DETECTION = {"image_id": 10, "category_id": 3, "bbox": [0.0, 0.0, 10.0, 10.0], "score": 0.9}


def box(image: int, category: int, bbox: Sequence[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


def write(folder: Path, annotations: Sequence[Mapping[str, Any]], images: Sequence[int] = (10, 20)) -> Path:
    """Write a validation file of two classes in COCO's format."""
    path = folder / "val.json"
    content = {"images": [{"id": i} for i in images], "categories": TWO_CLASSES, "annotations": list(annotations)}
    path.write_text(json.dumps(content))
    return path


def write_federated(folder: Path, annotations: Sequence[Mapping[str, Any]], **more: Any) -> Path:
    """Write one in LVIS's format: both classes are known to be absent where they have no box, and all is annotated.

    ``more`` are fields of the first image.
    """
    path = folder / "val.json"
    lists = {"neg_category_ids": [3, 7], "not_exhaustive_category_ids": []}
    images = [{"id": 10, **lists, **more}, {"id": 20, **lists}]
    path.write_text(json.dumps({"images": images, "categories": TWO_CLASSES, "annotations": list(annotations)}))
    return path
