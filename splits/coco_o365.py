"""MS-COCO -> Objects365 (Sec. 4.1): the majority is annotated in another data set than the minority and D_u are.

D_m is MS-COCO train2017 under Objects365's classes: 78 of the 365, the majority. D_s is Objects365 train until each of
the 287 other classes has ten boxes, all its boxes shown. D_u is the rest of Objects365 train.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from cissod_bench.annotations.columns import Ints
from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.splitting.drawing import check_enough, cover_classes, share_of_images, thinned, visiting_order
from cissod_bench.splitting.options import DrawOptions
from cissod_bench.splitting.scenarios import NOT_DRAWN, minority_groups
from cissod_bench.splitting.split import Share, Split
from cissod_bench.splitting.task import Task

from .coco_split1 import COCO, TRAIN_IMAGES

OBJECTS365 = "https://www.objects365.org/download.html (Objects365 version 2, after registration)"

# MS-COCO category id -> Objects365 category id. By id, because names carry typing errors ("Moniter/TV", "Dinning
# Table") and blanks at their end that differ between releases. "sports ball" (37) has no counterpart; "bear" (23) and
# "teddy bear" (88) are both "Bear" (296), so that 79 classes become 78.
CLASSES = MappingProxyType({
    1: 1, 2: 47, 3: 6, 4: 59, 5: 115, 6: 56, 7: 117, 8: 66, 9: 22, 10: 41, 11: 177, 13: 128, 14: 250, 15: 25, 16: 57,
    17: 140, 18: 93, 19: 79, 20: 100, 21: 97, 22: 145, 23: 296, 24: 179, 25: 181, 27: 39, 28: 40, 31: 14, 32: 44,
    33: 121, 34: 220, 35: 120, 36: 174, 38: 155, 39: 138, 40: 114, 41: 146, 42: 147, 43: 205, 44: 9, 46: 36, 47: 11,
    48: 89, 49: 85, 50: 94, 51: 27, 52: 113, 53: 83, 54: 266, 55: 105, 56: 142, 57: 153, 58: 235, 59: 144, 60: 151,
    61: 98, 62: 3, 63: 51, 64: 26, 65: 76, 67: 99, 70: 154, 72: 38, 73: 74, 74: 116, 75: 133, 76: 107, 77: 62,
    78: 164, 79: 135, 80: 278, 81: 82, 82: 134, 84: 19, 85: 95, 86: 31, 87: 170, 88: 296, 89: 329, 90: 227,
})  # fmt: skip

# Named by the annotation file, but not in the release.
MISSING = (
    "patch6/objects365_v1_00320534.jpg",
    "patch6/objects365_v1_00320532.jpg",
    "patch16/objects365_v2_00908726.jpg",
)
# Annotated with width and height exchanged, or photographs that bear an EXIF orientation: the release sets width =
# height for them, and its loader turns images as EXIF says. The image itself tells before a run (running/turned.py).
SWAPPED = (
    "patch44/objects365_v2_02024631.jpg",
    "patch21/objects365_v2_01118660.jpg",
    "patch10/objects365_v1_00509398.jpg",
)


def draw(task: Task, annotations: Mapping[str, Annotations], options: DrawOptions) -> Split:
    """Draw the split (Sec. 4.1, scenario 1, from two data sets).

    1. D_s: visit Objects365's images until every class that MS-COCO lacks has ``min_instances`` boxes
       (``cover_classes``). All boxes of all 365 classes are shown.
    2. D_m: MS-COCO's images that hold a box of a common class; ``labelled_percent`` of them, 100 by default. Boxes get
       Objects365's classes.
    3. D_u: the other images of Objects365, ``unlabelled_percent`` of them.

    Raises:
        DataFault: a class of the mapping is missing in one of the files, or Objects365 holds too few boxes of a class
            to be covered; all of those are listed.
        UsageFault: the options ask for another minority, which the two data sets decide.
    """
    _refuse_options(task, options)
    objects, coco = annotations["train"], annotations["coco"]
    channels = _channels(coco, objects)
    minority = np.setdiff1d(np.arange(len(objects.classes)), channels)
    shares = (_objects365(task, objects, minority, options), _coco(coco, channels, options))
    groups = minority_groups(objects.classes, [objects.classes[row] for row in minority])
    return Split(options=options, shares=shares, groups=groups)


def _objects365(task: Task, data: Annotations, minority: Ints, options: DrawOptions) -> Share:
    """Return D_s and D_u."""
    images = len(data.image_ids)
    absent = frozenset(task.absent)
    missing = np.fromiter((name in absent for name in data.file_names), np.bool_, images)
    order = visiting_order(data.image_ids, options.split_seed, "D_s")
    wanted = data.instances() & ~missing[data.box_image] & np.isin(data.box_class, minority)
    held = np.bincount(data.box_class[wanted], minlength=len(data.classes))
    check_enough(data.path, data.classes, held, minority, options.min_instances)
    cover = options.cover or task.cover
    assert cover is not None  # the task has a rule
    d_s = cover_classes(
        order,
        data.box_image[wanted],
        data.box_class[wanted],
        classes=minority.tolist(),
        least=options.min_instances,
        cover=cover,
    )
    in_d_s = np.zeros(images, np.bool_)
    in_d_s[d_s] = True
    unlabelled, left = thinned(np.flatnonzero(~in_d_s & ~missing), data.image_ids, options)
    shown = in_d_s[data.box_image]
    return Share(
        annotations=data,
        labelled={"D_s": np.flatnonzero(in_d_s)},
        unlabelled=unlabelled,
        shown=shown,
        ignored=np.zeros(len(shown), np.bool_),
        left_out={"missing in the release": np.flatnonzero(missing), NOT_DRAWN: left},
    )


def _coco(data: Annotations, channels: Ints, options: DrawOptions) -> Share:
    """Return D_m; images that hold no box of a common class ("sports ball" alone) are in no part."""
    common = channels[data.box_class] >= 0
    holds = data.per_image(data.instances() & common) > 0
    order = visiting_order(data.image_ids, options.split_seed, "D_m")
    d_m = share_of_images(order[holds[order]], percent=options.labelled_percent, of=int(holds.sum()))
    in_d_m = np.zeros(len(holds), np.bool_)
    in_d_m[d_m] = True
    shown = in_d_m[data.box_image] & common
    return Share(
        annotations=data,
        labelled={"D_m": np.flatnonzero(in_d_m)},
        unlabelled=np.empty(0, np.int64),
        shown=shown,
        ignored=np.zeros(len(shown), np.bool_),
        left_out={
            "without a box of a common class": np.flatnonzero(~holds),
            "not drawn into D_m": np.flatnonzero(holds & ~in_d_m),
        },
        root="coco",
        channels=channels,
    )


def _channels(coco: Annotations, objects: Annotations) -> Ints:
    """Return the row of an Objects365 class for every MS-COCO class, -1 where there is none."""
    rows = {number: row for row, number in enumerate(objects.category_ids)}
    for file, numbers in ((coco, CLASSES.keys()), (objects, CLASSES.values())):
        if missing := sorted(set(numbers) - set(file.category_ids)):
            raise DataFault(
                f"{file.path}: categories: there is no class of the id {missing[0]} ({len(missing)} are missing).",
                remedy="use the official annotation file",
            )
    return np.array([rows[CLASSES[number]] if number in CLASSES else -1 for number in coco.category_ids])


def _refuse_options(task: Task, options: DrawOptions) -> None:
    if options.minority is not None:
        raise UsageFault(
            f"Task {task.name!r} has no --minority: it is what Objects365 has and MS-COCO lacks.",
            remedy="leave --minority out",
        )
    if options.dm_minority != "drop":
        raise UsageFault(
            f"Task {task.name!r} has no --dm-minority: no minority box is annotated in its D_m.",
            remedy="leave --dm-minority out",
        )


TASK = Task(
    title="MS-COCO -> Objects365",
    source="Sec. 4.1, scenario 1",
    inputs={
        "train": "objects365/annotations/zhiyuan_objv2_train.json",
        "val": "objects365/annotations/zhiyuan_objv2_val.json",
        "coco": "coco/annotations/instances_train2017.json",
    },
    images={"train": "objects365/train", "val": "objects365/val", "coco": "coco/train2017"},
    groups=("maj", "min"),
    draw=draw,
    iterations=360_000,  # Sec. 4.2
    repeat_threshold=0.02,
    crs_gamma=0.05,  # Sec. 4.2
    cover="useful",
    draw_defaults={"labelled_percent": 100.0},
    naming="objects365",
    swapped=SWAPPED,
    # As the release's loader does, unless the stated size says otherwise; how the annotators saw them is not published.
    exif={"train": "sizes", "val": "sizes", "coco": "ignore"},
    absent=MISSING,
    official={"train": OBJECTS365, "val": OBJECTS365, "coco": COCO, "coco_images": TRAIN_IMAGES},
)
