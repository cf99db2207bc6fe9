"""A few unlabelled images of each generation whose pseudo labels are kept, to be looked at later.

Which images is decided by their ids alone, so that no result chooses them: those whose mixed ids are the lowest of all
that a generation saw. Most of them are the same from generation to generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cissod_bench.files.hashing import mix
from cissod_bench.records.pseudo_box_lines import PseudoBoxLine
from cissod_bench.training.judging import Looks

KEPT = 12
"""Images of a generation."""
_COLUMNS = ("boxes", "labels", "scores")


class KeptLooks:
    """The kept images of the running generation; the same on any number of ranks."""

    def __init__(self) -> None:
        self._looks: dict[int, tuple[np.ndarray[Any, Any], ...]] = {}

    def take(self, looks: Looks) -> None:
        """Take what is to be kept of further looks.

        Of several looks at an image the one with the most pseudo labels stays, whatever the order they come in.
        """
        codes = mix(looks.images.astype(np.uint64))
        for place in np.argsort(codes, kind="stable").tolist():
            image, code = int(looks.images[place]), int(codes[place])
            if image not in self._looks and len(self._looks) >= KEPT and code >= self._last():
                break  # all further ones come later still
            rows = slice(int(looks.ends[place - 1]) if place else 0, int(looks.ends[place]))
            look = tuple(getattr(looks, name)[rows] for name in _COLUMNS)
            self._looks[image] = max(self._looks.get(image, look), look, key=_order)
            if len(self._looks) > KEPT:
                del self._looks[max(self._looks, key=_code)]

    def _last(self) -> int:
        return max(map(_code, self._looks))

    def state(self) -> list[dict[str, Any]]:
        """Return what is kept, for a checkpoint."""
        named = ((image, zip(_COLUMNS, look, strict=True)) for image, look in sorted(self._looks.items()))
        return [{"image": image, **{name: torch.from_numpy(own.copy()) for name, own in look}} for image, look in named]

    def load(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take back what `state` returned."""
        self._looks = {look["image"]: tuple(look[name].numpy().copy() for name in _COLUMNS) for look in state}

    def lines(self, generation: int, iteration: int, classes: Sequence[str]) -> list[PseudoBoxLine]:
        """Return a line per image, in the order of their mixed ids, and begin anew."""
        lines = []
        for image in sorted(self._looks, key=_code):
            boxes, labels, scores = self._looks[image]
            sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64).round(2)
            line = PseudoBoxLine(
                generation=generation,
                iteration=iteration,
                image=image,
                boxes=[(x, y, width, height) for x, y, width, height in sides.tolist()],
                classes=[classes[label] for label in labels.tolist()],
                scores=[round(float(score), 4) for score in scores],
            )
            lines.append(line)
        self._looks = {}
        return lines


def _code(image: int) -> int:
    return int(mix(np.asarray([image], np.int64).astype(np.uint64))[0])


def _order(look: tuple[np.ndarray[Any, Any], ...]) -> tuple[int, bytes]:
    boxes = look[0]
    return len(boxes), boxes.tobytes()
