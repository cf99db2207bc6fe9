"""A detector in the words of stock mmdet: what a trained one is exported as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Stock:
    """A detector that mmdet builds by itself.

    Attributes:
        config: mmdet settings of the detector; what stands in them is mmdet's or a plugin's.
        state: key of the detector -> weights on the CPU.
        plugins: modules of ``cissod_bench/using/plugins/`` that are written beside the settings, without ".py".
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    plugins: list[str] = field(default_factory=list)

    @property
    def box_head(self) -> dict[str, Any]:
        """Settings of the head that classifies and refines RoIs."""
        head: dict[str, Any] = self.config["roi_head"]["bbox_head"]
        return head
