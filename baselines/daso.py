"""DASO (Oh, Kim, Kweon, CVPR 2022) on Soft Teacher: pseudo labels blended with a classifier of similar features.

A queue per class holds the teacher's features of labelled boxes; its mean is the class's prototype, however many boxes
the class has. The more often pseudo labels name a class, the more its RoIs' class probabilities are replaced by
those of the nearest prototypes. A second loss aligns the student's features with the same prototypes.

The original classifies images. Here a feature is the output of the RoI head's last shared layer, and only the n
foreground classes have prototypes: background RoIs have no compact mean, so the detector alone tells them apart.
Two more departures of our own, which the variant ``original`` takes back: features of weak views are the teacher's, who
gives the pseudo labels in Soft Teacher, not the student's; the alignment loss is taken over the detections that may
become pseudo labels, not over all regions, most of which are background and have no prototype. These count in its mean
as 0, so that a region weighs the same in it and in the classification loss, as in the original. ``METHOD.departures``
lists all. Equations are cited by their paragraph in Sec. 3.3 of that paper ("DASO, blending").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, Detections, Parts, Regions, group_means
from cissod_bench.contract.repeat_factors import labelled_copies
from cissod_bench.contract.run_length import PAPER_ITERATIONS
from cissod_bench.distributed import gather_rows

MANY_CLASSES = 1000
"""Above it 256 features per class do not fit: 1203 queues (LVIS) of 1024-d half-precision features take 630 MB."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """DASO's constants for a run.

    Attributes:
        queue: features per class (DASO: 256).
        proto_temperature: T_proto > 0 of the similarities (DASO: 0.05).
        dist_temperature: T_dist > 0 of upsilon. DASO: 1.5 where D_l and D_u are distributed alike (CIFAR-10), 0.3
            where they are not or where it is unknown (CIFAR-100, STL-10).
        window: iterations whose pseudo labels make up the histogram mhat (DASO: 100).
        warmup: share of T without blending and alignment, from the first unlabelled images on (DASO: 5000 of 250 000
            iterations).
        alignment: weight of the alignment loss beside the other losses on unlabelled images (DASO: 1).
        weak_features: whose features of the weak views are compared with the prototypes: the "teacher"'s, which gives
            the pseudo labels here, or the "student"'s (DASO).
        aligned: what the alignment loss is taken over: the teacher's "detections" above the initial threshold, where
            the other RoIs of the classification loss count as 0, or all its "proposals" (DASO: all unlabelled samples).
    """

    queue: int = 256
    proto_temperature: float = 0.05
    dist_temperature: float = 0.3
    window: int = 100
    warmup: float = 0.02
    alignment: float = 1.0
    weak_features: Literal["teacher", "student"] = "teacher"
    aligned: Literal["detections", "proposals"] = "detections"


def window_for(iterations: int) -> int:
    """Return the iterations of a histogram window: 100, but no more than 2 % of T, and at least 5.

    In proportion to the original's 250 000 iterations a window of a run of 900 would be shorter than one iteration. 2 %
    leave such a run about 50 windows of 18 iterations, which hold some 20 pseudo labels per class of the toy tasks; the
    least window is for runs of a few iterations that only show that everything works.
    """
    return min(Constants.window, max(round(0.02 * iterations), 5))


def queue_for(iterations: int, classes: int) -> int:
    """Return the features per class: 256, in a run of less than 180 000 iterations their share of it, and at least 32.

    DASO trains for 250 000 iterations, the paper for 180 000.

    A minority class of the toy tasks has ten labelled boxes, which a run of 900 iterations sees every 25 iterations:
    256 features of it would reach back to the random weights of the start, 32 reach back 80 iterations. Above
    `MANY_CLASSES` classes 64 at most.

    Args:
        iterations: T.
        classes: n.
    """
    most = 64 if classes > MANY_CLASSES else Constants.queue
    return min(most, max(round(Constants.queue * iterations / PAPER_ITERATIONS), 32))


def constants_for(facts: RunFacts) -> Constants:
    """Return the constants of a run, with the fields that its variant changes.

    A task with a minority draws D_l otherwise than D_u; where groups come from counts, both are drawn alike.
    """
    own: dict[str, Any] = {
        "dist_temperature": 0.3 if "min" in facts.task.groups else 1.5,
        "queue": queue_for(facts.iterations, len(facts.classes)),
        "window": window_for(facts.iterations),
    }
    return Constants(**{**own, **facts.variant})


def push(queue: Tensor, pushed: Tensor, features: Tensor, labels: Tensor) -> None:
    """Add features to the queues of their classes, in place; the oldest leave (DASO, balanced prototypes).

    Args:
        queue: ring buffers of L features per class, shape (n, L, D).
        pushed: how many features each class has ever had, int64, shape (n,); the next slot is pushed mod L.
        features: the new ones, oldest first, shape (M, D).
        labels: their channels in [0, n), int64, shape (M,).
    """
    length = queue.shape[1]
    order = labels.argsort(stable=True)
    features, labels = features[order].to(queue.dtype), labels[order]
    counts = torch.bincount(labels, minlength=len(queue))
    # The place of each feature among those of its class; of more than L only the last L stay.
    place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels]
    stays = place >= counts[labels] - length
    queue[labels[stays], (pushed[labels] + place)[stays] % length] = features[stays]
    pushed += counts


def mean_features(queue: Tensor, pushed: Tensor) -> Tensor:
    """Return C_k, the mean of each class's queue, float32, shape (n, D); 0 for an empty queue (DASO, prototypes).

    Args:
        queue: as in `push`, with zeros where nothing has been yet.
        pushed: as in `push`.
    """
    filled = pushed.clamp(max=queue.shape[1]).clamp(min=1)
    return queue.sum(dim=1, dtype=torch.float32) / filled[:, None]


def similarity_logits(features: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Return cos(z, C_k) / T_proto, shape (M, n); 0 for a feature or prototype of 0 (DASO, semantic pseudo-label).

    Args:
        features: z, shape (M, D).
        prototypes: C, shape (n, D).
        temperature: T_proto.
    """
    # Mixed precision would multiply in half precision, whose errors T_proto makes 20 times larger.
    with torch.autocast(features.device.type, enabled=False):
        cosines = F.normalize(features, dim=1, eps=1e-8) @ F.normalize(prototypes, dim=1, eps=1e-8).T
    return cosines / temperature


