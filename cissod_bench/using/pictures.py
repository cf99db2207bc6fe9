"""Detections drawn into images: a box and a name each, in one colour per class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from cissod_bench.errors import EnvironmentFault
from cissod_bench.files.whole_files import write_bytes

if TYPE_CHECKING:
    from cissod_bench.contract.parts import Detections

Pixels = npt.NDArray[np.uint8]
_GOLDEN = 0.618034  # of the circle of hues between one class and the next: neighbours never look alike
_QUALITY = 90


def colour_of(channel: int) -> tuple[int, int, int]:
    """Return a class's colour: blue, green, red in [0, 255]."""
    red, green, blue = colorsys.hsv_to_rgb((channel * _GOLDEN) % 1.0, 0.75, 0.95)
    return round(255 * blue), round(255 * green), round(255 * red)


def drawn(image: Pixels, found: Detections, classes: Sequence[str]) -> Pixels:
    """Return a copy of an image with its detections, the best on top.

    Args:
        image: blue, green, red, shape (H, W, 3).
        found: in its pixels.
        classes: names in channel order.
    """
    canvas = image.copy()
    scale = max(min(image.shape[:2]) / 1000, 0.35)
    thickness = max(1, round(4 * scale))
    columns = (found.boxes.tolist(), found.labels.tolist(), found.scores.tolist())
    for box, label, score in reversed(list(zip(*columns, strict=True))):
        left, top, right, bottom = (round(value) for value in box)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour_of(label), thickness)
        _write(canvas, f"{_plain(classes[label])} {score:.2f}", (left, top), colour_of(label), scale)
    return canvas


def _plain(name: str) -> str:
    """Return a name as OpenCV can write it, which knows ASCII alone."""
    return "".join(letter if 31 < ord(letter) < 127 else "?" for letter in name)


def _write(canvas: Pixels, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    """Write a text on a ground of its class's colour above a box, or inside where there is no room above."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = max(0, min(corner[0], canvas.shape[1] - width))
    bottom = corner[1] if corner[1] >= height + below else corner[1] + height + below
    cv2.rectangle(canvas, (left, bottom - height - below), (left + width, bottom), colour, cv2.FILLED)
    bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 128
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(canvas, text, (left, bottom - below), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def write_picture(path: Path, image: Pixels) -> None:
    """Write an image as a JPEG file.

    Raises:
        EnvironmentFault: it cannot be encoded, or the place cannot be written.
    """
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise EnvironmentFault(f"{path}: OpenCV cannot write a JPEG file.", remedy="cissod-bench doctor")
    write_bytes(path, data.tobytes())
