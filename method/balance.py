"""The state of GbR: the moving average of G, the class logits a and what they need (Sec. 3.2; equations: ``gbr.py``).

In an iteration each branch's loss asks `Balance.row_weights` (Eq. 8) and `Balance.collect` (Eq. 1-2); after it the sums
of all ranks go to `Balance.update` (below Eq. 2, Eq. 6-7). Shapes are named as in ``gbr.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from . import gbr

Branch = Literal["sup", "unsup_cls"]


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Numbers of GbR; ``profiles.py`` holds the values and where each comes from.

    Attributes:
        focal_gamma: gamma of the softmax focal loss, >= 0; not that of Eq. 10.
        matrix_momentum: eta_g of G~ per iteration, in [0, 1) (below Eq. 2).
        cumulative: let G~ be the plain mean during the warm-up.
        one_by_one: let the matrices of the two branches enter G~ one after the other and not as their sum.
        mix: with which factors the branches enter G, see `gbr.branch_scales`.
        warmup: share of T in which all weights stay 1.
        target_bounds: least and largest foreground target (Eq. 6).
        background_bounds: least and largest target of the background.
        epsilon: eps of `gbr.jacobi_targets`, which Eq. 6 has not.
        relative_epsilon: epsilon is a share of the largest diagonal entry of -G~.
        hold_unseen: classes without gradient keep their weight.
        rate: learning rate of a in the SGD on L_align (Eq. 7).
        momentum: of that SGD.
        coefficient: factor of L_align in the loss (Eq. 8: 1).
        decay: weight decay on a.
        weight_bounds: least and largest weight that multiplies a loss (Eq. 8).
        beta: exponent of the weights on labelled images, in (0, 1] (below Eq. 4).
        mean_momentum: eta of the running mean m, see `gbr.running_mean`; None does not divide by it.
        shared_mean: one m for both branches and not one each.
    """

    focal_gamma: float
    matrix_momentum: float
    cumulative: bool
    one_by_one: bool
    mix: gbr.Mix
    warmup: float
    target_bounds: tuple[float, float]
    background_bounds: tuple[float, float]
    epsilon: float
    relative_epsilon: bool
    hold_unseen: bool
    rate: float
    momentum: float
    coefficient: float
    decay: float
    weight_bounds: tuple[float, float]
    beta: float
    mean_momentum: float | None
    shared_mean: bool


