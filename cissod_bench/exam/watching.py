"""A training that is watched: every number of every step, and whether the box branch touches the method's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cissod_bench.contract.parts import Context
from cissod_bench.exam.fingerprint import Fingerprint, different, fingerprint
from cissod_bench.training.loop import Training


@dataclass
class Watched:
    """What was seen of a training.

    Attributes:
        training: where it stands.
        lines: losses and the method's numbers of every step.
        touched: what of the parts changed in a regression branch, by name.
        batch: of the last step.
    """

    training: Training
    lines: list[dict[str, float]] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    batch: dict[str, Any] = field(default_factory=dict)

    def state(self) -> Fingerprint:
        """Return the hashes of student, teacher, parts, what the parts add to a checkpoint, copies and promoted."""
        detector, place, extra = self.training.detector, self.training.position, dict[str, Any]()
        detector.parts.before_save_checkpoint(extra)
        kept = {name: getattr(detector, name).state_dict() for name in ("student", "teacher", "parts")}
        named = {f"{kind}.{name}": value for kind, own in kept.items() for name, value in own.items()}
        found = {name: text for key, value in named.items() for name, text in fingerprint(value, key).items()}
        others = {"checkpoint extra": extra, "copies": place.copies, "promoted": place.promoted}
        return found | {name: text for key, value in others.items() for name, text in fingerprint(value, key).items()}


class _Told(Context):
    """A context that tells when the regression branch begins."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "branch" and value == "unsup_reg":
            look: Callable[[], None] = vars(self)["look"]
            look()


def watch(training: Training) -> Watched:
    """Watch a training from now on; the numbers it computes stay the same."""
    seen = Watched(training)
    step, forward = training.step, training.detector.forward

    def watched_step(batch: dict[str, Any], iteration: int) -> dict[str, Any]:
        line = step(batch, iteration)
        seen.lines.append({name: float(value) for name, value in line.items()})
        seen.batch = batch
        return line

    def watched_forward(batch: dict[str, Any], context: Context) -> Any:
        before: list[Fingerprint] = []
        parts = training.detector.parts
        vars(context)["look"] = lambda: before.append(fingerprint(parts))
        context.__class__ = _Told
        losses = forward(batch, context)
        context.__class__ = Context
        seen.touched += [name for one in before for name in different(one, fingerprint(parts))]
        return losses

    training.step = watched_step  # type: ignore[method-assign]
    training.detector.forward = watched_forward  # type: ignore[method-assign]
    return seen


def run(seen: Watched, until: int | None = None) -> Watched:
    """Train on, to the end or until an iteration, and return what was watched."""
    seen.training.run(until)
    return seen
