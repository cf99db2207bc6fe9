"""Pseudo labels of unlabelled images judged by the hidden boxes: which are correct (Fig. 3). For analysis only."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.naming import Naming
from cissod_bench.annotations.reading import read_annotations
from cissod_bench.errors import DataFault
from cissod_bench.loading.shared_columns import key_of, shared_source
from cissod_bench.loading.sources import Source, columns_of
from cissod_bench.messages import sendable

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

LEAST_OVERLAP = 0.5  # Fig. 3 names none; what a proposal needs to be foreground


@sendable
@dataclass(frozen=True)
class Looks:
    """The pseudo labels of unlabelled images as columns; an image that was used twice is two looks.

    Attributes:
        images: ids, int64, shape (V,).
        ends: look v's pseudo labels are rows ``ends[v - 1]:ends[v]``, int64, shape (V,).
        boxes: xyxy in pixels of the original image, shape (M, 4).
        labels: channels in [0, n), int64, shape (M,).
        scores: shape (M,).
    """

    images: Ints
    ends: Ints
    boxes: npt.NDArray[np.float32]
    labels: Ints
    scores: npt.NDArray[np.float32]

    @property
    def owners(self) -> Ints:
        """The look of every pseudo label, shape (M,)."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.ends, prepend=0))


@dataclass(frozen=True)
class HiddenBoxes:
    """The boxes of D_u, for analysis only.

    Attributes:
        images: ids in rising order, int64, shape (I,).
        ends: image i's boxes are rows ``ends[i - 1]:ends[i]``, int64, shape (I,).
        boxes: xyxy in pixels, shape (B, 4).
        labels: channels, whole numbers, shape (B,).
        crowd: regions with any number of objects, bool, shape (B,).
    """

    images: Ints
    ends: Ints
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.signedinteger[Any]]
    crowd: Bools

    @classmethod
    def of(cls, source: Source) -> HiddenBoxes:
        """Return the boxes of a source; its columns are copied only where its ids do not rise."""
        ids, ends, rows = source.image_ids, source.box_ends, None
        if not (ids[1:] > ids[:-1]).all():
            order, counts = np.argsort(ids, kind="stable"), np.diff(ends, prepend=0)
            rows = _ranges((ends - counts)[order], counts[order])
            ids, ends = ids[order], np.cumsum(counts[order], dtype=np.int64)
        columns: Any = (source.boxes, source.labels, source.ignored)
        boxes, labels, crowd = columns if rows is None else (column[rows] for column in columns)
        return cls(images=ids, ends=ends, boxes=boxes, labels=labels, crowd=crowd)

    def rows_of(self, images: Ints) -> tuple[Ints, Ints]:
        """Return first row and number of the boxes of some images; one that the file does not name has none."""
        place = np.searchsorted(self.images, images).clip(max=len(self.images) - 1)
        counts = np.diff(self.ends, prepend=0)[place]
        return self.ends[place] - counts, np.where(self.images[place] == images, counts, 0)


def read_hidden(
    path: Path,
    classes: Sequence[str],
    naming: Naming = "file_name",
    sha256: str = "",
    doubtful: Collection[str] = (),
) -> HiddenBoxes | None:
    """Return the boxes of D_u, or None where there are none; with a warning if the file is not sound.

    Args:
        path: ``hidden.json`` of the split; imported splits may have none, or one without boxes.
        classes: of the split, in channel order.
        naming: of the split's images.
        sha256: of the file, where it is known: then the columns of a large one are shared.
        doubtful: files whose annotated width and height have been exchanged in the split (``read_annotations``).
    """
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        source = hidden_source(path, classes, naming, sha256, doubtful)
    except DataFault as fault:  # an analysis must not end a training of days
        warnings.warn(f"Pseudo labels are not judged. {fault}", stacklevel=2)
        return None
    return HiddenBoxes.of(source) if len(source.boxes) else None