class Balance(nn.Module):
    """Class weights w that balance the gradients, updated once per iteration.

    Args:
        channels: K.
        constants: of the run's profile.
        gamma: of the loss whose gradients are balanced.
        iterations: T.
        milestones: shares of T after which the learning rate of the class logits is divided by 10.
        unsup_weight: lambda_u.

    Buffers: ``by_source`` G~ transposed, its sources as rows (K, K); ``logits`` a (K,); ``velocity`` of their SGD (K,);
    ``means`` m of the branches "sup" and "unsup_cls" (2,); ``seen`` classes that ever had a proposal, bool (K,).
    """

    by_source: Tensor
    logits: Tensor
    velocity: Tensor
    means: Tensor
    seen: Tensor

    def __init__(
        self,
        channels: int,
        constants: Constants,
        *,
        gamma: float,
        iterations: int,
        milestones: tuple[float, ...],
        unsup_weight: float,
    ) -> None:
        super().__init__()
        self.channels, self.constants, self.gamma = channels, constants, gamma
        self.iterations, self.milestones, self.unsup_weight = iterations, milestones, unsup_weight
        self.warmup = constants.warmup * iterations
        self.register_buffer("by_source", torch.zeros(channels, channels))
        self.register_buffer("logits", torch.zeros(channels))
        self.register_buffer("velocity", torch.zeros(channels))
        self.register_buffer("means", torch.ones(2))
        self.register_buffer("seen", torch.zeros(channels, dtype=torch.bool))

    @property
    def size(self) -> int:
        """Numbers collected in an iteration, see `_pieces`."""
        return 2 * self.channels**2 + 6 + self.channels

    @property
    def matrix(self) -> Tensor:
        """G~[affected, source], shape (K, K)."""
        return self.by_source.T

    @property
    def weights(self) -> Tensor:
        """The weights w (Eq. 5), shape (K,), before they are clamped for the loss."""
        return gbr.weights_from_logits(self.logits)

    def row_weights(self, labels: Tensor, branch: Branch) -> Tensor:
        """Return the loss weight of every proposal (Eq. 8) before it is divided by the running mean, shape (R,)."""
        beta = self.constants.beta if branch == "sup" else 1.0
        return gbr.class_weights(self.weights, self.constants.weight_bounds, beta)[labels]

    def mean(self, branch: Branch) -> Tensor:
        """Return m, the running mean of a branch's row weights, a scalar."""
        return self.means[0 if branch == "sup" else 1]

    def _pieces(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of an iteration's sums, shape (size,); writing to them writes to it.

        G of each branch, transposed (2, K, K); Z, number of proposals and sum of the row weights of each branch
        (3, 2); number of proposals per class (K,).
        """
        square = 2 * self.channels**2
        matrices, numbers, counts = torch.split(sums, [square, 6, self.channels])
        return matrices.view(2, self.channels, self.channels), numbers.view(3, 2), counts

    @torch.no_grad()
    def collect(
        self,
        sums: Tensor,
        branch: Branch,
        logits: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        normaliser: Tensor,
        row_weights: Tensor | None,
    ) -> None:
        """Add a batch's gradients (Eq. 1-2) to this iteration's sums in place; class weights do not enter them.

        Args:
            sums: of this rank, shape (size,).
            branch: where the batch comes from.
            logits: x, shape (R, K).
            labels: channels in [0, K), int64, shape (R,).
            label_weights: v in [0, 1], shape (R,).
            normaliser: Z of the branch's loss, a scalar.
            row_weights: what `row_weights` returned, shape (R,); None where the loss has none.
        """
        place = 0 if branch == "sup" else 1
        matrices, numbers, counts = self._pieces(sums)
        gbr.add_gradients(matrices[place], logits, labels, label_weights, self.gamma)
        numbers[0, place] += normaliser
        numbers[1, place] += len(labels)
        numbers[2, place] += len(labels) if row_weights is None else row_weights.sum()
        counts.index_add_(0, labels, (label_weights > 0).to(counts.dtype))

    @torch.no_grad()
    def update(self, sums: Tensor, iteration: int) -> None:
        """Move the state by an iteration's sums over all ranks: average, targets, class logits, running means.

        Args:
            sums: shape (size,); overwritten. Where they count no proposal nothing moves.
            iteration: counted from 0.
        """
        matrices, (normalisers, rows, row_weights), counts = self._pieces(sums)
        scales = gbr.branch_scales(self.constants.mix, normalisers, rows, self.unsup_weight)
        counted = rows.sum() > 0
        self._average(matrices, scales, iteration, counted)
        self.seen |= counts > 0
        if iteration >= self.warmup:
            self._align(iteration, counted)
        if self.constants.mean_momentum is not None:
            self._average_weights(row_weights, rows, self.constants.mean_momentum)

    def _average(self, matrices: Tensor, scales: Tensor, iteration: int, counted: Tensor) -> None:
        """Move G~ towards this iteration's G (below Eq. 2); ``counted``, bool, a scalar: there was a proposal."""
        constants = self.constants
        rate = counted * gbr.averaging_rate(iteration, constants.matrix_momentum, self.warmup, constants.cumulative)
        rate = rate.to(self.by_source.dtype)
        # In place: new memory for matrices of 1204 x 1204 would take most of the time.
        labelled, unlabelled = matrices.mul_(scales[:, None, None])
        if constants.one_by_one:
            self.by_source.lerp_(labelled, rate).lerp_(unlabelled, rate)
        else:
            self.by_source.lerp_(labelled.add_(unlabelled), rate)

    def _align(self, iteration: int, counted: Tensor) -> None:
        """Make one step of a towards the targets' logarithms (Eq. 6-7), if there was a proposal."""
        constants = self.constants
        held = gbr.without_gradient(self.matrix, self.seen) if constants.hold_unseen else None
        unit = -self.matrix.diagonal().min() if constants.relative_epsilon else self.matrix.new_ones(())
        targets = gbr.jacobi_targets(
            self.matrix,
            self.weights,
            epsilon=constants.epsilon * unit,
            held=held,
            bounds=constants.target_bounds,
            background_bounds=constants.background_bounds,
        )
        passed = sum(iteration >= share * self.iterations for share in self.milestones)
        moved = gbr.alignment_step(
            self.logits,
            self.velocity,
            targets,
            rate=constants.rate * 0.1**passed,
            momentum=constants.momentum,
            coefficient=constants.coefficient,
            decay=constants.decay,
            held=held,
        )
        before = self.logits, self.velocity
        self.logits, self.velocity = (torch.where(counted, *pair) for pair in zip(moved, before, strict=True))

    def _average_weights(self, totals: Tensor, rows: Tensor, momentum: float) -> None:
        """Move m by the sums of row weights and the numbers of proposals of both branches, shape (2,) each."""
        if not self.constants.shared_mean:
            self.means = gbr.running_mean(self.means, totals, rows, momentum)
            return
        for total, number in zip(totals, rows, strict=True):
            self.means = gbr.running_mean(self.means, total, number, momentum)
