"""Why AP is lost: TIDE's error types and what each costs (Bolya et al., ECCV 2020, Sec. 2).

Each detection that found no box is of one type, by the box it overlaps most (t_f = 0.5, t_b = 0.1). The cost of a type
is the AP at IoU 0.5 that would be gained if its errors alone were mended:

* location: 0.1 to 0.5 with a box of its class. Mended: it lies on that box.
* class: at least 0.5 with a box of another class. Mended: it has that box's class.
* duplicate: at least 0.5 with a box of its class that a better detection found. Mended: it is gone.
* background: at most 0.1 with every box. Mended: it is gone.
* both: what is left, 0.1 to 0.5 with a box of another class. Mended: it is gone.
* missed: a box that was not found and that no error of location or class lies on. Mended: it need not be found.

Where several errors of location and class lie on one box, only the best-scored of them can be mended, and the others go
with the errors of their type; so do those on a box that was found. A detection that fits two types is of the first one.
Both are as in the authors' program, with which all numbers agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cissod_bench.scoring.matching import FITS, Bools, Ints, Matching, average_precision
from cissod_bench.scoring.points import AP, mean_ap

TOUCHES = 0.1
"""IoU up to which a detection lies on background."""

TYPES = ("class", "location", "both", "duplicate", "background", "missed")
"""The types of errors, in the paper's order."""
CORRECT, IGNORED = "correct", "ignored"


@dataclass(frozen=True)
class Errors:
    """What was lost by which errors.

    Attributes:
        kinds: of each detection, "correct", "ignored" or one of ``TYPES``; (D,) of text.
        missed: which boxes are errors of the type "missed", (N,).
        ap50: column -> AP at IoU 0.5 in points.
        gained: type -> column -> points of AP that mending these errors alone gains, >= 0; None where AP is undefined.
    """

    kinds: Sequence[str]
    missed: Bools
    ap50: Mapping[str, AP]
    gained: Mapping[str, Mapping[str, AP]]

    def count(self, kind: str) -> int:
        """Return the number of errors of a type."""
        return int(self.missed.sum()) if kind == "missed" else sum(own == kind for own in self.kinds)


@dataclass(frozen=True)
class _State:
    """What AP is made of: class, correctness and use of every detection, (D,), and the boxes of every class, (K,)."""

    channel: Ints
    correct: Bools
    used: Bools
    boxes: Ints

    def aps(self) -> list[AP]:
        """Return the AP of every class."""
        used = np.flatnonzero(self.used)
        order = used[np.argsort(self.channel[used], kind="stable")]
        ends = np.cumsum(np.bincount(self.channel[order], minlength=len(self.boxes)))
        parts = np.split(self.correct[order], ends[:-1])
        return [average_precision(part, int(count)) for part, count in zip(parts, self.boxes, strict=True)]


def error_types(matching: Matching, groups: Mapping[str, Sequence[str]]) -> Errors:
    """Return the errors of a model and what each type costs.

    Args:
        matching: its detections, compared at IoU 0.5.
        groups: group -> names of its classes; the columns are "all" (the classes of all groups) and these.
    """
    kinds = _kinds(matching)
    fixed, lain_on = _fixes(matching, kinds)
    missed = ~matching.hit & ~matching.truth.crowd
    missed[lain_on] = False
    state, classes = _state(matching), len(matching.truth.class_ids)
    columns = _columns(matching.truth.class_names, groups)
    lain_on_class = np.append(matching.truth.channel, -1)[matching.other.row]
    before = state.aps()
    ap50 = {name: mean_ap(before[channel] for channel in channels) for name, channels in columns.items()}
    mended = {
        "class": _mended(state, kinds == "class", fixed, lain_on_class),
        "location": _mended(state, kinds == "location", fixed, matching.found.channel),
        **{kind: replace(state, used=state.used & (kinds != kind)) for kind in ("both", "duplicate", "background")},
        "missed": replace(state, boxes=state.boxes - np.bincount(matching.truth.channel[missed], minlength=classes)),
    }
    gained = {}
    for kind in TYPES:
        after = mended[kind].aps()
        gained[kind] = {name: _gain(before, after, channels) for name, channels in columns.items()}
    return Errors(kinds.tolist(), missed, ap50, gained)


def _kinds(matching: Matching) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    """Return the type of every detection, (D,)."""
    same, other = matching.same.iou, matching.other.iou
    kinds = np.full(len(same), "both", "<U10")
    kinds[np.maximum(same, other) <= TOUCHES] = "background"
    kinds[same >= FITS] = "duplicate"
    kinds[other >= FITS] = "class"
    kinds[(same >= TOUCHES) & (same < FITS)] = "location"
    kinds[matching.ignored] = IGNORED
    kinds[matching.taken >= 0] = CORRECT
    return kinds


def _fixes(matching: Matching, kinds: np.ndarray[tuple[int], np.dtype[np.str_]]) -> tuple[Bools, Ints]:
    """Return which errors of location and class can be mended, (D,), and the rows of the boxes that these lie on."""
    target = np.where(kinds == "class", matching.other.row, matching.same.row)
    rows = np.flatnonzero((kinds == "class") | (kinds == "location"))
    rows = rows[~matching.hit[target[rows]]]
    boxes, first = np.unique(target[rows], return_index=True)  # detections are in order of their score
    fixed = np.zeros(len(kinds), np.bool_)
    fixed[rows[first]] = True
    return fixed, boxes


def _state(matching: Matching) -> _State:
    channel = matching.truth.channel[~matching.truth.crowd]
    boxes = np.bincount(channel, minlength=len(matching.truth.class_ids)).astype(np.int64)
    return _State(matching.found.channel, matching.taken >= 0, ~matching.ignored, boxes)


def _mended(state: _State, errors: Bools, fixed: Bools, channel: Ints) -> _State:
    """Return a state whose errors of a type are gone, but for those that can be mended: correct, and of ``channel``."""
    mended = errors & fixed
    return replace(
        state,
        channel=np.where(mended, channel, state.channel),
        correct=state.correct | mended,
        used=(state.used & ~errors) | mended,
    )


def _columns(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return column -> its channels."""
    place = {name: channel for channel, name in enumerate(names)}
    channels = {group: [place[name] for name in members] for group, members in groups.items()}
    every = sorted({channel for of_group in channels.values() for channel in of_group}) or list(range(len(names)))
    return {"all": every, **channels}


def _gain(before: Sequence[AP], after: Sequence[AP], channels: Sequence[int]) -> AP:
    """Return the points gained over some classes; a class whose every box needs no longer be found keeps its AP."""
    pairs = [(before[channel], after[channel]) for channel in channels if before[channel] is not None]
    gains = [0.0 if new is None or old is None else new - old for old, new in pairs]
    return max(0.0, sum(gains) / len(gains)) if gains else None
