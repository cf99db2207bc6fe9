"""The checks that train: one whole run, and one that is stopped, continued and blind, answer four of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch

from cissod_bench.spec import USES_UNLABELLED, Method
from cissod_bench.training.exam.desk import Desk, garbage, opened, trained
from cissod_bench.training.exam.fingerprint import buffers_of, different, some
from cissod_bench.training.exam.outcome import Broken, Outcome, judged, left_out, told
from cissod_bench.training.exam.watching import Watched, run, watch
from cissod_bench.training.loop import Training
from cissod_bench.training.parts import Branch, Context
from cissod_bench.training.plan import Plan
from cissod_bench.training.settings import Settings

_NOT_TRAINED = "not made: the training failed"


@dataclass(frozen=True)
class Runs:
    """Makes the runs of one method at one desk.

    Attributes:
        desk: with the split.
        method: that is examined.
        settings: from `opened`.
    """

    desk: Desk
    method: Method
    settings: Settings

    def start(self, place: str) -> Training:
        """Return a training at its first iteration in a folder of its own."""
        return trained(self.desk.plan(self.method, place), self.settings)

    def whole(self, place: str) -> Watched:
        """Train 2 N iterations in one go."""
        return run(watch(self.start(place)))

    def halves(self, place: str) -> tuple[Watched, Watched]:
        """Train N iterations, write the checkpoint, and let a training that is made anew do the other N."""
        first = run(watch(self.start(place)), until=self.desk.half)
        first.training.save()
        second = watch(self.start(place))
        assert second.training.resume()
        return first, run(second)


def settings_of(desk: Desk, method: Method) -> tuple[Plan, Settings]:
    """Return the plan of the exam's runs and their settings."""
    plan = desk.plan(method, "probe")
    return plan, opened(plan)


def check_training(runs: Runs) -> tuple[list[Outcome], Watched | None]:
    """Return the outcomes of "training", "resume", "regression" and "hidden", and the whole run if there is one.

    The stopped run is made with unreadable hidden boxes: if it equals the whole one, neither the stop nor the boxes
    make a difference. If it does not, further runs find out which of the two it was.
    """
    try:
        whole = runs.whole("whole")
    except Exception as error:
        failed = Outcome("training", "FAIL", told(error))
        return [failed, *(left_out(name, _NOT_TRAINED) for name in ("resume", "regression", "hidden"))], None
    blind = runs.method.images != "oracle"
    outcomes = [
        judged("training", partial(_finite_and_used, whole, runs.method)),
        *_resumed_and_blind(runs, whole, blind),
        _regression(whole, runs.method),
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


def _equal(whole: Watched, other: Watched, what: str) -> None:
    """Refuse two whole runs that are not the same bit by bit."""
    _compare(whole.lines, other.lines, 0, what)
    names = different(whole.state(), other.state())
    if names:
        raise Broken(f"{what}: {some(names)} of the state differs at the end")


def _same_halves(whole: Watched, halves: tuple[Watched, Watched], half: int) -> str:
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
    unseen = left_out("hidden", "the oracle trains on them")
    if not blind:
        return [judged("resume", lambda: _same_halves(whole, runs.halves("halves"), half)), unseen]
    with garbage(runs.desk.hidden):
        both = judged("resume", lambda: _same_halves(whole, runs.halves("halves"), half))
    if both.status == "PASS":
        return [both, Outcome("hidden", "PASS", "the same run with another file in their place")]
    again = judged("resume", lambda: _repeated(runs, whole))
    if again.status == "FAIL":  # nothing can be told by comparing runs that differ by themselves
        return [again, left_out("hidden", "not made: two equal runs differ")]
    with garbage(runs.desk.hidden):
        hidden = judged("hidden", lambda: _unread(runs, whole))
    return [judged("resume", lambda: _same_halves(whole, runs.halves("honest"), half)), hidden]


def _repeated(runs: Runs, whole: Watched) -> str:
    _equal(whole, runs.whole("again"), "two runs with one seed differ")
    return "repeated"


def _unread(runs: Runs, whole: Watched) -> str:
    _equal(whole, runs.whole("unread"), "with other hidden boxes")
    return "the same run with another file in their place"


def _regression(whole: Watched, method: Method) -> Outcome:
    if method.images not in USES_UNLABELLED:
        return left_out("regression", "no unlabelled images")
    return judged("regression", partial(_untouched, whole))


def _untouched(whole: Watched) -> str:
    """Return that neither the box branch nor a dry pass moved the parts' state."""
    if whole.touched:
        raise Broken(f"the box branch changes {some(sorted(set(whole.touched)))}")
    detector = whole.training.detector
    parts = detector.parts
    before = buffers_of(parts)
    for branch in ("sup", "unsup_cls"):
        _dry_loss(whole.training, branch)
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
    return "no change in the box branch, in a dry loss, in scoring"


@torch.no_grad()
def _dry_loss(training: Training, branch: Branch) -> None:
    """Call the classification loss where nothing may be collected."""
    parts, place = training.detector.parts, training.position
    labels = torch.arange(2 * (parts.num_classes + 1)) % (parts.num_classes + 1)
    head = training.detector.student.roi_head.bbox_head
    features = torch.linspace(-1, 1, len(labels) * head.fc_cls.in_features).reshape(len(labels), -1)
    total = training.settings.iterations
    context = Context(total - 1, total, place.generation, training.settings.generations, place.stage, branch)
    context.student = training.detector.student
    weights = torch.ones(len(labels))
    parts.classification_loss(head.fc_cls(features).float(), labels, weights, weights.sum(), context)