def hidden_source(
    path: Path, classes: Sequence[str], naming: Naming, sha256: str = "", doubtful: Collection[str] = ()
) -> Source:
    """Return images and boxes of D_u as columns; those of a large file are shared with the other processes.

    Args:
        path: ``hidden.json`` of the split.
        classes: of the split, in channel order.
        naming: of the split's images.
        sha256: of the file; "" where it is not known, and nothing is shared.
        doubtful: as for `read_hidden`.

    Raises:
        DataFault: the file is not sound or has other classes.
    """

    def read() -> Source:
        with read_annotations(path, naming=naming, doubtful=doubtful, records=False) as file:
            if file.classes != tuple(classes):
                remedy = "import the split again with a --hidden that has the classes of --labelled"
                raise DataFault(f"{path} has other classes than the split.", remedy=remedy)
            return columns_of(file, np.zeros(len(file.image_ids), np.int8))

    if not sha256:
        return read()
    return shared_source(path, key_of("hidden", sha256, naming, sorted(doubtful), tuple(classes)), read)


def _ranges(begins: Ints, counts: Ints) -> Ints:
    """Return begins[0], begins[0] + 1, ... (counts[0] of them), begins[1], ... one after the other."""
    ends = np.cumsum(counts)
    return np.repeat(begins - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)


def overlaps(boxes: npt.NDArray[Any], truths: npt.NDArray[Any], crowd: Bools) -> npt.NDArray[Any]:
    """Return the IoU of pairs of boxes, shape (P,); with a crowd region the share of the box that lies in it.

    Args:
        boxes: xyxy, shape (P, 4).
        truths: xyxy, shape (P, 4).
        crowd: whether the truth is a crowd region, shape (P,).
    """
    boxes, truths = boxes.astype(np.float64), truths.astype(np.float64)
    sides = np.minimum(boxes[:, 2:], truths[:, 2:]) - np.maximum(boxes[:, :2], truths[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    own, other = ((one[:, 2:] - one[:, :2]).prod(axis=1) for one in (boxes, truths))
    area = np.where(crowd, own, own + other - common)
    result: npt.NDArray[Any] = np.divide(common, area, out=np.zeros(len(boxes)), where=area > 0)
    return result


def judge(looks: Looks, hidden: HiddenBoxes, num_classes: int) -> Ints:
    """Return boxes, pseudo labels and correct pseudo labels per class, shape (3, n).

    In every look and class the pseudo labels, best score first, take the free hidden box they overlap most, if by an
    IoU of at least 0.5; those that got one are correct. As in COCO's scoring, crowd regions are no boxes, and a pseudo
    label that fits nothing but a crowd region counts neither as right nor as wrong.
    """
    begins, counts = hidden.rows_of(looks.images)
    truth = _ranges(begins, counts)
    truth_key = np.repeat(np.arange(len(looks.images)), counts) * num_classes + hidden.labels[truth]
    order = np.argsort(truth_key, kind="stable")
    truth, truth_key = truth[order], truth_key[order]
    keys = looks.owners * num_classes + looks.labels
    low, high = (np.searchsorted(truth_key, keys, side=side) for side in ("left", "right"))
    which, place = np.repeat(np.arange(len(keys)), high - low), _ranges(low, high - low)
    crowd = hidden.crowd[truth]
    overlap = overlaps(looks.boxes[which], hidden.boxes[truth[place]], crowd[place])
    fits = overlap >= LEAST_OVERLAP
    which, place, overlap = which[fits], place[fits], overlap[fits]
    best_first = np.lexsort((-overlap, crowd[place], which, -looks.scores[which]))
    correct, dropped = _take(which[best_first].tolist(), place[best_first].tolist(), crowd, len(keys))
    counted = (truth_key[~crowd] % num_classes, looks.labels[~dropped], looks.labels[correct])
    return np.stack([np.bincount(labels, minlength=num_classes) for labels in counted])


def _take(which: list[int], place: list[int], crowd: Bools, number: int) -> tuple[Bools, Bools]:
    """Give pseudo labels the truths of their pairs, in the pairs' order; return those that got a box or a region."""
    correct, dropped = np.zeros(number, np.bool_), np.zeros(number, np.bool_)
    free = np.ones(len(crowd), np.bool_)
    for one, truth in zip(which, place, strict=True):  # only pairs that fit: about one a correct pseudo label
        if correct[one] or dropped[one] or not free[truth]:
            continue
        (dropped if crowd[truth] else correct)[one] = True
        free[truth] = crowd[truth]
    return correct, dropped
