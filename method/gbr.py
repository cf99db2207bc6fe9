"""GbR: gradient-based reweighting (Sec. 3.2, Eq. 1-8), the equations as pure functions.

Every proposal pushes the logit of its own class up and all other logits down. G counts, for every pair of classes, how
hard the proposals of one push the logit of the other; one positive weight per class is sought under which, for every
foreground class, both directions cancel. ``balance.py`` keeps the state that these functions need between iterations.

Throughout: n foreground classes; K = n + 1 channels, counted from 0 (the paper counts from 1), background last; R
proposals, the sampled RoIs of a batch, one per row; x (R, K) their logits, P = softmax(x) and p, of each row, the entry
of P at the label.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Mix: TypeAlias = Literal["plain", "rows", "loss"]

_LEAST_REST = 1e-7
"""Lower limit of 1 - p for gamma < 1, where (1 - p)^(gamma - 1) has no bound as p -> 1."""


def _log_probabilities(logits: Tensor) -> Tensor:
    """Return ln P in float32, or float64 where the logits are, shape (R, K)."""
    return torch.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _one_minus_p(log_p: Tensor, gamma: float) -> Tensor:
    """Return 1 - p, computed from ln p so that p near 1 loses no digits, of the shape of ``log_p``."""
    rest = -torch.expm1(log_p)
    return rest.clamp(min=_LEAST_REST) if gamma < 1 else rest


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return the softmax focal loss f of every proposal, shape (R,), each >= 0: (1 - p)^gamma (-ln p).

    GbR balances its derivatives as `focal_gradient` has them: whoever changes this loss changes both.

    Args:
        logits: x, shape (R, K).
        labels: channels in [0, K), int64, shape (R,).
        gamma: focusing parameter, >= 0; 0 is cross-entropy.
    """
    log_p = _log_probabilities(logits).gather(1, labels[:, None]).squeeze(1)
    return -log_p if gamma == 0 else _one_minus_p(log_p, gamma) ** gamma * -log_p


def focal_gradient(logits: Tensor, labels: Tensor, label_weights: Tensor, gamma: float) -> Tensor:
    """Return the derivative of every proposal's loss v f by its logits, shape (R, K), in closed form.

    d(v f) / dx_i = v q p (P_i - [i is the label]) with q = -df / dp > 0, so that
    q p = (1 - p)^gamma - gamma p (1 - p)^(gamma - 1) ln p.
    The entry at the label is <= 0 (descent raises that logit), the others are >= 0, a row sums to 0.

    Args:
        logits: x, shape (R, K).
        labels: channels in [0, K), int64, shape (R,).
        label_weights: v in [0, 1], shape (R,).
        gamma: focusing parameter, >= 0.
    """
    log_probabilities = _log_probabilities(logits.detach())
    log_p = log_probabilities.gather(1, labels[:, None])
    rest = _one_minus_p(log_p, gamma)
    push = rest**gamma  # becomes v q p
    if gamma > 0:
        push -= gamma * log_p.exp() * rest ** (gamma - 1) * log_p
    push *= label_weights[:, None]
    return log_probabilities.exp_().mul_(push).scatter_(1, labels[:, None], push * torch.expm1(log_p))


def gradient_matrix(logits: Tensor, labels: Tensor, label_weights: Tensor, gamma: float) -> Tensor:
    """Return G, shape (K, K): G[i, k] sums the derivatives by logit i over the proposals labelled k (Eq. 1-2).

    Args:
        logits: x, shape (R, K).
        labels: channels in [0, K), int64, shape (R,).
        label_weights: v in [0, 1], shape (R,).
        gamma: focusing parameter of the softmax focal loss, >= 0; 0 is cross-entropy.

    The diagonal is <= 0 (it raises the logit), the rest >= 0, every column sums to 0. Time and memory O(R K + K^2).
    """
    channels, kind = logits.shape[1], torch.promote_types(logits.dtype, torch.float32)
    by_source = logits.new_zeros(channels, channels, dtype=kind)
    return add_gradients(by_source, logits, labels, label_weights, gamma).T


def add_gradients(by_source: Tensor, logits: Tensor, labels: Tensor, label_weights: Tensor, gamma: float) -> Tensor:
    """Add a batch's G to a sum in place and return the sum: Eq. 1-2 as training computes them.

    Args:
        by_source: the sum, transposed: entry [k, i] is of logit i and the proposals labelled k, shape (K, K).
        logits: x, shape (R, K).
        labels: channels in [0, K), int64, shape (R,).
        label_weights: v in [0, 1], shape (R,).
        gamma: focusing parameter, >= 0.
    """
    gradient = focal_gradient(logits, labels, label_weights, gamma)
    return by_source.index_add_(0, labels, gradient.to(by_source.dtype))


def branch_scales(mix: Mix, normalisers: Tensor, rows: Tensor, unsup_weight: float) -> Tensor:
    """Return the factors (a_sup, a_unsup) of the branches in G = a_sup G_sup + a_unsup G_unsup, shape (2,), each >= 0.

    Args:
        mix: "plain", the sums of Eq. 1-2 as printed: (1, 1); "rows", the released code: 100 (1, lambda_u) / rows;
            "loss", the gradient the optimiser sees: (1, lambda_u) / Z.
        normalisers: Z of the two branches' losses, >= 0, shape (2,).
        rows: R of the two branches, >= 0, shape (2,).
        unsup_weight: lambda_u.

    A branch without proposals has factor 0 or the matrix 0. Eq. 3-6 do not change when G is scaled: only the ratio of
    the two factors matters.
    """
    if mix == "plain":
        return torch.ones_like(normalisers)
    weights = torch.ones_like(normalisers)
    weights[1] = unsup_weight
    divisor = normalisers if mix == "loss" else rows / 100
    return torch.where(divisor > 0, weights / divisor.clamp(min=torch.finfo(divisor.dtype).tiny), 0)


