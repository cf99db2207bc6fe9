"""What became of every box: found, missed, or taken for something else, by the detections that would be shown.

A picture and a confusion matrix need a score from which a detection counts, which AP does not have, and methods differ
in how high they score. So each model shows its best detections, as many as there are boxes to find in all images: the
same number for all models, whatever their scores. Those on a crowd region do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cissod_bench.scoring.error_types import CORRECT, IGNORED
from cissod_bench.scoring.matching import FITS, Ints, Matching

FOUND, WRONG_CLASS, POOR, BACKGROUND, MISSED = "found", "wrong class", "poor or double", "background", "missed"
_KIND_OF = {CORRECT: FOUND, "class": WRONG_CLASS, "background": BACKGROUND}


@dataclass(frozen=True)
class Outcomes:
    """S shown detections and N boxes.

    Attributes:
        shown: the first rows of ``Matching.found``; S of them.
        least: the lowest score among them, NaN where none is shown.
        detections: of each shown detection "found", "wrong class", "poor or double" (it overlaps a box by less than
            half, or one that is found already), "background", or "ignored" (on a crowd region); S of text.
        boxes: of each box "found", "wrong class", "missed", or "ignored" (a crowd region); N of text.
        taken_for: of each box its own channel where it was found, else that of the best-scored shown detection that
            found none and overlaps it more than any other box of another class; -1 where there is none, (N,). One that
            found its own box, as a rider on a missed horse, takes no other box for it.
    """

    shown: int
    least: float
    detections: tuple[str, ...]
    boxes: tuple[str, ...]
    taken_for: Ints


def outcomes(matching: Matching, kinds: list[str], *, everything: bool = False) -> Outcomes:
    """Return what became of every box and shown detection.

    Args:
        matching: of all detections, best score first: the first ones find what they would find alone.
        kinds: of the detections (``error_types.Errors.kinds``).
        everything: show all detections, as of pseudo labels, which training used whatever their number.
    """
    truth, found = matching.truth, matching.found
    counting = np.cumsum(~matching.ignored)  # a detection on a crowd region takes no place
    shown = int(np.searchsorted(counting, int((~truth.crowd).sum()), side="right"))
    shown = len(found.scores) if everything else shown
    taken_for = np.full(len(truth.image), -1, np.int64)
    mistaken = np.flatnonzero((matching.wrong & (matching.other.iou >= FITS))[:shown])
    for row in reversed(mistaken):  # the best-scored is written last
        taken_for[matching.other.row[row]] = found.channel[row]
    hit = matching.taken[:shown]
    hit = hit[hit >= 0]
    taken_for[hit] = truth.channel[hit]
    taken_for[truth.crowd] = -1
    words = np.where(taken_for < 0, MISSED, np.where(taken_for == truth.channel, FOUND, WRONG_CLASS))
    words[truth.crowd] = IGNORED
    detections = tuple(IGNORED if kind == IGNORED else _KIND_OF.get(kind, POOR) for kind in kinds[:shown])
    least = float(found.scores[shown - 1]) if shown else float("nan")
    return Outcomes(shown, least, detections, tuple(words.tolist()), taken_for)


def confusion(matching: Matching, result: Outcomes) -> Ints:
    """Return how many boxes of each class were taken for each class, (K + 1, K + 1).

    The last column counts boxes that were missed; the last row shown detections on background.
    """
    truth, last = matching.truth, len(matching.truth.class_ids)
    counts = np.zeros((last + 1, last + 1), np.int64)
    kept = ~truth.crowd
    np.add.at(counts, (truth.channel[kept], result.taken_for[kept]), 1)  # -1 is the last column
    on_nothing = [row for row, kind in enumerate(result.detections) if kind == BACKGROUND]
    np.add.at(counts[last], matching.found.channel[on_nothing], 1)
    return counts
