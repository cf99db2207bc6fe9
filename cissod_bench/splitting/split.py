"""One draw of a task, checked: every image in exactly one part, no box of D_u shown, every class in one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.lenient import GREATEST_ID
from cissod_bench.annotations.reading import Annotations, Bools
from cissod_bench.errors import DataFault
from cissod_bench.splitting.options import DrawOptions

Groups = Mapping[str, tuple[str, ...]]

_DRAW_ANEW = (
    "the function draw of the task's file must return a split that keeps the rules of cissod_bench/splitting/split.py"
)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one annotation file gives to a split; all fields index its rows.

    Nearly every split has one share. MS-COCO -> Objects365 has two, and so has an imported one: D_l and D_u.

    Attributes:
        annotations: the file.
        labelled: part name -> its images; their boxes are shown.
        unlabelled: the images of D_u.
        shown: the boxes of D_l, bool (N,).
        ignored: shown boxes that become ignore regions (iscrowd 1), bool (N,).
        left_out: reason -> images that are in no part.
        never_read: reason -> image files that stand in no record, and so are in no part either.
        root: role of the folder its images lie in; "" for the task's own training images.
        channels: class of the split for each of the file's classes, (C,), -1 where the split has none: such boxes are
            in no part. None where the classes are the split's.
    """

    annotations: Annotations
    labelled: Mapping[str, Ints]
    unlabelled: Ints
    shown: Bools
    ignored: Bools
    left_out: Mapping[str, Ints] = field(default_factory=dict)
    never_read: Mapping[str, int] = field(default_factory=dict)
    root: str = ""
    channels: Ints | None = None

    @cached_property
    def box_class(self) -> npt.NDArray[np.signedinteger[Any]]:
        """Class of each box as a row of the split's classes, (N,); -1 where the split has none."""
        return self.annotations.box_class if self.channels is None else self.channels[self.annotations.box_class]

    @cached_property
    def hidden(self) -> Bools:
        """The boxes on images of D_u, bool (N,)."""
        hidden = self._boxes_on(self.unlabelled)
        return hidden if self.channels is None else hidden & (self.box_class >= 0)

    @cached_property
    def on_labelled(self) -> Bools:
        """The boxes on images of D_l, shown or not, bool (N,)."""
        return self._boxes_on(*self.labelled.values())

    def _boxes_on(self, *parts: Ints) -> Bools:
        chosen = np.zeros(len(self.annotations.image_ids), np.bool_)
        for images in parts:
            chosen[images] = True
        boxes: Bools = chosen[self.annotations.box_image]
        return boxes


@dataclass(frozen=True, kw_only=True)
class Split:
    """One draw of a task: D_l with its boxes, D_u without any, and the class groups.

    Groups belong to the split, not to the task: LVIS groups by image counts in D_l.

    Attributes:
        options: how it was drawn; every choice is made (no None left that the task leaves open).
        shares: images and boxes, one share per annotation file; the first one's classes are the split's.
        groups: group -> names of its classes in channel order.
        views: view -> other groups to score by, e.g. "official" -> LVIS's own frequencies.
        hidden_known: whether the boxes of D_u are known; where they are not, nobody has drawn D_l from a larger set.

    Raises:
        DataFault: D_l and D_u share an image or leave one out, a shown box lies on an image of D_u, or the groups do
            not partition the classes. The message names the first offender.
    """

    options: DrawOptions
    shares: tuple[Share, ...]
    groups: Groups
    views: Mapping[str, Groups] = field(default_factory=dict)
    hidden_known: bool = True

    def __post_init__(self) -> None:
        for share in self.shares:
            _check_images(share)
            _check_boxes(share)
        for groups in (self.groups, *self.views.values()):
            _check_groups(groups, self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in channel order."""
        return self.shares[0].annotations.classes

    @property
    def parted(self) -> bool:
        """Whether D_l has several parts (D_m and D_s), so that each of its images must say which it is in."""
        return len({name for share in self.shares for name in share.labelled}) > 1

    def offsets(self) -> list[tuple[int, int]]:
        """Return what is added to the ids of images and boxes of each share, so that no id stands twice.

        It is 0 for the first share and a power of ten for the others: added ids stay legible.

        Raises:
            DataFault: the ids of the files are so large that there is no room above them.
        """
        result, top_image, top_box = [], 0, 0
        for number, share in enumerate(self.shares):
            images, boxes = share.annotations.image_ids, share.annotations.box_ids
            offset = (_power_above(top_image, images), _power_above(top_box, boxes)) if number else (0, 0)
            top_image = max(top_image, int(images.max(initial=0)) + offset[0])
            top_box = max(top_box, int(boxes.max(initial=0)) + offset[1])
            if max(top_image, top_box) > GREATEST_ID:
                first, path = self.shares[0].annotations.path, share.annotations.path
                message = f"{path}: its ids are to be lifted above those of {first}, and would exceed {GREATEST_ID}."
                raise DataFault(message, remedy="give the records of both files smaller ids")
            result.append(offset)
        return result


def _power_above(top: int, ids: Ints) -> int:
    """Return the smallest power of ten that lifts all ids above ``top``."""
    power = 1
    while power + int(ids.min(initial=0)) <= top:
        power *= 10
    return power


def _check_images(share: Share) -> None:
    ids = share.annotations.image_ids
    parts = {**share.labelled, "D_u": share.unlabelled, **share.left_out}
    uses = np.zeros(len(ids), np.int64)
    for rows in parts.values():
        np.add.at(uses, rows, 1)
    if (uses != 1).any():
        row = int(np.argmax(uses != 1))
        holders = [name for name, rows in parts.items() if row in rows] or ["none of " + ", ".join(parts)]
        message = f"Image {ids[row]} is in {' and '.join(holders)}; each image must be in exactly one part."
        raise DataFault(message, remedy=_DRAW_ANEW)


def _check_boxes(share: Share) -> None:
    data = share.annotations
    leaked = share.shown & ~share.on_labelled
    if leaked.any():
        box = int(np.argmax(leaked))
        image = data.image_ids[data.box_image[box]]
        raise DataFault(
            f"Box {data.box_ids[box]} on image {image} outside D_l is shown; only D_l's may be.", remedy=_DRAW_ANEW
        )
    if share.channels is not None and (share.shown & (share.box_class < 0)).any():
        box = int(np.argmax(share.shown & (share.box_class < 0)))
        raise DataFault(f"Box {data.box_ids[box]} is shown, but its class is none of the split's.", remedy=_DRAW_ANEW)


def _check_groups(groups: Mapping[str, Sequence[str]], classes: Sequence[str]) -> None:
    named = [name for names in groups.values() for name in names]
    known = set(classes)
    for name in named:
        if name not in known:
            raise DataFault(f"The class groups name {name!r}, which is no class of the data.", remedy=_DRAW_ANEW)
    for name in classes:
        if (count := named.count(name)) != 1:
            message = f"Class {name!r} is in {count} class groups; each class must be in exactly one."
            raise DataFault(message, remedy=_DRAW_ANEW)