def averaging_rate(iteration: int, momentum: float, warmup: float, cumulative: bool) -> float:
    """Return the rate, in [0, 1], of the moving average G~ <- G~ + rate (G - G~) (Sec. 3.2, below Eq. 2).

    1 - eta_g; with ``cumulative`` it is 1 / (iteration + 1), the plain mean, for the first ``warmup`` iterations.

    Args:
        iteration: counted from 0.
        momentum: eta_g, in [0, 1].
        warmup: in iterations.
        cumulative: whether the average begins as the plain mean.
    """
    return 1 / (iteration + 1) if cumulative and iteration < warmup else 1 - momentum


def weights_from_logits(logits: Tensor) -> Tensor:
    """Return w = K softmax(a) (Eq. 5), shape (K,): positive, summing to K (which is Eq. 4), all 1 at a = 0.

    Args:
        logits: a, the class logits, shape (K,).
    """
    return len(logits) * logits.softmax(dim=0)


def without_gradient(matrix: Tensor, seen: Tensor) -> Tensor:
    """Return which classes have no equation: never seen, or with a vanishing diagonal; bool, shape (K,).

    Args:
        matrix: G~, shape (K, K).
        seen: classes that had a proposal at least once, bool, shape (K,).

    The diagonal vanishes below 1e-12 of the largest, so that scaling G~ changes nothing. Background is never among
    them: its target comes from the sum (Eq. 4).
    """
    diagonal = -matrix.diagonal()
    missing = ~seen | (diagonal <= 1e-12 * diagonal.max())
    missing[-1] = False
    return missing


def jacobi_targets(
    matrix: Tensor,
    weights: Tensor,
    *,
    epsilon: float | Tensor = 0.0,
    held: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, float("inf")),
    background_bounds: tuple[float, float] = (0.0, float("inf")),
) -> Tensor:
    """Return the target weights t of one Jacobi iteration (Eq. 6, w^ there), shape (K,), each clamped to its bounds.

    t_i = (S_i + eps w_i) / (d_i + eps) for i < n with d_i = -G~_ii and S_i = sum_{k != i} G~_ik w_k; the background's
    is K - sum_{i<n} t_i, from targets that are not clamped yet. eps = 0 is the paper.

    Args:
        matrix: G~[affected, source], shape (K, K).
        weights: w > 0, shape (K,).
        epsilon: eps >= 0.
        held: classes that keep their weight as target because they have no equation (`without_gradient`), shape (K,);
            without it they run to infinity (or to 0 / 0 with eps = 0).
        bounds: least and largest foreground target. ln t needs a positive lower one.
        background_bounds: the same for the background, whose target often falls below 0.
    """
    diagonal = -matrix.diagonal()
    pulls = matrix @ weights + diagonal * weights
    targets = (pulls + epsilon * weights) / (diagonal + epsilon)
    if held is not None:
        targets = torch.where(held, weights, targets)
    background = len(weights) - targets[:-1].sum()
    return torch.cat([targets[:-1].clamp(*bounds), background.clamp(*background_bounds)[None]])


def alignment_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return L_align = mean over K of (ln t_i - a_i)^2 (Eq. 7), a scalar; t, the paper's w^, is a constant.

    For tests and training loops of your own: whoever changes it for `Ours` changes its gradient in `alignment_step`.

    Args:
        logits: a, shape (K,).
        targets: t > 0, shape (K,).
    """
    return (targets.detach().log() - logits).square().mean()


def alignment_step(
    logits: Tensor,
    velocity: Tensor,
    targets: Tensor,
    *,
    rate: float,
    momentum: float,
    coefficient: float = 1.0,
    decay: float = 0.0,
    held: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a and its velocity after one step of SGD on coefficient x L_align (Eq. 7), in closed form.

    dL_align / da_i = 2 (a_i - ln t_i) / K. Training makes this step and asks no `alignment_loss`. Kept out of the
    detector's optimiser, whose weight decay and loss scaling would act on a.

    Args:
        logits: a, shape (K,).
        velocity: of the momentum, shape (K,).
        targets: t > 0, shape (K,).
        rate: learning rate.
        momentum: of SGD.
        coefficient: weight of the loss.
        decay: weight decay on a.
        held: classes whose logit stays, bool, shape (K,).
    """
    gradient = coefficient * 2 * (logits - targets.log()) / len(logits) + decay * logits
    velocity = momentum * velocity + gradient
    if held is not None:
        velocity = torch.where(held, 0, velocity)
    return logits - rate * velocity, velocity


def class_weights(weights: Tensor, bounds: tuple[float, float], beta: float) -> Tensor:
    """Return the loss weight of every class (Eq. 8), shape (K,): w_i within bounds, to the power beta.

    Args:
        weights: w, shape (K,).
        bounds: least and largest weight that is applied.
        beta: 0.5 on labelled images, against overfitting; 1 on unlabelled ones.
    """
    return weights.clamp(*bounds) ** beta


def running_mean(mean: Tensor, total: Tensor, number: Tensor, momentum: float) -> Tensor:
    """Return m <- eta m + (1 - eta) total / number, unchanged where number is 0; elementwise (released code).

    m is the running mean of the proposals' weights. These are divided by it, so that the classification loss keeps its
    size although the background, which most proposals are, weighs less than 1.

    Args:
        mean: m before.
        total: the sum of the weights of a batch.
        number: R of that batch.
        momentum: eta of m, in [0, 1].
    """
    new = momentum * mean + (1 - momentum) * total / number.clamp(min=1)
    return torch.where(number > 0, new, mean)
