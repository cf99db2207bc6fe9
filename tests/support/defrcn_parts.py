"""The parts of DeFRCN for the small detectors."""

from __future__ import annotations

from typing import Any

from detectors import CLASSES, GROUPS, TINY
from run_facts import facts

from baselines.defrcn import (
    DeFRCN,
)


def parts(stage: int = 0, **fields: Any) -> DeFRCN:
    """Parts of a run on the classes of the small detectors, three of which are base classes."""
    own: dict[str, Any] = {
        "classes": CLASSES, "groups": GROUPS, "settings": TINY, "labelled_boxes": (4, 5, 1, 2, 1),
        "labelled_classes": ((0, 1), (1, 2), (2, 3), (4,)),
    }  # fmt: skip
    made = DeFRCN(facts(**{**own, **fields}))
    made.stage = stage
    return made
