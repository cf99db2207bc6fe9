"""CrS: class-rebalancing sampling (Sec. 3.4, Eq. 10-11) from the pool of the teacher's latest pseudo labels.

D_l is drawn by repeat factors all along. D_u is drawn uniformly in generation 0; in each later one, images whose pseudo
labels are confident and of rare classes are drawn more often. No ground truth of D_u enters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from cissod_bench.repeat_factors import class_factors, copies_of
from cissod_bench.training import distributed
from cissod_bench.training.parts import Detections

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Numbers of CrS; ``profiles.py`` holds the values and where each comes from. gamma is the task's.

    Attributes:
        pool_from: share of T from which detections enter the pool.
        only_pseudo_labelled: N_u counts the images with a pseudo label only, as the released code does.
    """

    pool_from: float
    only_pseudo_labelled: bool


@dataclass(frozen=True)
class Pool:
    """Pseudo labels of unlabelled images as columns: 10 bytes a box.

    Attributes:
        images: rows of D_u that were looked at, int32, shape (V,); ascending and each once after `merge`.
        iterations: when, int32, shape (V,).
        ends: image v's boxes are ``ends[v - 1]:ends[v]``, int64, shape (V,).
        labels: channels in [0, n), int16, shape (B,).
        scores: p, float32, shape (B,).
    """

    images: npt.NDArray[np.int32]
    iterations: npt.NDArray[np.int32]
    ends: Ints
    labels: npt.NDArray[np.int16]
    scores: npt.NDArray[np.float32]

    @property
    def counts(self) -> Ints:
        """Boxes an image, shape (V,)."""
        return np.diff(self.ends, prepend=0)

    @property
    def box_images(self) -> npt.NDArray[np.int32]:
        """The image of every box, shape (B,)."""
        return np.repeat(self.images, self.counts)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the columns as tensors, for a checkpoint."""
        return {name: torch.from_numpy(column) for name, column in vars(self).items()}


def pool_of(images: Sequence[int], iterations: Sequence[int], boxes: Sequence[Sequence[tuple[int, float]]]) -> Pool:
    """Return a pool of images, when each was looked at, and the (label, score) of its boxes."""
    flat = [box for own in boxes for box in own]
    return Pool(
        np.array(images, np.int32),
        np.array(iterations, np.int32),
        np.cumsum([len(own) for own in boxes], dtype=np.int64),
        np.array([label for label, _ in flat], np.int16),
        np.array([score for _, score in flat], np.float32),
    )


def observed(detections: Sequence[Detections], iteration: int, floor: float) -> Pool:
    """Return one look at some images: the detections with score > floor of each, none for an image that has none."""
    scores, labels = (torch.cat([getattr(one, name) for one in detections]) for name in ("scores", "labels"))
    kept = scores > floor
    owners = np.repeat(np.arange(len(detections)), [len(one.scores) for one in detections])[kept.cpu().numpy()]
    return Pool(
        np.array([one.image_index for one in detections], np.int32),
        np.full(len(detections), iteration, np.int32),
        np.cumsum(np.bincount(owners, minlength=len(detections)), dtype=np.int64),
        labels[kept].cpu().numpy().astype(np.int16),
        scores[kept].float().cpu().numpy(),
    )


def merge(pools: Sequence[Pool]) -> Pool:
    """Return the latest look at every image; of looks in the same iteration the one in the earlier pool.

    With the pools in the order of their ranks the result does not depend on how images were spread over ranks.
    """
    images, iterations, labels, scores = (
        np.concatenate([getattr(pool, name) for pool in pools]) for name in ("images", "iterations", "labels", "scores")
    )
    counts = np.concatenate([pool.counts for pool in pools])
    ends = np.cumsum(counts, dtype=np.int64)
    order = np.lexsort((np.arange(len(images)), -iterations.astype(np.int64), images))
    first = np.ones(len(order), np.bool_)
    first[1:] = images[order][1:] != images[order][:-1]
    kept = order[first]
    new_ends = np.cumsum(counts[kept], dtype=np.int64)
    boxes = np.repeat(ends[kept] - new_ends, counts[kept]) + np.arange(counts[kept].sum())
    return Pool(images[kept], iterations[kept], new_ends, labels[boxes], scores[boxes])


EMPTY = pool_of([], [], [])


def sampling_epsilon(gamma: float, generation: int, generations: int) -> float:
    """Return epsilon = gamma t / N_t (below Eq. 10): 0 in generation 0, rising from there."""
    return gamma * generation / generations


def images_of_classes(pool: Pool, theta: Floats, labelled_counts: npt.ArrayLike) -> Ints:
    """Return m_c, the images of D_u and D_l with class c (Eq. 10), shape (n,).

    Args:
        pool: merged; an unlabelled image has c if a box of c has p > theta_c.
        theta: shape (n,).
        labelled_counts: images of D_l with the class, as annotated, shape (n,).
    """
    confident = pool.scores > theta[pool.labels]
    pairs = np.unique(np.stack([pool.box_images[confident], pool.labels[confident].astype(np.int32)]), axis=1)
    return np.asarray(labelled_counts, np.int64) + np.bincount(pairs[1], minlength=len(theta))


def image_rates(pool: Pool, factors: Floats, theta: Floats, unlabelled: int) -> Floats:
    """Return the rate of every unlabelled image: max of S_c (p - theta_c) over its boxes (Eq. 11), shape (N_u,).

    Boxes with p <= theta_c do not count; an image without others has rate 0.

    Args:
        pool: merged.
        factors: S, shape (n,).
        theta: shape (n,).
        unlabelled: N_u.
    """
    rates = np.zeros(unlabelled)
    margins = pool.scores.astype(np.float64) - theta[pool.labels]
    np.maximum.at(rates, pool.box_images, factors[pool.labels] * margins)
    return rates


class ClassRebalancing:
    """The pool of this rank and of all, and the copies of D_u that follow from it.

    Args:
        constants: of the run's profile.
        gamma: of Eq. 10.
        labelled_counts: images of D_l a class, shape (n,).
        labelled: N_l.
        unlabelled: N_u.
        floor: detections with score > floor enter the pool (Soft Teacher's initial threshold).
        iterations: T.
    """

    def __init__(
        self,
        constants: Constants,
        *,
        gamma: float,
        labelled_counts: npt.ArrayLike,
        labelled: int,
        unlabelled: int,
        floor: float,
        iterations: int,
    ) -> None:
        self.gamma, self.floor = gamma, floor
        self.labelled_counts, self.labelled, self.unlabelled = labelled_counts, labelled, unlabelled
        self.only_pseudo_labelled = constants.only_pseudo_labelled
        self.start = constants.pool_from * iterations
        self.pool = EMPTY
        self.numbers: dict[str, float] = {}
        self._own: list[Pool] = []

    def observe(self, detections: Sequence[Detections], iteration: int) -> None:
        """Let the teacher's detections replace what the pool holds of these images."""
        if iteration < self.start:
            return
        self._own.append(observed(detections, iteration, self.floor))
        if len(self._own) == 1024:  # an iteration each: few arrays, and few looks that a later one replaces
            self._own = [merge(self._own)]

    def share(self) -> None:
        """Bring what the ranks have seen since the last call together; all ranks hold the same pool afterwards."""
        self.pool = merge([self.pool, *distributed.gather_objects(merge([EMPTY, *self._own]))])
        self._own = []

    def copies(self, theta: Floats, generation: int, generations: int, since: int) -> npt.NDArray[np.int32]:
        """Return how often each image of D_u is drawn in a generation, shape (N_u,), each >= 1.

        Args:
            theta: the thresholds of now, shape (n,).
            generation: t, the one that begins.
            generations: N_t.
            since: first iteration of the generation that ended, for the coverage in the log.
        """
        counts = images_of_classes(self.pool, theta, self.labelled_counts)
        epsilon = sampling_epsilon(self.gamma, generation, generations)
        factors = class_factors(counts, self._images(theta), epsilon)
        copies = copies_of(image_rates(self.pool, factors, theta, self.unlabelled))
        self.numbers = {
            "pool_coverage": len(self.pool.images) / self.unlabelled,
            "pool_fresh": float((self.pool.iterations >= since).sum()) / self.unlabelled,
            "copies_mean": float(copies.mean()),
            "copies_max": float(copies.max()),
            "repeat_factor_max": float(factors.max()),
        }
        return copies

    def _images(self, theta: Floats) -> float:
        """Return N_l + N_u, distinct images; the released code adds 0.01 to those with a pseudo label."""
        if not self.only_pseudo_labelled:
            return self.labelled + self.unlabelled
        confident = self.pool.scores > theta[self.pool.labels]
        return self.labelled + len(np.unique(self.pool.box_images[confident])) + 0.01

    def statistics(self) -> dict[str, float]:
        """Return how many images of D_u the pool holds, and their share; a collective call."""
        self.share()
        return {"pool": len(self.pool.images), "pool_coverage": len(self.pool.images) / self.unlabelled}

    def state(self) -> dict[str, Any]:
        """Return the shared pool and the numbers of the running generation, for a checkpoint."""
        self.share()
        return {"pool": self.pool.tensors(), "numbers": self.numbers}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.pool = Pool(**{name: column.numpy() for name, column in state["pool"].items()})
        self.numbers, self._own = dict(state["numbers"]), []
