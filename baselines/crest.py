"""CReST (Wei et al., CVPR 2021) on Soft Teacher: after every generation confident pseudo labels become labels.

Of each class the best share mu of its pseudo labels is taken, a larger one the rarer the class is in D_l. CReST was
published for images with one class each and nothing is published for detection, so this is a reading of it:

* A pseudo label is a box of the pool, the teacher's latest look at each unlabelled image, with score > theta (0.9).
* D_l and the images with a selected box are the labelled images of the next generation, drawn by repeat factors over
  both; each generation begins anew from D_l. D_u stays complete and is drawn uniformly, with Soft Teacher's losses.
* In those images a box that was not selected is an ignore region, so that an object is not trained as background.
* Weights go on from generation to generation. The literal protocol, which trains every generation from the beginning
  and for the whole schedule, would cost ten times what the other methods have and is not built.

The variant ``crest+`` (CReST+) moves the class distribution of the teacher's scores towards that of D_l, of the
foreground classes only: the share of background among RoIs is no class distribution of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, Detections, Parts, Promoted
from cissod_bench.contract.pool import Pool, PoolKeeper
from cissod_bench.contract.repeat_factors import labelled_copies

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

ALPHA = 1 / 3  # CReST, Sec. 4.1
LEAST_TEMPERATURE = 0.5  # CReST+: t_min
WINDOW = 128  # CReST's code: batches in the mean of the model's predictions
EPSILON = 1e-6  # CReST's code: added to both distributions
FOREGROUND = 0.5  # RoIs with 1 - P(background) above it are predictions; ours
ROUNDING = 1e-9  # a product this little below an integer is that integer
LEAST_SIDE = 1e-2  # pixels, as for Soft Teacher's pseudo labels


def class_rates(boxes: Sequence[int], alpha: float = ALPHA) -> Floats:
    """Return mu, the share of a class's pseudo labels that is taken (CReST, Eq. 3), shape (n,), in (0, 1].

    With the classes in falling order N_1 >= ... >= N_n it is mu_l = (N_{n+1-l} / N_1)^alpha: 1 for the rarest class.
    Classes with equal counts stand in channel order; one without any box counts as one box.

    Args:
        boxes: labelled boxes per class in D_l, as annotated, shape (n,).
        alpha: 0 takes everything; the larger, the less of frequent classes.
    """
    counts = np.maximum(np.asarray(boxes, np.float64), 1.0)
    order = np.argsort(-counts, kind="stable")
    rates = np.empty(len(counts))
    rates[order] = (counts[order[::-1]] / counts[order[0]]) ** alpha
    return rates


def sound(pool: Pool) -> Bools:
    """Return which boxes of a pool have an area to regress to, bool (B,)."""
    if not pool.boxes.size:
        return np.zeros(len(pool.scores), np.bool_)
    wide: Bools = np.all(pool.boxes[:, 2:] - pool.boxes[:, :2] > LEAST_SIDE, axis=1)
    return wide


def select(pool: Pool, rates: Floats, theta: float) -> Bools:
    """Return which boxes of a pool become labels: the best int(mu_c count_c) of every class, bool (B,).

    count_c are the class's boxes with score > theta. Of equal scores the one in the earlier row of D_u goes first, in
    one image the one that stands first.

    Args:
        pool: merged, with boxes.
        rates: mu, shape (n,).
        theta: in [0, 1).
    """
    rows = np.flatnonzero((pool.scores > theta) & sound(pool))
    labels = pool.labels[rows].astype(np.int64)
    counts = np.bincount(labels, minlength=len(rates))
    limits = np.floor(rates * counts + ROUNDING).astype(np.int64)
    order = np.lexsort((pool.box_images[rows], -pool.scores[rows], labels))  # stable
    places = np.arange(len(rows)) - (np.cumsum(counts) - counts)[labels[order]]
    chosen = np.zeros(len(pool.scores), np.bool_)
    chosen[rows[order[places < limits[labels[order]]]]] = True
    return chosen


def promote(pool: Pool, chosen: Bools, floor: float) -> Promoted | None:
    """Return the images with a chosen box: those boxes, and as ignore regions the others with score > floor.

    Args:
        pool: merged, with boxes.
        chosen: shape (B,).
        floor: Soft Teacher's initial threshold.
    """
    owners = pool.box_images.astype(np.int64)
    if not chosen.any():
        return None
    kept = np.isin(owners, owners[chosen]) & (chosen | ((pool.scores > floor) & sound(pool)))
    return Promoted(owners[kept], pool.boxes[kept], pool.labels[kept].astype(np.int64), ~chosen[kept])


def union_copies(
    labelled_classes: Sequence[Sequence[int]],
    promoted: Promoted | None,
    unlabelled: int,
    num_classes: int,
    threshold: float,
) -> npt.NDArray[np.int32]:
    """Return RFS's copies over D_l and the promoted images, 0 for the other images of D_u, shape (N_l + N_u,).

    Args:
        labelled_classes: the distinct channels of every image of D_l.
        promoted: its labels, without ignore regions, are the classes of the promoted images.
        unlabelled: N_u.
        num_classes: n.
        threshold: t of RFS.
    """
    images: Ints = np.zeros(0, np.int64)
    classes: list[Sequence[int]] = []
    if promoted is not None:
        labels = ~promoted.ignored
        pairs = np.unique(np.stack([promoted.images[labels], promoted.labels[labels]], axis=1), axis=0)
        images, begins = np.unique(pairs[:, 0], return_index=True)
        classes = [own.tolist() for own in np.split(pairs[:, 1], begins[1:])]
    copies = np.zeros(len(labelled_classes) + unlabelled, np.int32)
    own = labelled_copies([*labelled_classes, *classes], num_classes, threshold)
    copies[: len(labelled_classes)] = own[: len(labelled_classes)]
    copies[len(labelled_classes) + images] = own[len(labelled_classes) :]
    return copies


def temperature(generation: int, generations: int, least: float = LEAST_TEMPERATURE) -> float:
    """Return t_g = 1 - (1 - t_min) g / (G - 1) (CReST+, Eq. 6): from 1 down to t_min; 1 in a single generation."""
    return 1.0 - (1.0 - least) * generation / max(generations - 1, 1)


def target_distribution(boxes: Tensor, t: float) -> Tensor:
    """Return the class distribution of D_l to the power t, which sums to 1, shape (n,).

    Args:
        boxes: labelled boxes per class, shape (n,).
        t: temperature in (0, 1]; the smaller, the more even.
    """
    powers = (boxes / boxes.sum().clamp(min=1)) ** t
    return powers / powers.sum().clamp(min=EPSILON)


def align(scores: Tensor, target: Tensor, model: Tensor) -> Tensor:
    """Return probabilities whose foreground part is aligned (CReST+, Eq. 5); the background's stay as they are.

    With q = P[:, :n] / (1 - P_bg) it is (1 - P_bg) q', where q' is q (target + 1e-6) / (model + 1e-6) over its sum.

    Args:
        scores: P, background last, shape (R, n + 1).
        target: class distribution to move to, shape (n,).
        model: the model's own mean prediction, shape (n,).
    """
    foreground = scores[:, :-1]
    moved = foreground * ((target + EPSILON) / (model + EPSILON)).to(foreground)
    least = torch.finfo(scores.dtype).tiny
    moved = moved * (foreground.sum(dim=1, keepdim=True) / moved.sum(dim=1, keepdim=True).clamp(min=least))
    return torch.cat([moved, scores[:, -1:]], dim=1)


class Alignment(nn.Module):
    """CReST+: what the teacher predicted in the last batches, and its scores aligned by it.

    Args:
        boxes: labelled boxes per class in D_l, shape (n,).

    Attributes:
        ring: mean foreground prediction of the last iterations, shape (128, n); rows are filled from the first on.
        pushed: how many rows were ever written, an int64 scalar.
    """

    ring: Tensor
    pushed: Tensor
    boxes: Tensor
    sums: Tensor

    def __init__(self, boxes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("ring", torch.zeros(WINDOW, len(boxes)))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("boxes", torch.tensor(boxes, dtype=torch.float32), persistent=False)
        # This iteration's sum of predictions and, last, their number; empty between iterations.
        self.register_buffer("sums", torch.zeros(len(boxes) + 1), persistent=False)

    def transform(self, scores: Tensor, context: Context) -> Tensor:
        """Return the aligned scores; as they are before the first batch was seen, shape (R, n + 1)."""
        if context.collect:
            own = scores[scores[:, :-1].sum(dim=1) > FOREGROUND, :-1].float()
            self.sums[:-1] += (own / own.sum(dim=1, keepdim=True)).sum(dim=0)
            self.sums[-1] += len(own)
        filled = min(int(self.pushed), WINDOW)
        if not filled:
            return scores
        target = target_distribution(self.boxes, temperature(context.generation, context.generations))
        return align(scores, target, self.ring[:filled].mean(dim=0))

    def update(self, context: Context) -> None:
        """Write the batch mean over all ranks into the ring, if there was a prediction; a collective call."""
        sums = context.sum_over_ranks(self.sums)
        if bool(torch.isfinite(sums).all() & (sums[-1] > 0)):
            self.ring[int(self.pushed) % WINDOW] = sums[:-1] / sums[-1]
            self.pushed += 1
        self.sums.zero_()


class CReST(Parts):
    """The method's parts for one run.

    Args:
        facts: of the run.

    Attributes:
        promotion: what is promoted in the running generation; None in a continued run until the next one begins, for
            the training's own checkpoint holds it.
        numbers: what the log says of it; nothing that training reads.
    """

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(len(facts.classes), facts.settings.theta)
        self.facts = facts
        self.rates = class_rates(facts.labelled_boxes)
        self.keeper = PoolKeeper(facts.settings.initial_threshold, with_boxes=True)
        self.alignment = Alignment(facts.labelled_boxes) if facts.variant.get("alignment") else None
        self.promotion: Promoted | None = None
        self.numbers = self._numbers()

    def _numbers(self) -> dict[str, float]:
        """Return the number of promoted images and, per group, of their labels, for the log."""
        images: Ints = np.zeros(0, np.int64)
        labels: Ints = np.zeros(0, np.int64)
        if self.promotion is not None:
            images, labels = self.promotion.images, self.promotion.labels[~self.promotion.ignored]
        counts = dict(zip(self.facts.classes, np.bincount(labels, minlength=self.num_classes).tolist(), strict=True))
        boxes = {name: sum(counts[one] for one in members) for name, members in self.facts.groups.items()}
        return {
            "promoted_images": float(len(np.unique(images))),
            **{f"promoted_boxes_{name}": float(number) for name, number in boxes.items()},
        }

    def score_transform(self, scores: Tensor, features: Tensor, context: Context) -> Tensor:
        """Return the teacher's probabilities, aligned in CReST+."""
        return scores if self.alignment is None else self.alignment.transform(scores, context)

    def observe_detections(self, detections: Sequence[Detections], context: Context) -> None:
        """Let the teacher's detections replace what the pool holds of these images."""
        self.keeper.observe(detections, context.iteration)

    def promoted(self, context: Context) -> Promoted | None:
        """Return the selection from the pool as it is now; none before the first generation has ended."""
        self.promotion = None
        if context.generation > 0:
            pool = self.keeper.share()
            self.promotion = promote(pool, select(pool, self.rates, self.facts.settings.theta), self.keeper.floor)
        self.numbers = self._numbers()
        return self.promotion

    def copies(self, context: Context) -> Copies:
        """Return RFS's copies of D_l and the promoted images."""
        facts = self.facts
        threshold = facts.task.repeat_threshold
        own = union_copies(facts.labelled_classes, self.promotion, facts.num_unlabelled, self.num_classes, threshold)
        return {0: own}

    @torch.no_grad()
    def after_iteration(self, context: Context) -> None:
        """Note the model's mean prediction (CReST+) and log what is promoted."""
        if self.alignment is not None:
            self.alignment.update(context)
        context.logs.update(self.numbers)

    def statistics(self, context: Context) -> dict[str, Tensor | float]:
        """Return how many images of D_u the pool holds, and their share; a collective call."""
        seen = len(self.keeper.share().images)
        return {"pool": seen, "pool_coverage": seen / self.facts.num_unlabelled}

    def before_save_checkpoint(self, state: dict[str, Any]) -> None:
        """Add the pool and the numbers of the running generation."""
        state["crest"] = {"pool": self.keeper.state(), "numbers": self.numbers}

    def after_load_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self.keeper.load(state["crest"]["pool"])
        self.numbers = dict(state["crest"]["numbers"])


