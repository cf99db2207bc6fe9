"""Whether an exported detector finds what the run's own finds, on the same images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.contract.parts import Detections
from cissod_bench.errors import EnvironmentFault

PIXELS, SCORE = 0.5, 0.002
"""Two detections are the same if they are of one class and differ by no more, in any side and in score: programs add
numbers in orders of their own."""
_FEW = 20
Found = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Boxes xyxy (M, 4), labels (M,), scores (M,) of an image."""

# Runs in a process that cannot import cissod_bench: what it loads is stock mmdet and what lies in the folder.
_STOCK = """
import json, sys, warnings
sys.modules["cissod_bench"] = None
warnings.simplefilter("ignore")
import torch
from mmdet.apis import inference_detector, init_detector
config, checkpoint, listed, answer = sys.argv[1:]
torch.set_num_threads(int(json.load(open(listed))["threads"]))
detector = init_detector(config, checkpoint, device="cpu")
detector.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"], strict=True)
found = []
for path in json.load(open(listed))["images"]:
    boxes = inference_detector(detector, path).pred_instances
    found.append([boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist()])
json.dump({"found": found, "classes": list(detector.dataset_meta["classes"])}, open(answer, "w"))
"""


@dataclass(frozen=True)
class Agreement:
    """How near the detections of two programs are.

    Attributes:
        images: that both looked at.
        boxes: detections of the run's own detector.
        same: how many of them the other has, too.
        more: detections of the other that the first has not.
        even: of the first and of the other, those that the other lacks because an image keeps so many and no more, and
            their scores are those of the last ones kept; they are in none of the other numbers.
        pixels: largest difference of a side of those that both have.
        score: largest difference of a score of them.
    """

    images: int
    boxes: int
    same: int
    more: int
    even: int
    pixels: float
    score: float

    @property
    def holds(self) -> bool:
        """Whether all but one in a hundred are the same, or all but one of more than twenty.

        Of nearly equal scores either may come first in NMS.
        """
        return max(self.boxes - self.same, self.more) <= max(0.01 * self.boxes, float(self.boxes > _FEW))

    @property
    def words(self) -> str:
        """The same in a line."""
        even = f"; {self.even:,} more differ where an image keeps no more and scores are equal" if self.even else ""
        return (
            f"{self.same:,} of {self.boxes:,} detections on {self.images} images are the same (sides within "
            f"{self.pixels:.2g} pixels, scores within {self.score:.2g}), {self.more:,} are new{even}"
        )


def found_of(detections: Detections) -> Found:
    """Return the columns of an image's detections."""
    columns = (detections.boxes, detections.labels, detections.scores)
    boxes, labels, scores = (column.cpu().numpy() for column in columns)
    return boxes.astype(np.float64), labels, scores.astype(np.float64)


def compared(own: Sequence[Found], other: Sequence[Found], most: int | None = None) -> Agreement:
    """Return how near two lists of detections are, image by image.

    Args:
        own: of every image.
        other: likewise.
        most: detections that an image keeps; None where there is no limit.
    """
    numbers, even, pixels, score = np.zeros(3, np.int64), 0, 0.0, 0.0
    for first, second in zip(own, other, strict=True):
        pairs = _pairs(first, second)
        for row, place in pairs:
            pixels = max(pixels, float(np.abs(first[0][row] - second[0][place]).max()))
            score = max(score, float(abs(first[2][row] - second[2][place])))
        left = [np.delete(side[2], [pair[which] for pair in pairs]) for which, side in enumerate((first, second))]
        if len(first[1]) == len(second[1]) == most:
            last = max(first[2].min(), second[2].min()) + SCORE
            even += sum(int((scores <= last).sum()) for scores in left)
            left = [scores[scores > last] for scores in left]
        numbers += [len(pairs) + len(left[0]), len(pairs), len(left[1])]
    boxes, same, more = numbers.tolist()
    return Agreement(len(own), boxes, same, more, even, pixels, score)


def _pairs(first: Found, second: Found) -> list[tuple[int, int]]:
    """Return the rows of an image's detections that are the same in both."""
    free, pairs = np.ones(len(second[1]), np.bool_), list[tuple[int, int]]()
    for row, (box, label, value) in enumerate(zip(*first, strict=True)):
        sides = np.abs(second[0] - box).max(axis=1) if len(free) else np.zeros(0)
        fits = free & (second[1] == label) & (sides <= PIXELS) & (np.abs(second[2] - value) <= SCORE)
        if fits.any():
            best = int(np.argmin(np.where(fits, sides, np.inf)))
            free[best] = False
            pairs.append((row, best))
    return pairs


def stock_mmdet(config: Path, checkpoint: Path, images: Sequence[Path]) -> tuple[list[Found], list[str]]:
    """Return what stock mmdet finds with an exported detector, and the names of its classes; in a process of its own.

    Args:
        config: as written by `write_mmdet`.
        checkpoint: likewise.
        images: files.

    Raises:
        EnvironmentFault: mmdet does not load it.
    """
    with TemporaryDirectory() as place:
        listed, answer = Path(place) / "listed.json", Path(place) / "answer.json"
        listed.write_text(json.dumps({"images": [str(path) for path in images], "threads": 1}), encoding="utf-8")
        words = [str(path) for path in (config.resolve(), checkpoint.resolve(), listed, answer)]
        done = subprocess.run([sys.executable, "-c", _STOCK, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise EnvironmentFault(
                f"Stock mmdet does not load {config}: {last}", remedy="cissod-bench doctor, then repeat the command"
            )
        content = json.loads(answer.read_text(encoding="utf-8"))
    return [columns_of(*image) for image in content["found"]], content["classes"]


def columns_of(boxes: Any, labels: Any, scores: Any) -> Found:
    """Return lists or arrays of detections as `Found`."""
    return (
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(labels, np.int64).reshape(-1),
        np.asarray(scores, np.float64).reshape(-1),
    )