def semantic_scores(features: Tensor, prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Return q = softmax_k(cos(z, C_k) / T_proto) over the classes with a prototype, 0 for the others, shape (M, n).

    Args:
        features: z, shape (M, D).
        prototypes: C, shape (n, D).
        present: which classes have a prototype, at least one, bool, shape (n,).
        temperature: T_proto.
    """
    return similarity_logits(features, prototypes, temperature).masked_fill(~present, -torch.inf).softmax(dim=1)


def blending_weights(distribution: Tensor, temperature: float) -> Tensor:
    """Return upsilon_k = mhat_k^(1 / T_dist) / max_j mhat_j^(1 / T_dist), in [0, 1], shape (n,) (DASO, blending).

    Args:
        distribution: mhat, the classes' shares of the pseudo labels or their counts, shape (n,); all 0 gives all 0.
        temperature: T_dist; the smaller, the more only the most frequent classes are blended.
    """
    most = distribution.max()
    return (distribution / torch.where(most > 0, most, 1)) ** (1 / temperature)


def blend(scores: Tensor, semantic: Tensor, upsilon: Tensor) -> Tensor:
    """Return p' = (1 - upsilon_k') p + upsilon_k' q with k' = argmax p, shape (R, K) (DASO, blending).

    p are the probabilities of the foreground classes given that the RoI is no background; P(background) stays.

    Args:
        scores: class probabilities, background last, shape (R, K).
        semantic: q, shape (R, n), rows sum to 1.
        upsilon: shape (n,).
    """
    classes = scores[:, :-1]
    foreground = classes.sum(dim=1, keepdim=True)
    share = upsilon[classes.argmax(dim=1)][:, None]
    return torch.cat([(1 - share) * classes + share * foreground * semantic, scores[:, -1:]], dim=1)


def alignment_loss(weak: Tensor, strong_logits: Tensor, samples: int) -> Tensor:
    """Return -(1 / B) sum q_w . log softmax(cos(z_s, C) / T_proto), a scalar (DASO, semantic alignment loss).

    Args:
        weak: q_w of the teacher's features, shape (M, n), M > 0, without gradient.
        strong_logits: cos / T_proto of the student's features, shape (M, n).
        samples: B > 0 of the mean; where B > M, B - M samples count as 0.
    """
    return -(weak * strong_logits.log_softmax(dim=1)).sum() / samples


class Daso(Parts):
    """Soft Teacher with DASO's blended scores and alignment loss, and RFS on D_l.

    Args:
        facts: of the run.

    Attributes:
        rois_per_iteration: number of RoIs in the classification loss on unlabelled images, on one rank.
    """

    OBSERVES_LABELLED = True
    COMPARES_VIEWS = True
    queue: Tensor
    pushed: Tensor
    prototypes: Tensor
    window: Tensor
    distribution: Tensor
    collected: Tensor
    groups: Tensor

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(len(facts.classes), facts.settings.theta)
        classes, size = self.num_classes, facts.settings.fc_channels
        self.constants = constants_for(facts)
        self.STUDENT_SEES_WEAK = self.constants.weak_features == "student"
        self.COMPARES_PROPOSALS = self.constants.aligned == "proposals"
        self.warmup = (facts.settings.unsup_start + self.constants.warmup) * facts.iterations
        self.initial_threshold, self.score_floor = facts.settings.initial_threshold, facts.settings.score_floor
        self.rois_per_iteration = facts.settings.roi_samples * facts.settings.unlabelled_per_gpu
        self._copies = labelled_copies(facts.labelled_classes, classes, facts.task.repeat_threshold)
        self.register_buffer("queue", torch.zeros(classes, self.constants.queue, size, dtype=torch.float16))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("prototypes", torch.zeros(classes, size))
        self.register_buffer("window", torch.zeros(classes))  # pseudo labels per class of the running window
        self.register_buffer("distribution", torch.zeros(classes))  # those of the last whole one
        # What an iteration brings; empty between iterations.
        self.register_buffer("collected", torch.zeros(classes), persistent=False)
        self._seen: list[Regions] = []
        self.group_names = tuple(facts.groups)
        self.register_buffer("groups", group_means(facts.classes, facts.groups), persistent=False)

    def departures(self) -> dict[str, list[Any]]:
        """Return the constants that short runs and many classes change."""
        pairs = {name: [getattr(Constants, name), getattr(self.constants, name)] for name in ("queue", "window")}
        return {f"daso.{name}": pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def copies(self, context: Context) -> Copies:
        """Return RFS's copies of source 0, D_l."""
        return {0: self._copies}

    def upsilon(self) -> Tensor:
        """Return how far each class's probabilities are replaced, shape (n,); all 0 before the first histogram."""
        return blending_weights(self.distribution, self.constants.dist_temperature)

    def _active(self, context: Context) -> bool:
        """Return whether the warm-up is over and there is a prototype."""
        return context.iteration >= self.warmup and bool(self.pushed.any())

    def score_transform(self, scores: Tensor, features: Tensor, context: Context) -> Tensor:
        """Return the teacher's probabilities, blended with those of the prototypes, shape (R, K)."""
        # Of other RoIs no class can pass the floor, blended or not: they need no similarities.
        rows = scores[:, :-1].sum(dim=1) > self.score_floor
        if not self._active(context) or not bool(self.distribution.any()):
            return scores
        own = scores[rows]
        semantic = semantic_scores(
            features[rows].to(self.prototypes.dtype), self.prototypes, self.pushed > 0, self.constants.proto_temperature
        )
        blended = blend(own, semantic, self.upsilon())
        changed = own[:, :-1].argmax(dim=1) != blended[:, :-1].argmax(dim=1)
        context.logs["relabelled"] = changed.sum() / max(len(changed), 1)
        result = scores.clone()
        result[rows] = blended
        return result

    def observe_labelled(self, regions: Regions, context: Context) -> None:
        """Note the features of the labelled boxes until the iteration's end."""
        self._seen.append(Regions(regions.features.detach().to(self.queue.dtype), regions.labels))

    def observe_detections(self, detections: Sequence[Detections], context: Context) -> None:
        """Count the final labels of the detections above the initial threshold."""
        for one in detections:
            labels = one.labels[one.scores > self.initial_threshold]
            self.collected += torch.bincount(labels, minlength=self.num_classes)

    def extra_losses(self, teacher: Regions, student: Tensor, context: Context) -> dict[str, Tensor]:
        """Return the alignment loss, whose gradient reaches the student's features alone; 0 in the warm-up."""
        if not self._active(context) or not len(teacher.labels):
            return {"loss_align": student.float().sum() * 0.0}
        # A class without a prototype has q_w = 0 and takes part in neither softmax.
        prototypes, temperature = self.prototypes[self.pushed > 0], self.constants.proto_temperature
        kind = self.prototypes.dtype
        weak = similarity_logits(teacher.features.detach().to(kind), prototypes, temperature).softmax(dim=1)
        strong = similarity_logits(student.to(kind), prototypes, temperature)
        samples = len(weak) if self.COMPARES_PROPOSALS else max(self.rois_per_iteration, len(weak))
        return {"loss_align": self.constants.alignment * alignment_loss(weak, strong, samples)}

    @torch.no_grad()
    def after_iteration(self, context: Context) -> None:
        """Add all ranks' features to the queues and their pseudo labels to the window, the same on every rank."""
        self._push_seen()
        self.window += context.sum_over_ranks(self.collected)
        self.collected.zero_()
        if (context.iteration + 1) % self.constants.window == 0:
            self.distribution.copy_(self.window)
            self.window.zero_()
        filled = self.pushed.clamp(max=self.constants.queue).sum()
        context.logs["queue_filled"] = filled / (self.num_classes * self.constants.queue)
        means = self.groups @ self.upsilon()
        context.logs.update({f"upsilon_mean_{name}": mean for name, mean in zip(self.group_names, means, strict=True)})

    def _push_seen(self) -> None:
        """Move the iteration's features into the queues, in the order of the ranks, and renew their prototypes."""
        seen, self._seen = self._seen, []
        features = torch.cat([self.queue.new_zeros(0, self.queue.shape[2]), *(one.features for one in seen)])
        labels = torch.cat([self.pushed.new_zeros(0), *(one.labels for one in seen)])
        features, labels = gather_rows(features), gather_rows(labels)
        # One value that is not finite would spoil its prototype for as long as it is in the queue.
        finite = torch.isfinite(features).all(dim=1)
        features, labels = features[finite], labels[finite]
        push(self.queue, self.pushed, features, labels)
        classes = torch.bincount(labels, minlength=self.num_classes).nonzero()[:, 0]
        self.prototypes[classes] = mean_features(self.queue[classes], self.pushed[classes]).to(self.prototypes.dtype)


