"""A run's detections beside the boxes that they were to find: read, matched, and put into words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cissod_bench.keeping.pack_format import PREDICTIONS
from cissod_bench.looking.at_hand import AtHand
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import scored_model
from cissod_bench.scoring.boxes import Detections, GroundTruth
from cissod_bench.scoring.by_size import by_size
from cissod_bench.scoring.confusions import Outcomes, confusion, outcomes
from cissod_bench.scoring.error_types import Errors, error_types
from cissod_bench.scoring.ground_truth import read_ground_truth
from cissod_bench.scoring.matching import Ints, Matching, match
from cissod_bench.scoring.points import AP
from cissod_bench.scoring.predictions import read_detections


@dataclass(frozen=True)
class Seen:
    """What the model of a run that is scored saw on the scored images; its teacher, where it has one.

    Attributes:
        run: the run.
        hand: its split.
        detections: all that are scored.
        matching: detections and boxes, compared at IoU 0.5.
    """

    run: Run
    hand: AtHand
    detections: Detections
    matching: Matching

    @property
    def truth(self) -> GroundTruth:
        """The boxes of the scored images."""
        return self.matching.truth

    @cached_property
    def errors(self) -> Errors:
        """Its errors by type."""
        return error_types(self.matching, self.run.record.groups)

    @cached_property
    def outcomes(self) -> Outcomes:
        """What became of every box and of the detections that are shown."""
        return outcomes(self.matching, list(self.errors.kinds))

    @cached_property
    def confusion(self) -> Ints:
        """How many boxes of each class were taken for which, (K + 1, K + 1)."""
        return confusion(self.matching, self.outcomes)

    @property
    def columns(self) -> dict[str, list[int]]:
        """Score column -> its channels."""
        place = {name: channel for channel, name in enumerate(self.truth.class_names)}
        groups = {group: [place[name] for name in names] for group, names in self.run.record.groups.items()}
        return {"all": sorted(channel for channels in groups.values() for channel in channels), **groups}

    def by_size(self) -> dict[str, dict[str, AP]]:
        """Return AP by size and AR: measure -> column -> points."""
        return by_size(self.truth, self.detections, self.columns)


class Truths:
    """Validation files that were read, each once."""

    def __init__(self) -> None:
        self._read: dict[Path, GroundTruth] = {}

    def of(self, path: Path) -> GroundTruth:
        """Return the boxes of a validation file."""
        if path not in self._read:
            self._read[path] = read_ground_truth(path)
        return self._read[path]


def predictions_of(run: Run) -> Path | None:
    """Return the detections of a run's scored model, None where the run has none at hand."""
    path = run.folder / PREDICTIONS[scored_model(run.record)]
    return path if path.is_file() else None


def look_at(run: Run, hands: Mapping[Run, AtHand | None], truths: Truths) -> Seen | str:
    """Return what a run saw, or in a few words why that cannot be told.

    Args:
        run: a scored run.
        hands: run -> what there is of its split.
        truths: what was read before.

    Raises:
        DataFault: a file breaks a rule.
    """
    path, hand = predictions_of(run), hands[run]
    if path is None:
        return "keep no predictions (predictions.json.gz), as kept records do"
    if hand is None:
        return "are of a split that is not at hand (cissod-bench make-splits draws it)"
    if hand.val is None:
        named = hand.manifest.val.path
        return f"are of a split whose validation file {named} is not at hand (--data-root names its folder)"
    if hand.manifest.metric != "coco":
        return "are scored by LVIS's federated rules, for which error types are not defined"
    truth = truths.of(hand.val)
    found = read_detections(path, truth)
    return Seen(run, hand, found, match(truth, found, hand.manifest.max_dets))