METHOD = Method(
    title="CReST",
    source="Sec. 4.3, Tables 1-2",
    summary="pseudo labels, most of the rare classes, become labels for a generation; RFS",
    citation="C. Wei, K. Sohn, C. Mellina, A. Yuille, F. Yang: CReST: A Class-Rebalancing Self-Training Framework for "
    "Imbalanced Semi-Supervised Learning. CVPR 2021.",
    parts=CReST,
    reported={
        "coco-split1": {"all": 22.2, "maj": 29.3, "min": 1.0},
        "coco-split2": {"all": 16.3, "maj": 31.2, "min": 1.4},
        "coco-o365": {"all": 6.8, "maj": 21.3, "min": 2.8},
    },
    variants={"crest+": {"alignment": True}},
    images="promoted",
    departures=(
        "published for images with a class each; this is a reading of it for boxes",
        "weights go on through the generations; the original trains every generation anew for the whole schedule",
        "pseudo labels are the pool's latest, with score > 0.9; the original predicts all unlabelled images at the end "
        "of a generation and has no threshold",
        "D_l and the promoted images are drawn with repeat factors (the paper replaces the methods' sampling with RFS)",
        "ten generations, as the paper's method has them; the original has six on CIFAR",
        "where unlabelled images wait (photo, mini: 40 % of T), the first generations have no pseudo labels to "
        "promote: five of nine selections are left",
        "the window of the model's predictions (variant crest+) is 128 iterations in runs of every length",
    ),
)
