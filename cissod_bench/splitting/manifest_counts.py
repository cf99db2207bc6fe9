"""The numbers of a manifest: images and boxes of D_l and D_u, in all, of each group and of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cissod_bench.annotations.reading import Bools
from cissod_bench.splitting.split import Source, Split


def counts_of(split: Split) -> dict[str, Any]:
    """Return a manifest's numbers: images and boxes of D_l and D_u, in all, of each group and of each class.

    Crowd and ignore regions are no boxes.
    """
    images = {"D_m": 0, "D_s": 0} if split.parted else {}
    left_out: dict[str, int] = {}
    for source in split.sources:
        for name, rows in source.labelled.items() if split.parted else ():
            images[name] = images.get(name, 0) + len(rows)
        for reason, rows in source.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + len(rows)
    in_d_l = _per_class(split, _shown)
    in_d_u = _per_class(split, _hidden)
    others = {
        "original_boxes": _per_class(split, _everything)[1],
        "dropped_boxes": _per_class(split, _dropped)[1],
        "ignored_boxes": _per_class(split, _ignored)[1],
    }
    per_class = {
        name: {
            **_named(in_d_l[:, row], "images", "boxes"),
            **_named(in_d_u[:, row], "unlabelled_images", "unlabelled_boxes"),
            **{key: int(boxes[row]) for key, boxes in others.items()},
        }
        for row, name in enumerate(split.classes)
    }
    held = in_d_l[1][in_d_l[1] > 0]
    labelled = sum(len(rows) for source in split.sources for rows in source.labelled.values())
    return {
        "counts": {
            **(images or {"D_m": 0, "D_s": 0}),
            "labelled": labelled,
            "unlabelled": sum(len(source.unlabelled) for source in split.sources),
        },
        "left_out": {reason: count for reason, count in left_out.items() if count},
        "boxes": {
            "labelled": int(in_d_l[1].sum()),
            "ignored": sum(int(source.ignored.sum()) for source in split.sources),
            "hidden": int(in_d_u[1].sum()),
        },
        "per_group": {
            group: {
                "classes": len(names),
                "labelled": sum(per_class[name]["boxes"] for name in names),
                "hidden": sum(per_class[name]["unlabelled_boxes"] for name in names),
                "below_minimum": [name for name in names if per_class[name]["boxes"] < split.options.min_instances],
            }
            for group, names in split.groups.items()
        },
        "imbalance": round(float(held.max() / held.min()), 2) if len(held) else None,
        "below_minimum": [name for name in _covered(split) if per_class[name]["boxes"] < split.options.min_instances],
        "per_class": per_class,
    }


def _covered(split: Split) -> Sequence[str]:
    """Return the classes of which D_l must hold ``min_instances`` boxes: the minority, or all."""
    return split.groups.get("min", split.classes)


def _named(counts: npt.NDArray[np.int64], *names: str) -> dict[str, int]:
    return dict(zip(names, counts.tolist(), strict=True))


def _shown(source: Source, number: int) -> Bools:
    return source.shown & source.annotations.instances() & ~source.ignored


def _dropped(source: Source, number: int) -> Bools:
    """Return the boxes on images of D_l that D_l does not show."""
    in_labelled = np.zeros(len(source.annotations.image_ids), np.bool_)
    for rows in source.labelled.values():
        in_labelled[rows] = True
    on_labelled: Bools = in_labelled[source.annotations.box_image]
    return on_labelled & ~source.shown & (source.box_class >= 0) & source.annotations.instances()


def _ignored(source: Source, number: int) -> Bools:
    return source.shown & source.ignored & source.annotations.instances()


def _hidden(source: Source, number: int) -> Bools:
    return source.hidden & source.annotations.instances()


def _everything(source: Source, number: int) -> Bools:
    """Return all boxes of the data set that the split's classes are those of."""
    return source.annotations.instances() if number == 0 else np.zeros(len(source.shown), np.bool_)


def _per_class(split: Split, chosen: Callable[[Source, int], Bools]) -> npt.NDArray[np.int64]:
    """Return images with, and number of, the chosen boxes of each class, (2, C)."""
    num = len(split.classes)
    total = np.zeros((2, num), np.int64)
    for number, source in enumerate(split.sources):
        boxes = chosen(source, number)
        box_class = source.box_class[boxes].astype(np.int64)
        pairs = np.unique(source.annotations.box_image[boxes].astype(np.int64) * num + box_class)
        total += np.bincount(pairs % num, minlength=num), np.bincount(box_class, minlength=num)
    return total
