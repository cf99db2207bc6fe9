"""The exam: every check over some methods, in the order of `CHECKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

from cissod_bench.catalogue import load_method
from cissod_bench.contract.method import Method
from cissod_bench.exam import cost
from cissod_bench.exam.declaration import check_declaration
from cissod_bench.exam.desk import Desk, trained
from cissod_bench.exam.fingerprint import Watched
from cissod_bench.exam.outcome import CHECKS, Outcome, judged, left_out, told
from cissod_bench.exam.ranks import check_processes
from cissod_bench.exam.trained import Runs, check_training
from cissod_bench.training.loop import Training

REFERENCE = "soft-teacher"


def examine(
    named: Mapping[str, Method], desk: Desk, words: Sequence[str], say: Callable[[str], None] = lambda text: None
) -> list[list[Outcome]]:
    """Return the outcomes of every check for each method.

    Args:
        named: name or file -> the method.
        desk: where the exam is sat.
        words: see `check_processes`.
        say: takes a line before each part.
    """
    beside = cache(partial(_reference, desk))  # trained once, where a method has come that far
    of_methods = [_alone(method, desk, beside, say) for method in named.values()]
    say("Two processes, one start for all methods")
    for outcomes, processes in zip(of_methods, check_processes(list(named), desk, words), strict=True):
        outcomes.append(processes)
    order = list(CHECKS)
    return [sorted(outcomes, key=lambda outcome: order.index(outcome.check)) for outcomes in of_methods]


def _alone(method: Method, desk: Desk, beside: Callable[[], Training], say: Callable[[str], None]) -> list[Outcome]:
    """Return what one process can tell of a method."""
    say(f"{method.title}: declaration, {2 * desk.half} iterations, the same with a stop")
    outcomes, whole = sit(method, desk)
    say(f"{method.title}: cost of a step")
    return [*outcomes, _cost(whole, beside, desk.pairs)]


def sit(method: Method, desk: Desk) -> tuple[list[Outcome], Watched | None]:
    """Return the outcomes of all checks but "processes" and "cost", and the trained run if there is one."""
    declared = judged("declaration", partial(_declared, method, desk))
    try:
        runs = Runs.of(method, desk)
    except Exception as error:
        reason = "not made: the method cannot be started"
        failed = Outcome("training", "FAIL", told(error))
        return [declared, failed, *(left_out(name, reason) for name in ("resume", "regression", "hidden"))], None
    outcomes, whole = check_training(runs)
    return [declared, *outcomes], whole


def _declared(method: Method, desk: Desk) -> str:
    def build(variant: str) -> object:
        plan = desk.plan(method, variant)
        return trained(plan, plan.settings)

    return check_declaration(method, build)


def _reference(desk: Desk) -> Training:
    """Return Soft Teacher's training at its end."""
    reference = replace(load_method(REFERENCE), name=f"{REFERENCE}-reference")  # a folder of its own
    return Runs.of(reference, desk).whole("cost").training


def _cost(whole: Watched | None, beside: Callable[[], Training], pairs: int) -> Outcome:
    """Return time and memory against Soft Teacher, measured beside it."""
    if whole is None:
        return left_out("cost", "not measured: the training failed")
    try:
        return cost.measured(whole.training, beside(), pairs)
    except Exception as error:
        return left_out("cost", f"not measured: {told(error)}")
