"""A method that uses the extension points of one iteration and of a generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cissod_bench.contract.method import Method
from cissod_bench.contract.parts import Context, Copies, Detections, Parts


class Everything(Parts):
    """Uses extension points, counts what it sees and resamples D_u every generation."""

    total: torch.Tensor

    def __init__(self, num_classes: int, num_unlabelled: int) -> None:
        super().__init__(num_classes, 0.15)
        self.num_unlabelled = num_unlabelled
        self.register_buffer("total", torch.zeros(num_classes + 1))
        self.pool: dict[int, float] = {}
        self.calls: list[str] = []
        self.batch_total: torch.Tensor | None = None

    def score_transform(self, scores: torch.Tensor, features: torch.Tensor, context: Context) -> torch.Tensor:
        assert context.branch == "teacher"
        assert scores.shape == (features.shape[0], self.num_classes + 1)
        assert features.shape[1] == 32
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(len(scores)))
        self.calls.append("score_transform")
        return scores.roll(1, dims=1)

    def observe_detections(self, detections: Sequence[Detections], context: Context) -> None:
        assert len(detections) == 2
        for one in detections:
            assert one.boxes.shape == (len(one.labels), 4)
            assert len(one.labels) == len(one.scores)
            assert 0 <= one.image_index < self.num_unlabelled
            self.pool[one.image_index] = float(one.scores.sum())
        self.calls.append("observe_detections")

    def thresholds(self, context: Context) -> torch.Tensor:
        self.calls.append("thresholds")
        return super().thresholds(context)

    def classification_loss(self, logits, labels, label_weights, normaliser, context):  # type: ignore[no-untyped-def]
        assert logits.shape == (len(labels), self.num_classes + 1)
        assert label_weights.shape == labels.shape
        assert normaliser.shape == ()
        assert context.collect
        self.calls.append(f"loss {context.branch}")
        counts = torch.bincount(labels, label_weights, minlength=self.num_classes + 1).detach()
        self.batch_total = counts if self.batch_total is None else self.batch_total + counts
        return super().classification_loss(logits, labels, label_weights, normaliser, context)

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        self.calls.append("activation")
        return super().activation(logits)

    def copies(self, context: Context) -> Copies:
        self.calls.append(f"copies {context.generation}")
        times = np.ones(self.num_unlabelled, np.int32)
        for index, score in self.pool.items():
            times[index] += int(score * 3) % 3
        return {1: times}

    def after_iteration(self, context: Context) -> None:
        assert self.batch_total is not None
        self.total += Context.sum_over_ranks(self.batch_total.float())
        self.batch_total = None
        self.calls.append("after_iteration")

    def before_save_checkpoint(self, state: dict[str, Any]) -> None:
        state["pool"] = torch.tensor(sorted(self.pool.items()), dtype=torch.float64).reshape(-1, 2)
        self.calls.append("before_save")

    def after_load_checkpoint(self, state: Mapping[str, Any]) -> None:
        self.pool = {int(index): score for index, score in state["pool"].tolist()}
        self.calls.append("after_load")


EVERYTHING = Method(
    title="Everything",
    source="tests",
    citation="-",
    parts=lambda facts: Everything(len(facts.classes), facts.num_unlabelled),
    name="everything",
)
