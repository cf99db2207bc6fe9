"""One draw of a task, checked: every image in exactly one part, no box of D_u shown, every class in one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cissod_bench.annotations import Annotations, Bools
from cissod_bench.columns import Ints
from cissod_bench.errors import DataFault
from cissod_bench.spec import DrawOptions


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one annotation file gives to a split; all fields index its rows.

    Attributes:
        annotations: the file.
        labelled: part name -> its images; their boxes are shown.
        unlabelled: the images of D_u.
        shown: the boxes of D_l, bool (N,).
        ignored: shown boxes that become ignore regions (iscrowd 1), bool (N,).
    """

    annotations: Annotations
    labelled: Mapping[str, Ints]
    unlabelled: Ints
    shown: Bools
    ignored: Bools


@dataclass(frozen=True, kw_only=True)
class Split:
    """One draw of a task: D_l with its boxes, D_u without any, and the class groups.

    Groups belong to the split, not to the task: LVIS groups by image counts in D_l.

    Attributes:
        options: how it was drawn; every choice is made (no None left).
        source: images and boxes.
        groups: group -> names of its classes in channel order.

    Raises:
        DataFault: D_l and D_u share an image or leave one out, a shown box lies on an image of D_u, or the groups do
            not partition the classes. The message names the first offender.
    """

    options: DrawOptions
    source: Source
    groups: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        _check_images(self.source)
        _check_boxes(self.source)
        _check_groups(self.groups, self.source.annotations.classes)


def _check_images(source: Source) -> None:
    ids = source.annotations.image_ids
    parts = {**source.labelled, "D_u": source.unlabelled}
    uses = np.zeros(len(ids), np.int64)
    for rows in parts.values():
        np.add.at(uses, rows, 1)
    if (uses != 1).any():
        row = int(np.argmax(uses != 1))
        holders = [name for name, rows in parts.items() if row in rows] or ["none of " + ", ".join(parts)]
        raise DataFault(f"Image {ids[row]} is in {' and '.join(holders)}; each image must be in exactly one part.")


def _check_boxes(source: Source) -> None:
    hidden = np.zeros(len(source.annotations.image_ids), np.bool_)
    hidden[source.unlabelled] = True
    leaked = source.shown & hidden[source.annotations.box_image]
    if leaked.any():
        box = int(np.argmax(leaked))
        image = source.annotations.image_ids[source.annotations.box_image[box]]
        raise DataFault(f"Box {source.annotations.box_ids[box]} on image {image} of D_u is shown; D_u must show none.")


def _check_groups(groups: Mapping[str, Sequence[str]], classes: Sequence[str]) -> None:
    named = [name for names in groups.values() for name in names]
    for name in (*classes, *named):
        count = named.count(name)
        if name not in classes:
            raise DataFault(f"The class groups name {name!r}, which is no class of the data.")
        if count != 1:
            raise DataFault(f"Class {name!r} is in {count} class groups; each class must be in exactly one.")
