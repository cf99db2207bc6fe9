"""The pool of pseudo labels: the teacher's latest confident detections on every unlabelled image.

No ground truth of D_u enters. Images are looked at on several ranks; what each has seen is brought together where a
generation begins and where a checkpoint is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from cissod_bench import distributed
from cissod_bench.contract.parts import Detections
from cissod_bench.messages import sendable

Ints: TypeAlias = npt.NDArray[np.int64]


@sendable
@dataclass(frozen=True)
class Pool:
    """Pseudo labels of unlabelled images as columns: 10 bytes per box, 26 with its place.

    Attributes:
        images: rows of D_u that were looked at, int32, shape (V,); ascending and each once after `merge`.
        iterations: when, int32, shape (V,).
        ends: image v's boxes are ``ends[v - 1]:ends[v]``, int64, shape (V,).
        labels: channels in [0, n), int16, shape (B,).
        scores: p, float32, shape (B,).
        boxes: xyxy in pixels of the original image, float32, shape (B, 4); (B, 0) where nobody needs them.
    """

    images: npt.NDArray[np.int32]
    iterations: npt.NDArray[np.int32]
    ends: Ints
    labels: npt.NDArray[np.int16]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]

    @property
    def counts(self) -> Ints:
        """Boxes per image, shape (V,)."""
        return np.diff(self.ends, prepend=0)

    @property
    def box_images(self) -> npt.NDArray[np.int32]:
        """The image of every box, shape (B,)."""
        return np.repeat(self.images, self.counts)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the columns as tensors, for a checkpoint."""
        return {name: torch.from_numpy(column) for name, column in vars(self).items()}

    @classmethod
    def from_tensors(cls, columns: Mapping[str, torch.Tensor]) -> Pool:
        """Take back what `tensors` returned."""
        return cls(**{name: column.numpy() for name, column in columns.items()})


def pool_of(images: Sequence[int], iterations: Sequence[int], boxes: Sequence[Sequence[tuple[int, float]]]) -> Pool:
    """Return a pool of images, when each was looked at, and the (label, score) of its boxes, without their places."""
    flat = [box for own in boxes for box in own]
    return Pool(
        np.array(images, np.int32),
        np.array(iterations, np.int32),
        np.cumsum([len(own) for own in boxes], dtype=np.int64),
        np.array([label for label, _ in flat], np.int16),
        np.array([score for _, score in flat], np.float32),
        np.zeros((len(flat), 0), np.float32),
    )


def observed(detections: Sequence[Detections], iteration: int, floor: float, *, with_boxes: bool = False) -> Pool:
    """Return one look at some images: the detections with score > floor of each, none for an image that has none."""
    names = ("scores", "labels", "boxes")
    scores, labels, boxes = (torch.cat([getattr(one, name) for one in detections]) for name in names)
    kept = scores > floor
    owners = np.repeat(np.arange(len(detections)), [len(one.scores) for one in detections])[kept.cpu().numpy()]
    return Pool(
        np.array([one.image_index for one in detections], np.int32),
        np.full(len(detections), iteration, np.int32),
        np.cumsum(np.bincount(owners, minlength=len(detections)), dtype=np.int64),
        labels[kept].cpu().numpy().astype(np.int16),
        scores[kept].float().cpu().numpy(),
        boxes[kept].float().cpu().numpy()[:, : 4 if with_boxes else 0],
    )


def merge(pools: Sequence[Pool]) -> Pool:
    """Return the latest look at every image; of looks in the same iteration the one in the earlier pool.

    With the pools in the order of their ranks the result does not depend on how images were spread over ranks.
    """
    pools = [pool for pool in pools if len(pool.images)] or list(pools[:1])
    images, iterations, labels, scores, boxes = (
        np.concatenate([getattr(pool, name) for pool in pools])
        for name in ("images", "iterations", "labels", "scores", "boxes")
    )
    counts = np.concatenate([pool.counts for pool in pools])
    ends = np.cumsum(counts, dtype=np.int64)
    order = np.lexsort((np.arange(len(images)), -iterations.astype(np.int64), images))
    first = np.ones(len(order), np.bool_)
    first[1:] = images[order][1:] != images[order][:-1]
    kept = order[first]
    new_ends = np.cumsum(counts[kept], dtype=np.int64)
    rows = np.repeat(ends[kept] - new_ends, counts[kept]) + np.arange(counts[kept].sum())
    return Pool(images[kept], iterations[kept], new_ends, labels[rows], scores[rows], boxes[rows])


EMPTY = pool_of([], [], [])


class PoolKeeper:
    """Fills the pool on this rank and brings the ranks' pools together.

    Args:
        floor: detections with score > floor enter the pool (Soft Teacher's initial threshold).
        start: first iteration whose detections enter.
        with_boxes: keep where the boxes are.
    """

    def __init__(self, floor: float, start: float = 0.0, *, with_boxes: bool = False) -> None:
        self.floor, self.start, self.with_boxes = floor, start, with_boxes
        self.pool = EMPTY
        self._own: list[Pool] = []
        self._fresh: list[tuple[list[Detections], int]] = []

    def observe(self, detections: Sequence[Detections], iteration: int) -> None:
        """Let the teacher's detections replace what the pool holds of these images; looked at later, many at once."""
        if iteration < self.start or not detections:
            return
        self._fresh.append((list(detections), iteration))
        if len(self._fresh) == 256:
            self._take_in()

    def _take_in(self) -> None:
        """Turn the latest looks into one pool; few arrays, and few looks that a later one replaces."""
        looks = [observed(*look, self.floor, with_boxes=self.with_boxes) for look in self._fresh]
        self._fresh = []
        if looks:
            self._own = [merge([*self._own, *looks])]

    def share(self) -> Pool:
        """Bring what the ranks have seen since the last call together; all ranks get the same pool. Collective."""
        self.pool = merge([self.pool, *distributed.gather_objects(self.unshared())])
        return self.pool

    def unshared(self) -> Pool:
        """Return what this rank has seen since the last call, and keep it no longer."""
        self._take_in()
        own, self._own = merge([EMPTY, *self._own]), []
        return own

    def state(self) -> dict[str, torch.Tensor]:
        """Return the shared pool, for a checkpoint; a collective call."""
        return self.share().tensors()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.pool, self._own, self._fresh = Pool.from_tensors(state), [], []
