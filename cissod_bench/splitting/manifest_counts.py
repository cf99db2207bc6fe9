"""The numbers of a manifest: images and boxes of D_l and D_u, in all, of each group and of each class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from cissod_bench.annotations.reading import Bools
from cissod_bench.splitting.manifest import BoxCounts, ClassCounts, GroupCounts
from cissod_bench.splitting.scenarios import boxes_of_classes
from cissod_bench.splitting.split import Share, Split


class SplitCounts(NamedTuple):
    """The numbers of a split, as the fields of the same names in ``Manifest``."""

    counts: dict[str, int]
    left_out: dict[str, int]
    boxes: BoxCounts
    per_group: dict[str, GroupCounts]
    imbalance: float | None
    below_minimum: list[str]
    per_class: dict[str, ClassCounts]


def counts_of(split: Split) -> SplitCounts:
    """Return a manifest's numbers: images and boxes of D_l and D_u, in all, of each group and of each class.

    Crowd and ignore regions are no boxes.
    """
    per_class = _class_counts(split)
    in_d_l = [counts.boxes for counts in per_class.values() if counts.boxes]
    short = {name for name, counts in per_class.items() if counts.boxes < split.options.min_instances}
    covered = split.groups.get("min", split.classes)  # D_l must hold enough of the minority, or of all
    return SplitCounts(
        counts=_image_counts(split),
        left_out=_left_out(split),
        boxes=BoxCounts(
            labelled=sum(in_d_l),
            ignored=sum(int(share.ignored.sum()) for share in split.shares),
            hidden=sum(counts.unlabelled_boxes or 0 for counts in per_class.values()),
        ),
        per_group=_group_counts(split, per_class, short),
        imbalance=round(max(in_d_l) / min(in_d_l), 2) if in_d_l else None,
        below_minimum=[name for name in covered if name in short],
        per_class=per_class,
    )


def _image_counts(split: Split) -> dict[str, int]:
    """Return part -> its images, then those of D_l and D_u in all."""
    images = {"D_m": 0, "D_s": 0}
    for share in split.shares:
        for name, rows in share.labelled.items() if split.parted else ():
            images[name] = images.get(name, 0) + len(rows)
    return {
        **images,
        "labelled": sum(len(rows) for share in split.shares for rows in share.labelled.values()),
        "unlabelled": sum(len(share.unlabelled) for share in split.shares),
    }


def _left_out(split: Split) -> dict[str, int]:
    """Return reason -> images that are in no part, where there are any."""
    images: dict[str, int] = {}
    for share in split.shares:
        counts = {reason: len(rows) for reason, rows in share.left_out.items()}
        for reason, count in (*counts.items(), *share.never_read.items()):
            images[reason] = images.get(reason, 0) + count
    return {reason: count for reason, count in images.items() if count}


def _class_counts(split: Split) -> dict[str, ClassCounts]:
    images, boxes = _per_class(split, lambda share: share.shown & ~share.ignored)
    hidden_images, hidden_boxes = _per_class(split, lambda share: share.hidden)
    _, dropped = _per_class(split, lambda share: share.on_labelled & ~share.shown & (share.box_class >= 0))
    _, ignored = _per_class(split, lambda share: share.shown & share.ignored)
    original = boxes_of_classes(split.shares[0].annotations).tolist()
    if not split.hidden_known:  # what nobody told is not counted as nothing
        hidden_images = hidden_boxes = original = [None] * len(split.classes)
    return {
        name: ClassCounts(
            images=images[row],
            boxes=boxes[row],
            unlabelled_images=hidden_images[row],
            unlabelled_boxes=hidden_boxes[row],
            original_boxes=original[row],
            dropped_boxes=dropped[row],
            ignored_boxes=ignored[row],
        )
        for row, name in enumerate(split.classes)
    }


def _group_counts(split: Split, per_class: Mapping[str, ClassCounts], short: Collection[str]) -> dict[str, GroupCounts]:
    return {
        group: GroupCounts(
            classes=len(names),
            labelled=sum(per_class[name].boxes for name in names),
            hidden=sum(per_class[name].unlabelled_boxes or 0 for name in names),
            below_minimum=[name for name in names if name in short],
        )
        for group, names in split.groups.items()
    }


def _per_class(split: Split, chosen: Callable[[Share], Bools]) -> tuple[list[Any], list[Any]]:
    """Return images with, and number of, the chosen boxes of each class, crowd regions left out; C numbers each."""
    num = len(split.classes)
    total = np.zeros((2, num), np.int64)
    for share in split.shares:
        boxes = chosen(share) & share.annotations.instances()
        box_class = share.box_class[boxes].astype(np.int64)
        pairs = np.unique(share.annotations.box_image[boxes].astype(np.int64) * num + box_class)
        total += np.bincount(pairs % num, minlength=num), np.bincount(box_class, minlength=num)
    return total[0].tolist(), total[1].tolist()
