"""A split of parts that somebody has already: nothing is drawn, and the boxes of D_u are not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cissod_bench.annotations.reading import Annotations
from cissod_bench.errors import DataFault, UsageFault
from cissod_bench.splitting.drawing import minority_rows, thinned
from cissod_bench.splitting.options import DrawOptions, option_name
from cissod_bench.splitting.own_parts import left_out_of
from cissod_bench.splitting.scenarios import (
    NOT_DRAWN,
    frequency_groups,
    images_of_classes,
    minority_groups,
    refuse_minority_options,
)
from cissod_bench.splitting.split import Groups, Share, Split
from cissod_bench.splitting.task import Task

MINORITY, FREQUENCY = ("maj", "min"), ("f", "c", "r")
ONE = ("classes",)
"""Groups of a task whose classes are not divided."""

GIVEN: Mapping[str, float] = {"labelled_percent": 100.0, "min_instances": 1}
"""Options of a draw that mean nothing here, and the values that say so."""


def take_given(task: Task, annotations: Mapping[str, Annotations], options: DrawOptions) -> Split:
    """Return the split of parts as they are: images without "root" are D_l with all their boxes, the others D_u.

    Classes are divided by the task's groups: by its list of minority classes, by the images of D_l that show them, or
    not at all.

    Raises:
        DataFault: D_l holds no image or no box.
        UsageFault: an option is given that needs a draw or the boxes of D_u; the minority leaves no other class.
    """
    _refuse_options(task, options)
    data = annotations["train"]
    in_labelled = np.array([root == "" for root in data.roots], np.bool_)[data.image_root]
    if not data.instances().any():
        message = f"{data.path}: the labelled images have no box, so that no class could be learned."
        raise DataFault(message, remedy="name a file with labelled boxes in [labelled]")
    unlabelled, left = thinned(np.flatnonzero(~in_labelled), data.image_ids, options)
    nothing = np.zeros(len(data.box_ids), np.bool_)
    share = Share(
        annotations=data,
        labelled={"D_l": np.flatnonzero(in_labelled)},
        unlabelled=unlabelled,
        shown=~nothing,
        ignored=nothing,
        left_out={NOT_DRAWN: left},
        never_read=left_out_of(data.path),
    )
    groups = _groups(task, data, options)
    options = replace(options, minority=groups.get("min"))
    return Split(options=options, shares=(share,), groups=groups, hidden_known=False)


def _groups(task: Task, data: Annotations, options: DrawOptions) -> Groups:
    if task.groups == FREQUENCY:
        return frequency_groups(data.classes, images_of_classes(data, data.instances()), task.frequency_bounds)
    if task.groups == ONE:
        return {ONE[0]: data.classes}
    rows = minority_rows(options.minority or task.minority, data.classes)
    return minority_groups(data.classes, [data.classes[row] for row in rows])


def _refuse_options(task: Task, options: DrawOptions) -> None:
    """Refuse what needs a draw, or boxes that nobody knows.

    Raises:
        UsageFault: such an option is given.
    """
    if task.groups != MINORITY:
        refuse_minority_options(task, options)
    wanted = {"cover": None, "dm_minority": "drop", **GIVEN}
    for name, usual in wanted.items():
        if getattr(options, name) != usual:
            raise UsageFault(
                f"{task.named} names its labelled and unlabelled images, so nothing is drawn and {option_name(name)} "
                "has no meaning: the boxes of its unlabelled images are unknown.",
                remedy=f"leave {option_name(name)} out, or name one labelled set as [train], from which D_l is drawn",
            )
