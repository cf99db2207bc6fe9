"""LabelMatch's thresholds (Chen et al., CVPR 2022), a row of Table 5: as many pseudo labels as D_l leads one to expect.

If the unlabelled images hold boxes of a class as often as the labelled ones, N_ref of them hold q_c; the threshold is
the score of the teacher's (0.2 q_c)-th best detection. The premise, equal distributions, is what the paper criticises.
The second, lower threshold of LabelMatch (boxes to be ignored) is left out: Table 5 is about thresholds only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cissod_bench.contract.parts import Detections
from cissod_bench.contract.run_length import share_of_paper

from .gbt import scores_and_labels
from .short_runs import LEAST_WINDOW

RELIABLE = 0.2  # share of the expected boxes that become pseudo labels (LabelMatch, Sec. 4.1)
FLOOR = 0.05  # of the threshold (LabelMatch's code)
WINDOW = 12_800  # the last teacher images that count: the online form of LabelMatch's code
REFRESH = 1_000  # iterations between two looks at the scores (LabelMatch's code)
BINS = 1_000  # of the score histogram: thresholds are exact to 0.001
SLOTS = 8  # the window moves in steps of an eighth


def expected_boxes(box_counts: Tensor, labelled_images: int, reference_images: Tensor) -> Tensor:
    """Return q_c = N_ref b r_c, the boxes of class c to expect in N_ref images, shape (n,).

    Args:
        box_counts: labelled boxes per class, counted as 1 at least, shape (n,); r_c is their share.
        labelled_images: images of D_l; b = boxes / images.
        reference_images: N_ref.
    """
    shares = box_counts.clamp(min=1) / box_counts.clamp(min=1).sum()
    return reference_images * (box_counts.sum() / labelled_images) * shares


def ranks_of(expected: Tensor) -> Tensor:
    """Return floor(0.2 q_c), the rank (from 0, best first) of the score that is the threshold, int64, shape (n,)."""
    return (RELIABLE * expected).long()


def thresholds_from_histogram(histogram: Tensor, ranks: Tensor) -> Tensor:
    """Return max(0.05, score of rank min(rank, detections - 1)) per class, shape (n,); 0.05 without detections.

    Args:
        histogram: detections per class and score bin of width 1 / bins, lowest first, int64, shape (n, bins).
        ranks: as of `ranks_of`, shape (n,).

    The score is its bin's lower edge.
    """
    bins = histogram.shape[1]
    best_first = histogram.flip(1).cumsum(dim=1)
    rank = torch.minimum(ranks, (best_first[:, -1] - 1).clamp(min=0))
    place = (best_first <= rank[:, None]).sum(dim=1)
    return ((bins - 1 - place) / bins).clamp(min=FLOOR)


class LabelMatch(nn.Module):
    """Score histograms of the last teacher images, and the thresholds read from them now and then.

    Args:
        box_counts: labelled boxes per class, shape (n,).
        labelled_images: images of D_l.
        theta: the thresholds before the first look.
        iterations: T.

    Buffers: ``ring`` (8, n, 1000), ``images`` (8,), ``slot`` (), ``theta`` (n,).
    """

    box_counts: Tensor
    ring: Tensor
    images: Tensor
    slot: Tensor
    theta: Tensor

    def __init__(self, box_counts: Sequence[int], labelled_images: int, theta: float, iterations: int) -> None:
        super().__init__()
        classes = len(box_counts)
        self.labelled_images, self.iterations = labelled_images, iterations
        self.size = classes * BINS + 1
        self.refresh = max(round(REFRESH * share_of_paper(iterations)), 1)
        self.register_buffer("box_counts", torch.tensor(box_counts, dtype=torch.float64), persistent=False)
        self.register_buffer("ring", torch.zeros(SLOTS, classes, BINS, dtype=torch.int32))
        self.register_buffer("images", torch.zeros(SLOTS, dtype=torch.int64))
        self.register_buffer("slot", torch.zeros((), dtype=torch.int64))
        self.register_buffer("theta", torch.full((classes,), theta))

    def collect(self, sums: Tensor, detections: Sequence[Detections]) -> None:
        """Add the teacher's detections to this iteration's histogram, and their images, shape (1000 n + 1,)."""
        scores, labels, counted = scores_and_labels(detections)
        places = labels * BINS + (scores * BINS).long().clamp(max=BINS - 1)
        sums[:-1].index_add_(0, places, counted.to(sums.dtype))
        sums[-1] += len(detections)

    def update(self, sums: Tensor, iteration: int) -> None:
        """Move the window by an iteration's sums over all ranks, shape (1000 n + 1,); refresh theta if it is time."""
        new = sums[-1].long()  # images
        # The window, in images, is the same share of T as LabelMatch's of the paper's run, of 100 iterations at least.
        # A slot is left when it is full; the one entered is emptied: the window's oldest eighth goes.
        window = (LEAST_WINDOW * new).clamp(WINDOW * share_of_paper(self.iterations), WINDOW)
        full = self.images[self.slot] >= window / SLOTS
        self.slot = torch.where(full, (self.slot + 1) % SLOTS, self.slot)
        self.ring[self.slot] *= (~full).to(self.ring.dtype)
        self.images[self.slot] *= ~full
        self.ring[self.slot] += sums[:-1].view(-1, BINS).to(self.ring.dtype)
        self.images[self.slot] += new
        if iteration % self.refresh == 0:
            seen = self.images.sum()
            expected = expected_boxes(self.box_counts, self.labelled_images, seen)
            histogram = self.ring.sum(dim=0, dtype=torch.int64)
            theta = thresholds_from_histogram(histogram, ranks_of(expected)).to(self.theta.dtype)
            # Before the first unlabelled image there is nothing to look at.
            self.theta = torch.where(seen > 0, theta, self.theta)
