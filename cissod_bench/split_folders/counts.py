"""What a draw did to the boxes of each class, in words: kept, dropped from D_m, hidden in D_u, too few to learn from.

All numbers are a manifest's, so that ``make-splits``, ``splits show`` and ``splits import`` say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cissod_bench.controls import shown_name
from cissod_bench.errors import first_of
from cissod_bench.split_folders.listing import class_rows
from cissod_bench.splitting.manifest import Manifest

NAMED = 6
"""How many classes a line names; it counts the others."""


def short_classes(manifest: Manifest) -> dict[str, list[str]]:
    """Return group -> names of its classes with fewer boxes in D_l than ``min_instances``, in channel order.

    Groups without such a class are there, too, with an empty list. A draw covers the group "min" alone, or all classes
    where there is none; the majority may fall short without a word from it.
    """
    return {
        group: [name for name in names if manifest.per_class[name].boxes < manifest.min_instances]
        for group, names in manifest.groups.items()
    }


def short_line(manifest: Manifest) -> str:
    """Return which classes of which group have fewer boxes in D_l than the minimum, with their numbers of boxes."""
    parts = []
    for group, names in short_classes(manifest).items():
        counted = [f"{shown_name(name)} {manifest.per_class[name].boxes:,}" for name in names]
        of = f"{len(names)} of {len(manifest.groups[group])}"
        parts.append(f"{shown_name(group)} {of} ({first_of(counted, NAMED)})" if names else f"{shown_name(group)} none")
    least = "1 box" if manifest.min_instances == 1 else f"{manifest.min_instances} boxes"
    return f"classes below {least} in D_l: {', '.join(parts)}"


def loss_lines(manifest: Manifest) -> Iterator[str]:
    """Yield a line that names the classes whose boxes D_m does not show, the greatest share first; none if all show.

    Such boxes are dropped, or ignore regions: what ``--dm-minority`` says. A last line names the way without a draw.
    """
    lines = list(_losses(manifest))
    yield from lines
    if lines:
        yield "  (Sec. 3.1: D_m shows the majority alone; to keep all labels: cissod-bench splits import)"


def _losses(manifest: Manifest) -> Iterator[str]:
    counts_of = manifest.per_class.items()
    losses = {
        "dropped from D_m": {name: counts.dropped_boxes for name, counts in counts_of if counts.dropped_boxes},
        "ignored in D_m": {name: counts.ignored_boxes for name, counts in counts_of if counts.ignored_boxes},
    }
    for what, lost in losses.items():
        if lost:
            share = {name: count / _in_file(manifest, name, count) for name, count in lost.items()}
            told = [
                f"{shown_name(name)} {lost[name]:,} of {_in_file(manifest, name, lost[name]):,}"
                for name in sorted(lost, key=lambda name: -share[name])
            ]
            yield f"{len(lost)} {_classes(len(lost))} with boxes {what}: {first_of(told, NAMED)}"


def percent_lines(manifest: Manifest) -> list[str]:
    """Return how a percentage below 1 was read, which may be meant as a share of 1."""
    percents = {"labelled_percent": manifest.labelled_percent, "unlabelled_percent": manifest.unlabelled_percent}
    return [
        f"{key} is {value:g} % of the images; a share of {value:g} is {key} {100 * value:g}"
        for key, value in percents.items()
        if value < 1 and manifest.was_drawn
    ]


def _in_file(manifest: Manifest, name: str, least: int) -> int:
    """Return the boxes of a class in the data set, where older manifests lack it at least those that are known."""
    return max(manifest.per_class[name].original_boxes or 0, least)


def group_counts(manifest: Manifest) -> Iterator[tuple[str, int, dict[str, int | None]]]:
    """Yield name, number of classes and summed counts of every group.

    The counts have the keys of ``COLUMNS``; None where the manifest does not say it of every class.
    """
    rows = list(class_rows(manifest))
    for group, names in manifest.groups.items():
        of_group = [row for row in rows if row["group"] == group]
        yield group, len(names), {key: _sum([row[key] for row in of_group]) for key in COLUMNS}


COLUMNS = {
    "original_boxes": "in the file",
    "boxes": "kept in D_l",
    "dropped_boxes": "dropped from D_m",
    "ignored_boxes": "ignored in D_m",
    "unlabelled_boxes": "hidden in D_u",
}
"""Counts of boxes of a class in a manifest, and their words."""


def count_lines(manifest: Manifest, *, every_class: bool = False) -> list[str]:
    """Return a table of boxes: a row per group and, if asked for, a row per class below it.

    A column that holds nothing but zeros or unknowns is left out, apart from D_l's.
    """
    rows: list[tuple[str, Mapping[str, int | None]]] = []
    classes = list(class_rows(manifest))
    for group, number, counts in group_counts(manifest):
        rows.append((f"{shown_name(group)}, {number:,} {_classes(number)}", counts))
        if every_class:
            rows += [(f"  {shown_name(row['class'])}", row) for row in classes if row["group"] == group]
    keys = [key for key in COLUMNS if key == "boxes" or any(counts[key] for _, counts in rows)]
    table = [("boxes", *(COLUMNS[key] for key in keys))]
    table += [(name, *(_number(counts[key]) for key in keys)) for name, counts in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(keys) + 1)]
    return ["  ".join(_padded(row, widths)) for row in table]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        yield text.rjust(width) if column else text.ljust(width)


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _classes(number: int) -> str:
    return "class" if number == 1 else "classes"
