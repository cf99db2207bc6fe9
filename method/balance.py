"""The state of GbR: the gradients' moving average, the class logits and what they need (Sec. 3.2, in ``gbr.py``)."""

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
        focal_gamma: of the softmax focal loss.
        matrix_momentum: eta_g of G~.
        cumulative: let G~ be the plain mean during the warm-up.
        one_by_one: let the matrices of the two branches enter G~ one after the other and not as their sum.
        mix: what the branches count, see `gbr.branch_scales`.
        warmup: share of T before the weights move from 1.
        target_bounds: of the foreground targets.
        background_bounds: of the background's target.
        epsilon: of Eq. 6.
        relative_epsilon: epsilon counts in units of the largest diagonal entry.
        hold_unseen: classes without gradient keep their weight.
        rate: learning rate of the class logits.
        momentum: of the class logits.
        coefficient: of L_align.
        decay: weight decay on the class logits.
        weight_bounds: of the weights that are applied.
        beta: exponent of the weights on labelled images.
        mean_momentum: of the running mean that row weights are divided by; None does not divide.
        shared_mean: one running mean for both branches and not one each.
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
    """Class weights that balance the gradients, updated once per iteration.

    Args:
        channels: K.
        constants: of the run's profile.
        gamma: of the loss whose gradients are balanced.
        iterations: T.
        milestones: shares of T after which the learning rate of the class logits is divided by 10.
        unsup_weight: lambda_u.

    Buffers: ``by_source`` G~ with its sources as rows (K, K), ``logits`` a (K,), ``velocity`` (K,), ``means`` (m_sup,
    m_unsup), ``seen`` (K,).
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
        """Numbers collected in an iteration, see `_parts`."""
        return 2 * self.channels**2 + 6 + self.channels

    @property
    def matrix(self) -> Tensor:
        """G~[affected, source], shape (K, K)."""
        return self.by_source.T

    @property
    def weights(self) -> Tensor:
        """W, shape (K,), before it is clamped for the loss."""
        return gbr.weights_from_logits(self.logits)

    def row_weights(self, labels: Tensor, branch: Branch) -> Tensor:
        """Return the loss weight of every proposal (Eq. 8) before the running mean divides it, shape (P,)."""
        beta = self.constants.beta if branch == "sup" else 1.0
        return gbr.class_weights(self.weights, self.constants.weight_bounds, beta)[labels]

    def mean(self, branch: Branch) -> Tensor:
        """Return the running mean of a branch's row weights, a scalar."""
        return self.means[0 if branch == "sup" else 1]

    def _parts(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of an iteration's sums.

        Matrices by branch, with their sources as rows (2, K, K); Z, proposals and row weights by branch (3, 2);
        proposals per class (K,).
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
        """Add a batch's gradients to this iteration's sums; class weights do not enter them.

        Args:
            sums: of this rank, shape (size,).
            branch: where the batch comes from.
            logits: shape (P, K).
            labels: shape (P,).
            label_weights: v, shape (P,).
            normaliser: Z of the branch's loss.
            row_weights: as applied, before the running mean divides them, shape (P,); None where none are.
        """
        place = 0 if branch == "sup" else 1
        matrices, numbers, counts = self._parts(sums)
        rows = gbr.focal_gradient(logits.detach(), labels, label_weights, self.gamma)
        matrices[place].index_add_(0, labels, rows.to(matrices.dtype))
        numbers[0, place] += normaliser
        numbers[1, place] += len(labels)
        numbers[2, place] += len(labels) if row_weights is None else row_weights.sum()
        counts.index_add_(0, labels, (label_weights > 0).to(counts.dtype))

    @torch.no_grad()
    def update(self, sums: Tensor, iteration: int) -> None:
        """Move the state by an iteration's sums over all ranks: average, targets, class logits, running means.

        Args:
            sums: shape (size,); they are used up. Where they count no proposal nothing moves.
            iteration: counted from 0.
        """
        matrices, (normalisers, rows, row_weights), counts = self._parts(sums)
        scales = gbr.branch_scales(self.constants.mix, normalisers, rows, self.unsup_weight)
        counted = rows.sum() > 0
        self._average(matrices, scales, iteration, counted)
        self.seen |= counts > 0
        if iteration >= self.warmup:
            self._align(iteration, counted)
        if self.constants.mean_momentum is not None:
            self._average_weights(row_weights, rows, self.constants.mean_momentum)

    def _average(self, matrices: Tensor, scales: Tensor, iteration: int, counted: Tensor) -> None:
        own = self.constants
        rate = counted * gbr.averaging_rate(iteration, own.matrix_momentum, self.warmup, own.cumulative)
        rate = rate.to(self.by_source.dtype)
        # In place: new memory for matrices of 1204 x 1204 would take most of the time.
        labelled, unlabelled = matrices.mul_(scales[:, None, None])
        if own.one_by_one:
            self.by_source.lerp_(labelled, rate).lerp_(unlabelled, rate)
        else:
            self.by_source.lerp_(labelled.add_(unlabelled), rate)

    def _align(self, iteration: int, counted: Tensor) -> None:
        own, weights = self.constants, self.weights
        held = gbr.without_gradient(self.matrix, self.seen) if own.hold_unseen else None
        unit = -self.matrix.diagonal().min() if own.relative_epsilon else self.matrix.new_ones(())
        targets = gbr.jacobi_targets(
            self.matrix,
            weights,
            epsilon=own.epsilon * unit,
            held=held,
            bounds=own.target_bounds,
            background_bounds=own.background_bounds,
        )
        passed = sum(iteration >= share * self.iterations for share in self.milestones)
        moved = gbr.alignment_step(
            self.logits,
            self.velocity,
            targets,
            rate=own.rate * 0.1**passed,
            momentum=own.momentum,
            coefficient=own.coefficient,
            decay=own.decay,
            held=held,
        )
        before = self.logits, self.velocity
        self.logits, self.velocity = (torch.where(counted, *pair) for pair in zip(moved, before, strict=True))

    def _average_weights(self, totals: Tensor, rows: Tensor, momentum: float) -> None:
        if not self.constants.shared_mean:
            self.means = gbr.running_mean(self.means, totals, rows, momentum)
            return
        for total, number in zip(totals, rows, strict=True):
            self.means = gbr.running_mean(self.means, total, number, momentum)
