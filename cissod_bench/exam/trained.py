"""The checks that train: one whole run, and one that is stopped, continued and blind, answer four of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch

from cissod_bench.contract.method import USES_UNLABELLED, Method
from cissod_bench.contract.parts import Branch, Context
from cissod_bench.contract.settings import Settings
from cissod_bench.exam.desk import Desk, garbage, opened, trained
from cissod_bench.exam.fingerprint import Watched, buffers_of, different, run, some, watch
from cissod_bench.exam.outcome import Broken, Outcome, judged, left_out, told
from cissod_bench.running.plan import Plan
from cissod_bench.training.loop import Training

Halves: TypeAlias = tuple[Watched, Watched]
"""A run to iteration N, and the one that continued it."""

_NOT_TRAINED = "not made: the training failed"


@dataclass(frozen=True)
class Runs:
    """Makes the runs of one method at one desk.

    Attributes:
        desk: with the split.
        plan: of the method that is examined, made while the split was sound.
        settings: from `opened`.
    """

    desk: Desk
    plan: Plan
    settings: Settings

    @classmethod
    def of(cls, method: Method, desk: Desk) -> Runs:
        """Return the runs of a method; its thresholds are measured."""
        plan = desk.plan(method)
        return cls(desk, plan, opened(plan))

    def start(self, place: str) -> Training:
        """Return a training at its first iteration in a folder of its own."""
        return trained(self.plan, self.settings, place)

    def whole(self, place: str) -> Watched:
        """Train 2 N iterations in one go."""
        return run(watch(self.start(place)))

    def halves(self, place: str) -> Halves:
        """Train N iterations, write the checkpoint, and let a training that is made anew do the other N."""
        first = run(watch(self.start(place)), until=self.desk.half)
        first.training.save()
        second = watch(self.start(place))
        assert second.training.resume()
        return first, run(second)


def check_training(runs: Runs) -> tuple[list[Outcome], Watched | None]:
    """Return the outcomes of "training", "resume", "regression" and "hidden", and the whole run if there is one.

    The stopped run is made with unreadable hidden boxes: if it equals the whole one, neither the stop nor the boxes
    make a difference. If it does not, a stopped run with the boxes tells which of the two it was.
    """
    try:
        whole = runs.whole("whole")
    except Exception as error:
        failed = Outcome("training", "FAIL", told(error))
        return [failed, *(left_out(name, _NOT_TRAINED) for name in ("resume", "regression", "hidden"))], None
    blind = runs.plan.method.images != "oracle"
    outcomes = [
        judged("training", partial(_finite_and_used, whole, runs.plan.method)),
        *_resumed_and_blind(runs, whole, blind),
        _regression(whole, runs.plan.method),
    ]
    return outcomes, whole


def _finite_and_used(whole: Watched, method: Method) -> str:
    """Return what a sound run's numbers are."""
    lines = whole.lines
    for number, line in enumerate(lines):
        broken = [name for name, value in line.items() if not math.isfinite(value)]
        if broken:
            raise Broken(f"iteration {number}: {some(broken)} is {line[broken[0]]}")
    change = f"{len(lines)} iterations, loss {lines[0]['loss']:.2f} -> {lines[-1]['loss']:.2f}"
    if method.images not in USES_UNLABELLED:
        return change
    used = [line for line in lines if "unsup_loss_cls" in line]
    if not used:
        raise Broken("no iteration had a loss on unlabelled images")
    labels = sum(value for line in used for name, value in line.items() if name.startswith("pseudo_cls_")) / len(used)
    boxes = sum(line["pseudo_reg"] for line in used) / len(used)
    if not labels or not boxes:
        kind = "thresholds() let no pseudo label" if not labels else "no box"
        raise Broken(f"{kind} through, although theta (facts.settings.theta) was lowered")
    if not any(line["unsup_loss_cls"] for line in used):
        raise Broken("the classification loss on unlabelled images was 0 in every iteration")
    return f"{change}; {labels:.1f} pseudo labels and {boxes:.1f} boxes an unlabelled image"


def _compare(lines: list[dict[str, float]], other: list[dict[str, float]], first: int, what: str) -> None:
    """Refuse numbers of steps that are not the same; written out they are the same where both are NaN, too."""
    for number, (one, two) in enumerate(zip(lines, other, strict=True), first):
        names = [name for name in one.keys() | two.keys() if repr(one.get(name)) != repr(two.get(name))]
        if names:
            name = min(names)
            raise Broken(f"{what}: {name} of iteration {number} is {two.get(name)}, not {one.get(name)}")


def _equal(whole: Watched, other: Watched, what: str) -> str:
    """Return that two whole runs are the same bit by bit."""
    _compare(whole.lines, other.lines, 0, what)
    names = different(whole.state(), other.state())
    if names:
        raise Broken(f"{what}: {some(names)} of the state differs at the end")
    return "equal"


