"""The parts of EQL v2 and what an iteration does with them."""

from __future__ import annotations

from typing import Any

from run_facts import facts, rows

from baselines.eqlv2 import EqualisationLoss
from cissod_bench.contract.parts import Context


def eql(**fields: Any) -> EqualisationLoss:
    """The parts with four foreground classes."""
    return EqualisationLoss(facts(**fields))


def iterate(parts: EqualisationLoss, iteration: int, place: slice) -> Context:
    """Both branches of an iteration, on some of its rows."""
    context = Context(iteration, 40, collect=True)
    for seed, branch in enumerate(("sup", "unsup_cls")):
        context = context.at(branch, collect=True)  # type: ignore[arg-type]
        logits, labels, v = (part[place] for part in rows(2 * iteration + seed, 40))
        parts.classification_loss(logits, labels, v, v.sum(), context)
    return context
