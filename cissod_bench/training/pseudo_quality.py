"""How good the pseudo labels of training were: their precision and recall against the hidden boxes of D_u (Fig. 3).

What is judged is what training used: the teacher's detections above the threshold of their class, in the iteration in
which they were used. Training hands them over and gets nothing back, so hidden boxes cannot reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cissod_bench import distributed
from cissod_bench.contract.parts import Detections
from cissod_bench.records.pseudo_box_lines import PseudoBoxLine
from cissod_bench.records.pseudo_label_lines import PseudoLabelLine
from cissod_bench.training.judging import HiddenBoxes, Looks, judge
from cissod_bench.training.kept_looks import KeptLooks

_BLOCK = 256  # iterations whose detections stay where they are, on a GPU without being waited for


class PseudoLabelStatistics:
    """Counts pseudo labels of a generation against the hidden boxes; the same on any number of ranks.

    Args:
        groups: group -> names of its classes.
        classes: names of the n foreground classes in channel order.
        hidden: returns the hidden boxes; called once, on rank 0, when they are first needed.

    Attributes:
        ended: the pseudo labels of a few images in the generation that ended last, on rank 0.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        classes: Sequence[str],
        hidden: Callable[[], HiddenBoxes | None],
    ) -> None:
        place = {name: channel for channel, name in enumerate(classes)}
        self.groups = {"all": list(range(len(classes)))}
        self.groups |= {group: [place[name] for name in names] for group, names in groups.items()}
        self._read = hidden
        self._hidden: tuple[HiddenBoxes | None] | None = None  # empty before the first reading
        self._fresh: list[tuple[list[Detections], Tensor]] = []
        self._looks: list[Looks] = []
        self.theta: Tensor | None = None
        self.classes, self._kept = tuple(classes), KeptLooks()
        self.ended: list[PseudoBoxLine] = []
        self._reset()

    def _reset(self) -> None:
        self.images = 0
        self.counts = np.zeros((3, len(self.groups["all"])), np.int64)

    def observe(self, detections: Sequence[Detections], theta: Tensor) -> None:
        """Note the teacher's detections of an iteration, of which those with score > theta[label] are used.

        Nothing is computed yet but the comparison, and nothing is copied from a GPU.

        Args:
            detections: of this rank's unlabelled images.
            theta: shape (n,).
        """
        scores, labels = (torch.cat([getattr(image, name) for image in detections]) for name in ("scores", "labels"))
        self._fresh.append((list(detections), scores > theta[labels]))
        self.theta = theta
        if len(self._fresh) == _BLOCK:
            self._columns()

    def _columns(self) -> None:
        """Turn what was noted into columns."""
        noted = [image for detections, _ in self._fresh for image in detections]
        if not noted:
            return
        used = torch.cat([mask for _, mask in self._fresh]).cpu().numpy()
        boxes, labels, scores = (
            torch.cat([getattr(image, name) for image in noted]).cpu().numpy()[used]
            for name in ("boxes", "labels", "scores")
        )
        owners = np.repeat(np.arange(len(noted)), [len(image.scores) for image in noted])[used]
        ends = np.cumsum(np.bincount(owners, minlength=len(noted)), dtype=np.int64)
        images = np.array([image.image_id for image in noted], np.int64)
        self._looks.append(Looks(images, ends, boxes.astype(np.float32), labels, scores.astype(np.float32)))
        self._fresh = []

    def _count(self) -> None:
        """Judge on rank 0 what all ranks have seen since the last call; a collective call."""
        self._columns()
        for looks in (looks for of_rank in distributed.gather_objects(self._looks) for looks in of_rank):
            if distributed.rank() > 0:
                break
            self.images += len(looks.images)
            self._kept.take(looks)
            hidden = self.hidden
            if hidden is not None:
                self.counts += judge(looks, hidden, self.counts.shape[1])
            else:
                self.counts[1] += np.bincount(looks.labels, minlength=self.counts.shape[1])
        self._looks = []

    @property
    def hidden(self) -> HiddenBoxes | None:
        """The hidden boxes, read when they are first asked for; None where there are none."""
        if self._hidden is None:
            self._hidden = (self._read(),)
        return self._hidden[0]

    def state(self) -> dict[str, Any]:
        """Return the running generation's counters, for a checkpoint; a collective call, rank 0's counts."""
        self._count()
        return {"images": self.images, "counts": torch.from_numpy(self.counts.copy()), "kept": self._kept.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; an older checkpoint's is empty."""
        self._fresh, self._looks, self._kept = [], [], KeptLooks()
        self._reset()
        if state and distributed.rank() == 0:
            self.images, self.counts = state["images"], state["counts"].numpy().copy()
            self._kept.load(state.get("kept", []))  # checkpoints of earlier versions have none

    def end_generation(self, generation: int, iteration: int, numbers: Mapping[str, Any]) -> list[PseudoLabelLine]:
        """Return a line for "all" and for every group, and begin anew; a collective call, rank 0's lines count.

        A generation without an unlabelled image has none.

        Args:
            generation: from 1.
            iteration: the last one in it.
            numbers: what else the lines say, beside the thresholds that were used last: tensors of shape (n,) as their
                mean, least and greatest per group, the rest as it is.
        """
        self._count()
        numbers = {"generation": generation, "iteration": iteration, "theta": self.theta, **numbers}
        groups = self.groups.items() if self.images else ()
        lines = [
            PseudoLabelLine.of({"group": group, **self._judged(channels), **_of_channels(numbers, channels)})
            for group, channels in groups
        ]
        self.ended = self._kept.lines(generation, iteration, self.classes)
        self._reset()
        return lines

    def _judged(self, channels: list[int]) -> dict[str, int | float | None]:
        """Return what a line says of a group's pseudo labels in the running generation."""
        boxes, detected, correct = self.counts[:, channels].sum(axis=1).tolist()
        judged = self.hidden is not None
        return {
            "images": self.images,
            "boxes": boxes if judged else None,
            "detected": detected,
            "correct": correct if judged else None,
            "precision": correct / detected if judged and detected else None,
            "recall": correct / boxes if judged and boxes else None,
        }


def _of_channels(numbers: Mapping[str, Any], channels: list[int]) -> dict[str, Any]:
    """Return numbers with three in the place of every tensor: its mean, least and greatest over some channels."""
    values: dict[str, Any] = {}
    for name, value in numbers.items():
        if isinstance(value, Tensor):
            of_group = value.detach().cpu().double()[channels]
            values |= {name: float(of_group.mean())}
            values |= {f"{name}_min": float(of_group.min()), f"{name}_max": float(of_group.max())}
        else:
            values[name] = value
    return values
