"""The paper's two scenarios of class imbalance (Sec. 4.1): a minority that D_u has plenty of, and one long tail."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.reading import Annotations, Bools
from cissod_bench.errors import UsageFault
from cissod_bench.splitting.drawing import (
    check_enough,
    cover_classes,
    cover_rarest_first,
    images_of_percent,
    minority_rows,
    share_of_images,
    thinned,
    visiting_order,
)
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.split import Groups, Share, Split
from cissod_bench.splitting.task import Task

NOT_DRAWN = "not drawn into D_u"


def draw_by_minority(task: Task, annotations: Mapping[str, Annotations], options: DrawOptions) -> Split:
    """Draw a split by a list of minority classes (Sec. 4.1, scenario 1; "maj" and "min" are its groups).

    1. D_s: visit the images with a minority box in a drawn order until every minority class has ``min_instances``
       boxes (``cover_classes``). All their boxes are shown.
    2. D_m: of the other images with a majority box, draw round(``labelled_percent`` / 100 * all images with a majority
       box). Only majority boxes are shown; minority boxes are dropped, or kept as ignore regions.
    3. D_u: every other image, also those without boxes. No box is shown.

    Crowd regions follow their image and class but count nowhere.

    Raises:
        DataFault: the file holds too few boxes of a minority class; all of those are listed.
        UsageFault: the options do not fit the data: they leave D_m or D_u empty, or ask for more images than there are.
    """
    data = annotations["train"]
    minority = minority_rows(options.minority or task.minority, data.classes)
    counts, of_minority = data.instances(), np.isin(data.box_class, minority)
    check_enough(data.path, data.classes, boxes_of_classes(data), minority, options.min_instances)

    order = visiting_order(data.image_ids, options.split_seed, "D_s")
    cover = options.cover or task.cover
    assert cover is not None  # only tasks without a minority have no rule
    d_s = cover_classes(
        order,
        data.box_image[counts],
        data.box_class[counts],
        classes=minority.tolist(),
        least=options.min_instances,
        cover=cover,
    )

    holds_majority = data.per_image(counts & ~of_minority) > 0
    free = holds_majority.copy()
    free[d_s] = False
    order = visiting_order(data.image_ids, options.split_seed, "D_m")
    d_m = share_of_images(
        order[free[order]],
        percent=options.labelled_percent,
        of=int(holds_majority.sum()),
        left=int(len(d_s) + free.sum() == len(free)),  # no image without a majority box enters D_u
    )

    part = np.zeros(len(data.image_ids), np.int8)
    part[d_s], part[d_m] = 1, 2
    box_part = part[data.box_image]
    ignored = (box_part == 2) & of_minority
    shown = (box_part > 0) & ~ignored if options.dm_minority == "drop" else box_part > 0
    unlabelled, left = thinned(np.flatnonzero(part == 0), data.image_ids, options)
    share = Share(
        annotations=data,
        labelled={"D_m": np.flatnonzero(part == 2), "D_s": np.flatnonzero(part == 1)},
        unlabelled=unlabelled,
        shown=shown,
        ignored=ignored & shown,
        left_out={NOT_DRAWN: left},
    )
    groups = minority_groups(data.classes, [data.classes[row] for row in minority])
    return Split(options=replace(options, cover=cover, minority=groups["min"]), shares=(share,), groups=groups)


def draw_by_frequency(task: Task, annotations: Mapping[str, Annotations], options: DrawOptions) -> Split:
    """Draw a split whose D_l and D_u share one long tail (Sec. 4.1, scenario 2; "f", "c" and "r" are its groups).

    1. D_l: images until every class has ``min_instances`` boxes, the rarest class first (``cover_rarest_first``), then
       drawn ones up to round(``labelled_percent`` / 100 * images that carry a box). All their boxes are shown.
    2. D_u: every other image. No box is shown.

    Groups come from the images of D_l (Sec. 4.3). Where the file states frequencies of its own, they are the view
    "official".

    Raises:
        DataFault: the file holds too few boxes of a class; all of those are listed.
        UsageFault: the options ask for a minority or a rule of D_s, which this scenario does not have; a percentage
            gives no image, or D_l takes all.
    """
    refuse_minority_options(task, options)
    data = annotations["train"]
    counts, images = data.instances(), len(data.image_ids)
    check_enough(data.path, data.classes, boxes_of_classes(data), range(len(data.classes)), options.min_instances)
    order = visiting_order(data.image_ids, options.split_seed, "D_l")
    covering = cover_rarest_first(
        order,
        data.box_image[counts],
        data.box_class[counts],
        num_classes=len(data.classes),
        least=options.min_instances,
    )
    holds_box = data.per_image(counts) > 0
    wanted = images_of_percent(options.labelled_percent, int(holds_box.sum()), option="labelled_percent", part="D_l")
    in_labelled = np.zeros(images, np.bool_)
    in_labelled[covering] = True
    others = order[(holds_box & ~in_labelled)[order]]
    in_labelled[others[: max(wanted - len(covering), 0)]] = True

    unlabelled, left = thinned(np.flatnonzero(~in_labelled), data.image_ids, options)
    shown = in_labelled[data.box_image]
    share = Share(
        annotations=data,
        labelled={"D_l": np.flatnonzero(in_labelled)},
        unlabelled=unlabelled,
        shown=shown,
        ignored=np.zeros(len(shown), np.bool_),
        left_out={NOT_DRAWN: left},
    )
    groups = frequency_groups(data.classes, images_of_classes(data, shown & counts), task.frequency_bounds)
    official = official_groups(data)
    return Split(options=options, shares=(share,), groups=groups, views={"official": official} if official else {})


def refuse_minority_options(task: Task, options: DrawOptions) -> None:
    """Refuse options that have no meaning where the task's classes are not divided by a list.

    Raises:
        UsageFault: one of them is given.
    """
    given = {
        "--cover": options.cover is not None and task.cover is None,
        "--minority": options.minority is not None,
        "--dm-minority": options.dm_minority != "drop",
    }
    for option, is_given in given.items():
        if is_given:
            message = f"Task {task.name!r} has no {option}: its classes are not divided by a list."
            raise UsageFault(message, remedy=f"leave {option} out")


def boxes_of_classes(data: Annotations) -> Ints:
    """Return the instances of each class, (C,)."""
    return np.bincount(data.box_class[data.instances()], minlength=len(data.classes))


def images_of_classes(data: Annotations, boxes: Bools) -> Ints:
    """Return the images that hold a chosen box of each class, (C,)."""
    num = len(data.classes)
    pairs = np.unique(data.box_image[boxes].astype(np.int64) * num + data.box_class[boxes])
    return np.bincount(pairs % num, minlength=num)


def minority_groups(classes: Sequence[str], minority: Collection[str]) -> Groups:
    """Return "maj" and "min": the other classes and those of the minority (Sec. 4.1), each in the order of all."""
    return {
        "maj": tuple(name for name in classes if name not in minority),
        "min": tuple(name for name in classes if name in minority),
    }


def frequency_groups(classes: tuple[str, ...], images: Ints, bounds: tuple[int, int]) -> Groups:
    """Return "f", "c" and "r": classes by the number of images that show them (Sec. 4.3).

    Args:
        classes: names.
        images: images with each class, (C,).
        bounds: the greatest number of a rare and of a common class; the paper has 10 and 100.
    """
    group = np.searchsorted(bounds, images)  # 0: <= rare, 1: <= common, 2: above
    named = {"f": 2, "c": 1, "r": 0}
    return {name: tuple(classes[row] for row in np.flatnonzero(group == number)) for name, number in named.items()}


def official_groups(data: Annotations) -> Groups:
    """Return the groups by the "frequency" that LVIS states for each class; empty where one states none."""
    stated = [msgspec.json.decode(record, type=_Frequency).frequency for record in data.categories]
    if not all(group in ("f", "c", "r") for group in stated):
        return {}
    return {
        group: tuple(name for name, one in zip(data.classes, stated, strict=True) if one == group) for group in "fcr"
    }


class _Frequency(msgspec.Struct):
    frequency: Any = None
