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

from cissod_bench.contract.parts import Detections
from cissod_bench.contract.pool import Pool, PoolKeeper
from cissod_bench.contract.repeat_factors import class_factors, copies_of

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
        labelled_counts: images of D_l per class, shape (n,).
        labelled: N_l.
        unlabelled: N_u.
        floor: detections with score > floor enter the pool (Soft Teacher's initial threshold).
        iterations: T.

    Attributes:
        numbers: what the log says of the running generation's copies; nothing that training reads.
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
        self.gamma = gamma
        self.labelled_counts, self.labelled, self.unlabelled = labelled_counts, labelled, unlabelled
        self.only_pseudo_labelled = constants.only_pseudo_labelled
        self.keeper = PoolKeeper(floor, constants.pool_from * iterations)
        self.numbers: dict[str, float] = {}

    @property
    def pool(self) -> Pool:
        """What all ranks had seen when they last shared it."""
        return self.keeper.pool

    def observe(self, detections: Sequence[Detections], iteration: int) -> None:
        """Let the teacher's detections replace what the pool holds of these images."""
        self.keeper.observe(detections, iteration)

    def share(self) -> None:
        """Bring what the ranks have seen since the last call together; a collective call."""
        self.keeper.share()

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
        """Return N_l + N_u of Eq. 10, distinct images.

        The released code counts of D_u only the images with a pseudo label, and adds 0.01.
        """
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
        return {"pool": self.keeper.state(), "numbers": self.numbers}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.keeper.load(state["pool"])
        self.numbers = dict(state["numbers"])
