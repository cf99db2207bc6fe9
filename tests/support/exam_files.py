"""Methods written as files, for tests of the exam: a sound one, and one for every rule that breaks just that rule."""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = """
import random
from pathlib import Path

import torch

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import Parts

SEEN = []


class Own(Parts):
    def __init__(self, facts):
        super().__init__(len(facts.classes), facts.settings.theta)
        self.register_buffer("count", torch.zeros(self.num_classes + 1))
        self.scale = 1.0

    def sound(self, logits, labels, label_weights, normaliser, context):
        loss = self.scale * super().classification_loss(logits, labels, label_weights, normaliser, context)
        if context.collect:
            self.mine = torch.bincount(labels, minlength=len(self.count)).float()
        return loss

    classification_loss = sound

    def after_iteration(self, context):
        self.count += context.sum_over_ranks(self.mine)
"""
_TAIL = """

METHOD = Method(title="Own", source="a test", citation="nobody", parts=Own{more})
"""

NOT_FINITE = """
    def classification_loss(self, logits, labels, label_weights, normaliser, context):
        loss = Own.sound(self, logits, labels, label_weights, normaliser, context)
        return loss * float("nan") if context.iteration == 2 and context.branch == "sup" else loss
"""
OUTSIDE_BUFFERS = """
    def observe_detections(self, detections, context):
        self.scale += 0.01
"""
BY_CHANCE = """
    def observe_detections(self, detections, context):
        SEEN.append(context.iteration)
        self.scale = 1 + 0.01 * len(SEEN)
"""
OF_ONE_RANK = """
    def after_iteration(self, context):
        self.count += self.mine
"""
IN_THE_BOX_BRANCH = """
    def change_model(self, model):
        def look(*seen):
            self.count += 1

        model.roi_head.bbox_head.fc_reg.register_forward_hook(look)
"""
IN_DRY_PASSES = """
    def classification_loss(self, logits, labels, label_weights, normaliser, context):
        self.mine = torch.bincount(labels, minlength=len(self.count)).float()
        self.count += 0.0 if context.collect else 1.0
        return Parts.classification_loss(self, logits, labels, label_weights, normaliser, context)
"""
READS_HIDDEN = """
    def classification_loss(self, logits, labels, label_weights, normaliser, context):
        factor = 1 + 1e-3 * (len(Path({hidden!r}).read_bytes()) % 97)
        return factor * Own.sound(self, logits, labels, label_weights, normaliser, context)
"""
ONE_RANK_FAILS = """
    def after_iteration(self, context):
        from cissod_bench import distributed

        super().after_iteration(context)
        if distributed.rank() == 1:
            raise ValueError("rank 1 has had enough")
"""


def written(folder: Path, name: str, body: str = "", more: str = "") -> Path:
    """Write a method whose class has ``body`` behind its sound parts."""
    path = folder / f"{name}.py"
    path.write_text(_HEAD + body + _TAIL.format(more=more), encoding="utf-8")
    return path


def example() -> str:
    """Return the method of CONTRIBUTING.md, section "A method in 40 lines"."""
    text = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## A method in 40 lines")[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)
