"""Losses, gradients and states that are not finite: never learned from, counted, and told when they do not end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cissod_bench import distributed
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.errors import BenchError
from cissod_bench.training.later import Later

MOST_IN_A_ROW = 50  # iterations without a step after which training stops
GRADIENT = "gradient"


@dataclass
class Streak:
    """Iterations in a row that made no step.

    Attributes:
        length: how many.
        since: the first of them, counted from 1 as in ``log.jsonl``; 0 while there is none.
        terms: what was not finite on this rank -> in how many of them.
    """

    length: int = 0
    since: int = 0
    terms: dict[str, int] = field(default_factory=dict)

    def end(self) -> None:
        """Note an iteration that made its step."""
        if self.length:
            self.length, self.since, self.terms = 0, 0, {}

    def grow(self, iteration: int, terms: Iterable[str]) -> None:
        """Note an iteration, counted from 0, that made none, and what was not finite on this rank."""
        self.since = self.since or iteration + 1
        self.length += 1
        for name in terms:
            self.terms[name] = self.terms.get(name, 0) + 1


class Verdict:
    """Whether an iteration skipped its optimiser step, on its way from the device; read when the next one is done.

    Args:
        iteration: counted from 0.
        rate: its learning rate.
        skipped: whether no step was made, bool, a scalar.
        broken: whether a loss of some rank is not finite, bool, a scalar; if not, it was the gradient.
        losses: of this rank, by name.
    """

    def __init__(
        self, iteration: int, rate: float, skipped: Tensor, broken: Tensor, losses: Mapping[str, Tensor]
    ) -> None:
        self.iteration, self.rate, self.names = iteration, rate, tuple(losses)
        infinite = [~torch.isfinite(value.detach()).all() for value in losses.values()]
        self._flags = Later(torch.stack([skipped, broken, *infinite]))

    def tell(self, streak: Streak) -> bool:
        """Let the streak of skipped steps grow or end; return whether the step was made. Waits for the device."""
        skipped, broken, *infinite = self._flags.read()
        if not skipped:
            streak.end()
            return True
        terms = [name for name, flag in zip(self.names, infinite, strict=True) if flag] if broken else [GRADIENT]
        streak.grow(self.iteration, terms)
        return False


def guarded_step(
    optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip_norm: float, broken: Tensor
) -> Tensor:
    """Clip the gradient and make the optimiser's step unless a loss or the gradient is not finite.

    A loss may be finite and its gradient not (a root at 0, an overflow in the backward pass). With mixed precision the
    scaler looks at the gradient itself, makes no step and takes a smaller scale. Nothing is read from a device: a fused
    optimiser takes the flag there, and leaves weights and averages alone by it.

    Args:
        optimiser: fused; its gradients are scaled by the scaler, and after this call used up.
        scaler: of mixed precision; does nothing where it is not enabled.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
        broken: whether a loss of some rank is not finite, bool, a scalar.

    Returns:
        Whether no step was made, bool, a scalar.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    gradients = [p.grad for p in parameters if p.grad is not None]
    if scaler.is_enabled() and gradients:
        # The scaler decides by the gradient alone, so a broken loss has to be in it.
        gradients[-1].mul_(torch.where(broken, float("nan"), 1.0))
    norm = None
    if clip_norm > 0:
        scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if scaler.is_enabled():
        skipped = ~torch.isfinite(nn.utils.get_total_norm(gradients, float("inf")))
        scaler.step(optimiser)
        scaler.update()
        return skipped
    if norm is None:
        norm = nn.utils.get_total_norm(gradients)
    skipped = broken | ~torch.isfinite(norm).to(broken.device)
    step_unless(optimiser, skipped)
    return skipped


def step_unless(optimiser: Any, skip: Tensor) -> None:
    """Make a fused optimiser's step unless the flag is set, bool, a scalar on the weights' device."""
    optimiser.grad_scale, optimiser.found_inf = None, skip.float()  # as GradScaler hands them over
    try:
        optimiser.step()
    finally:
        del optimiser.grad_scale, optimiser.found_inf


def check(streak: Streak, iterations: int, rate: float) -> None:
    """Stop a training that has made no step for too long; a collective call where it stops, and then on all ranks.

    Args:
        streak: the running one.
        iterations: T.
        rate: the learning rate.

    Raises:
        BenchError: with what was not finite, since when, and what to try.
    """
    if streak.length < MOST_IN_A_ROW:
        return
    raise diagnosis(streak, distributed.gather_objects(streak.terms), iterations, rate)


def diagnosis(streak: Streak, terms: Sequence[Mapping[str, int]], iterations: int, rate: float) -> BenchError:
    """Return the fault that ends a training.

    Args:
        streak: of any rank.
        terms: what was not finite, by rank, and in how many iterations.
        iterations: T.
        rate: the learning rate.
    """
    several, last = len(terms) > 1, streak.since + streak.length - 1
    found = [
        f"{name} ({number} times{f' on rank {rank}' if several else ''})"
        for rank, own in enumerate(terms)
        for name, number in sorted(own.items(), key=lambda item: -item[1])
    ]
    fault = BenchError(
        f"Training stopped after iteration {last} of {iterations}: {streak.length} iterations in a row, all since "
        f"iteration {streak.since}, had a loss or a gradient that is not finite, so no step was made. Not finite: "
        f"{', '.join(found) or 'unknown'}. The learning rate was {rate:g}. The checkpoint is from before.",
        remedy="train anew below another --work-dir with a lower --set lr=..., a longer --set warmup_iterations=... "
        "or --set clip_norm=10; the same command tries the same once more",
    )
    fault.on_all_ranks = True
    return fault


def check_state(detector: SemiSupervisedDetector, optimiser: torch.optim.Optimizer) -> None:
    """Refuse to save a state that no training could go on from, so that the last good checkpoint stays.

    Weights and the optimiser's averages must be finite. A method may keep an infinity in its state, but no NaN.

    Raises:
        BenchError: with the names of what is not finite.
    """
    looked_at = {
        name: torch.isnan(value).any() if name.startswith("parts.") else ~torch.isfinite(value).all()
        for name, value in detector.state_dict().items()
        if value.is_floating_point()
    }
    names: dict[Tensor, str] = {p: name for name, p in detector.named_parameters()}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                own = ~torch.isfinite(value).all()
                looked_at[f"optimiser.{key} of {names.get(parameter, '?')}"] = own.to(parameter.device)
    flags = torch.stack(list(looked_at.values())).tolist()  # one wait for a GPU
    broken = [name for name, flag in zip(looked_at, flags, strict=True) if flag]
    if not broken:
        return
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    fault = BenchError(
        f"Training stopped: its state is not finite ({', '.join(broken[:3])}{more}). It is not saved; the last "
        "checkpoint, if there is one, is from before.",
        remedy="train anew below another --work-dir with a lower --set lr=..., and check the weights it starts from",
    )
    fault.on_all_ranks = True
    raise fault
