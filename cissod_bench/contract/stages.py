"""Stages of a training: parts of T with a learning-rate schedule, an optimiser and images of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cissod_bench.errors import UsageFault


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training as a method declares it.

    Attributes:
        name: for the log.
        share: of T, in (0, 1]; the shares of a method's stages sum to 1.
        unlabelled: whether unlabelled images are drawn.
    """

    name: str
    share: float
    unlabelled: bool = True


ONE_STAGE = (Stage(name="training", share=1.0),)


@dataclass(frozen=True)
class Span:
    """A stage's iterations: begin, begin + 1, ..., end - 1."""

    stage: Stage
    number: int
    begin: int
    end: int


def spans(stages: Sequence[Stage], iterations: int) -> tuple[Span, ...]:
    """Return the iterations of each stage; the boundaries are the shares' sums times T, rounded.

    Args:
        stages: in their order; their shares sum to 1.
        iterations: T.

    Raises:
        UsageFault: T is so small that a stage would have no iteration.
    """
    total = sum(stage.share for stage in stages)
    assert math.isclose(total, 1.0), f"shares of stages must sum to 1, not {total}"
    sums = [sum(stage.share for stage in stages[: number + 1]) for number in range(len(stages))]
    ends = [round(iterations * share) for share in sums]
    found = tuple(
        Span(stage, number, begin, end)
        for number, (stage, begin, end) in enumerate(zip(stages, [0, *ends[:-1]], ends, strict=True))
    )
    for span in found:
        if span.begin >= span.end:
            raise UsageFault(
                f"Setting 'iterations' must leave every stage of the method an iteration; stage {span.stage.name!r} "
                f"({span.stage.share:.0%}) has none. Got {iterations} instead.",
                remedy=f"--set iterations={_least(stages)} or more",
            )
    return found


def _least(stages: Sequence[Stage]) -> int:
    """Return a number of iterations of which every stage has one; a share of two is left with one by any rounding."""
    return math.ceil(2 / min(stage.share for stage in stages))


def unlabelled_from(found: Sequence[Span], unsup_start: float, iterations: int) -> int:
    """Return the first iteration that draws unlabelled images: not before ``unsup_start`` T nor the first such stage.

    Args:
        found: the stages' spans.
        unsup_start: share of T.
        iterations: T.
    """
    begins = [span.begin for span in found if span.stage.unlabelled]
    return max(math.ceil(unsup_start * iterations), min(begins, default=iterations))