def _same_halves(whole: Watched, halves: Halves, half: int) -> str:
    """Return how much of a stopped run equals a whole one."""
    first, second = halves
    _compare(whole.lines[:half], first.lines, 0, "before the stop")
    _compare(whole.lines[half:], second.lines, half, f"continued after {half} iterations")
    names = different(whole.state(), second.state())
    if names:
        raise Broken(f"continued after {half} iterations: {some(names)} of the state differs at the end")
    return f"{half} + {half} iterations: losses, {len(whole.state())} tensors and numbers are equal"


def _resumed_and_blind(runs: Runs, whole: Watched, blind: bool) -> list[Outcome]:
    """Return the outcomes of "resume" and "hidden"."""
    half = runs.desk.half
    if not blind:
        unseen = left_out("hidden", "the oracle trains on them")
        return [judged("resume", lambda: _same_halves(whole, runs.halves("halves"), half)), unseen]
    with garbage(runs.desk.hidden):
        unread = _attempt(runs, "blind")
    resume = judged("resume", lambda: _same_halves(whole, _made(unread), half))
    if resume.status == "PASS":
        return [resume, _UNREAD]
    first = resume.detail
    stopped = _attempt(runs, "halves")
    resume = judged("resume", lambda: _same_halves(whole, _made(stopped), half))
    if resume.status == "PASS":
        return [resume, Outcome("hidden", "FAIL", f"with another file in their place: {first}")]
    if _alike(unread, stopped):
        return [resume, _UNREAD]
    again = judged("resume", lambda: _equal(whole, runs.whole("again"), "two runs with one seed differ"))
    if again.status == "FAIL":  # nothing can be told by comparing runs that differ by themselves
        return [again, left_out("hidden", "not made: two equal runs differ")]
    return [resume, Outcome("hidden", "FAIL", "stopped runs with and without the file differ")]


_UNREAD = Outcome("hidden", "PASS", "the same run with another file in their place")


def _attempt(runs: Runs, place: str) -> Halves | Exception:
    """Return a stopped run, or the error that ended it."""
    try:
        return runs.halves(place)
    except Exception as error:
        return error


def _made(halves: Halves | Exception) -> Halves:
    if isinstance(halves, Exception):
        raise halves
    return halves


def _alike(one: Halves | Exception, other: Halves | Exception) -> bool:
    """Tell whether two stopped runs are the same, bit by bit or in their error."""
    if isinstance(one, Exception) or isinstance(other, Exception):
        return repr(one) == repr(other)
    lines = [[repr(half.lines) for half in halves] for halves in (one, other)]
    return lines[0] == lines[1] and one[1].state() == other[1].state()


def _regression(whole: Watched, method: Method) -> Outcome:
    if method.images not in USES_UNLABELLED:
        return left_out("regression", "no unlabelled images")
    return judged("regression", partial(_untouched, whole))


def _untouched(whole: Watched) -> str:
    """Return that neither the box branch, a loss with ``collect=False`` nor scoring moved the parts' state."""
    if whole.touched:
        raise Broken(f"the box branch changes {some(sorted(set(whole.touched)))}")
    detector = whole.training.detector
    parts = detector.parts
    before = buffers_of(parts)
    for branch in ("sup", "unsup_cls"):
        _loss_without_collecting(whole.training, branch)
    names = different(before, buffers_of(parts))
    if names:
        raise Broken(f"classification_loss changes {some(names)} although context.collect is False")
    settings = whole.training.settings
    for teacher in (True, False):
        views = whole.batch.get("weak") or whole.batch["sup"]
        detector.predict(views, Context(settings.iterations, settings.iterations), teacher=teacher)
    names = different(before, buffers_of(parts))
    if names:
        raise Broken(f"scoring images changes {some(names)}")
    return "no change in the box branch, in a loss with collect=False, in scoring"


@torch.no_grad()
def _loss_without_collecting(training: Training, branch: Branch) -> None:
    """Call the classification loss where nothing may be collected."""
    parts, place = training.detector.parts, training.position
    labels = torch.arange(2 * (parts.num_classes + 1)) % (parts.num_classes + 1)
    head = training.detector.student.roi_head.bbox_head
    features = torch.linspace(-1, 1, len(labels) * head.shared_fcs[-1].out_features).reshape(len(labels), -1)
    total = training.settings.iterations
    generations, student = training.settings.generations, training.detector.student
    context = Context(total - 1, total, place.generation, generations, place.stage, branch, student=student)
    weights = torch.ones(len(labels))
    parts.classification_loss(head.fc_cls(features).float(), labels, weights, weights.sum(), context)