METHOD = Method(
    title="DASO",
    source="Sec. 4.3, Tables 1-3",
    summary="pseudo labels blended with those of the nearest class prototypes; RFS",
    citation="Y. Oh, D.-J. Kim, I. S. Kweon: DASO: Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced "
    "Semi-Supervised Learning. CVPR 2022.",
    parts=Daso,
    reported={
        "coco-split1": {"all": 24.8, "maj": 31.1, "min": 6.0},
        "coco-split2": {"all": 20.7, "maj": 33.0, "min": 8.4},
        "coco-o365": {"all": 7.8, "maj": 23.3, "min": 3.6},
        "lvis": {"all": 8.7, "f": 23.2, "c": 13.1, "r": 3.2},
    },
    variants={
        # Not in the paper: each temperature on every task; one of the two is the task's own.
        "t-dist-0.3": {"dist_temperature": 0.3},
        "t-dist-1.5": {"dist_temperature": 1.5},
        # As in DASO's release: the student's features of weak views, alignment over all regions.
        "original": {"weak_features": "student", "aligned": "proposals"},
    },
    departures=(
        "weak features are the teacher's, which gives the pseudo labels in Soft Teacher; in the original the student's "
        "(variant original)",
        "the alignment loss is over the teacher's detections above 0.5, other RoIs of the classification loss count as "
        "0; in the original over all unlabelled samples (variant original: over all proposals)",
        "the histogram of pseudo labels counts detections above 0.5; in the original all unlabelled samples",
        "only foreground classes have prototypes: P(background) stays, and RoIs whose foreground mass is below the "
        "score floor are not blended",
        "pseudo labels need score > 0.9 as in Soft Teacher; in the original 0.95",
        "lambda_u multiplies the alignment loss as all losses on unlabelled images; in the original it is 1 for both",
        "the warm-up of 2 % of T counts from the first unlabelled images on",
        "queues and the histogram's window are shorter in runs below 180 000 iterations, queues above 1 000 classes "
        "(run.json lists the values)",
    ),
)
