"""Pictures for a tracker: an image with boxes in the colours of their class groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cissod_bench.contract.parts import Detections

LEAST_SCORE = 0.3
"""Of a detection that a picture of a scored image shows."""
MOST_SIDE = 800  # pixels of a picture
_COLOURS = ((255, 255, 255), (255, 150, 0), (0, 200, 255))  # RGB of the first, second and third group of a task

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Box:
    """A box to draw: xyxy in pixels of the image, the name of its class, its score in 0-1."""

    corners: tuple[float, float, float, float]
    label: str
    score: float


def boxes_of_text(text: str, names: Mapping[int, str]) -> list[Box]:
    """Return the detections of an image whose score is worth a look.

    Args:
        text: as ``training.result_files.text_of`` gives it.
        names: category id -> name of the class.
    """
    records: list[dict[str, Any]] = msgspec.json.decode(f"[{text}]".encode())
    boxes = []
    for record in records:
        x, y, width, height = record["bbox"]
        if record["score"] >= LEAST_SCORE:
            boxes.append(Box((x, y, x + width, y + height), names[record["category_id"]], record["score"]))
    return boxes


def boxes_of_detections(found: Detections, used: npt.NDArray[np.bool_], classes: Sequence[str]) -> list[Box]:
    """Return some detections of an image.

    Args:
        found: in pixels of the image.
        used: which are wanted, shape (M,).
        classes: names by channel.
    """
    columns = (values.detach().cpu().tolist() for values in (found.boxes, found.labels, found.scores))
    rows = zip(*columns, used.tolist(), strict=True)
    return [Box(tuple(corners), classes[label], score) for corners, label, score, wanted in rows if wanted]


def with_boxes(image: Pixels, boxes: Sequence[Box], groups: Mapping[str, Sequence[str]]) -> Pixels:
    """Return a picture of an image with boxes, their classes and scores.

    Args:
        image: blue, green, red, shape (H, W, 3); stays as it is.
        boxes: in pixels of the image.
        groups: group -> names of its classes; each has a colour.

    Returns:
        RGB, shape (H', W', 3), no side longer than `MOST_SIDE`.
    """
    import cv2

    colours = {name: _COLOURS[place % len(_COLOURS)] for place, names in enumerate(groups.values()) for name in names}
    factor = min(1.0, MOST_SIDE / max(image.shape[:2]))
    width, height = (max(1, round(side * factor)) for side in (image.shape[1], image.shape[0]))
    picture: Pixels = np.array(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1], np.uint8)
    for box in boxes:
        x1, y1, x2, y2 = (round(corner * factor) for corner in box.corners)
        colour, words = colours.get(box.label, _COLOURS[0]), f"{box.label} {box.score:.2f}"
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)
        cv2.putText(picture, words, (x1 + 1, max(y1 - 2, 8)), cv2.FONT_HERSHEY_PLAIN, 0.7, colour, 1)
    return picture
