"""What runs saw, as numbers: errors by type, what groups were taken for, AP by size and AR; means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cissod_bench.figures.confusion import ConfusionPanel
from cissod_bench.looking.seen import Seen
from cissod_bench.reporting.groups import WORDS
from cissod_bench.reporting.tables import UNDEFINED, Listing
from cissod_bench.scoring.by_size import MEASURES
from cissod_bench.scoring.error_types import TYPES
from cissod_bench.scoring.points import AP

ERRORS = (
    "AP50 in points, and the points that mending all errors of a type alone would gain (TIDE, Bolya et al. 2020): "
    "a detection of the wrong class, badly located, both, a second one on the same box, one on background, and a box "
    "that nothing came near. They do not add up. Mean ± sample standard deviation over n training seeds."
)
TAKEN = (
    "Of 100 boxes of a group: found as their class, taken for another class (of which group), or missed; IoU >= "
    "0.5. Each run shows its best-scored detections, as many as there are boxes to find in all images, so that methods "
    "compare whatever their scores; the last number but n is how many of 100 of them lie on nothing. Mean ± sample "
    "standard deviation over n training seeds."
)
SIZES = (
    "AP of objects below 32², from 32² to 96² and above 96² pixels, and AR: the mean of the recalls at IoU .50:.05:.95 "
    "with 1, 10 and 100 detections per image and class; points, as COCO's summary has them. n/a: no box of that size. "
    "Mean ± sample standard deviation over n training seeds."
)


@dataclass(frozen=True)
class Watched:
    """A method with one choice of settings and what its runs saw.

    Attributes:
        method: its name.
        title: as printed, without the number of seeds.
        seen: of its runs, by training seed.
    """

    method: str
    title: str
    seen: tuple[Seen, ...]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group -> its classes."""
        return self.seen[0].run.record.groups


Values = Mapping[str, Mapping[str, AP]]
"""Head of a column -> row -> number."""


def error_listing(watched: Sequence[Watched], title: str, scale: str) -> Listing:
    """Return AP50 and what each type of error costs, a row per method and score column."""

    def numbers(seen: Seen) -> Values:
        return {"AP50": seen.errors.ap50, **{_head(kind): seen.errors.gained[kind] for kind in TYPES}}

    return _listing(f"Types of errors: {title}", scale, watched, numbers, ("AP50", *map(_head, TYPES)), ERRORS)


def taken_listing(watched: Sequence[Watched], title: str, scale: str) -> Listing:
    """Return what the boxes of each group were taken for, a row per method and group."""
    heads = ("Found", *(f"As {WORDS.get(group, group)}" for group in watched[0].groups), "Missed", "On nothing")
    return _listing(f"What boxes were taken for: {title}", scale, watched, _taken, heads, TAKEN)


def size_listing(watched: Sequence[Watched], title: str, scale: str) -> Listing:
    """Return AP by size and AR, a row per method and score column."""
    return _listing(f"AP by size, and AR: {title}", scale, watched, lambda seen: seen.by_size(), MEASURES, SIZES)


def confusion_panel(watched: Watched) -> ConfusionPanel:
    """Return a method's confusion matrix over all its runs, the classes in order of their groups."""
    seen = watched.seen[0]
    place = {name: channel for channel, name in enumerate(seen.truth.class_names)}
    names = [name for of_group in watched.groups.values() for name in of_group]
    rows = [place[name] for name in names]
    counts = sum((own.confusion for own in watched.seen), np.zeros_like(seen.confusion))[rows][:, [*rows, -1]]
    totals = counts.sum(axis=1)
    shares = 100 * counts / np.where(totals > 0, totals, np.nan)[:, None]
    ends = tuple(np.cumsum([len(of_group) for of_group in watched.groups.values()]).tolist())
    boxes = tuple((totals // len(watched.seen)).tolist())
    return ConfusionPanel(f"{watched.title} (n = {len(watched.seen)})", tuple(names), ends, shares, boxes)


def _taken(seen: Seen) -> Values:
    """Return percent of each group's boxes by what they were taken for."""
    counts, columns = seen.confusion, {name: rows for name, rows in seen.columns.items() if name != "all"}
    values: dict[str, dict[str, AP]] = {}
    for group, rows in columns.items():
        of_group = counts[rows]
        total = int(of_group.sum())
        right = int(counts[rows, rows].sum())
        told = {"Found": right, "Missed": int(of_group[:, -1].sum())}
        for other, channels in columns.items():
            told[f"As {WORDS.get(other, other)}"] = int(of_group[:, channels].sum()) - (right if other == group else 0)
        for head, count in told.items():
            values.setdefault(head, {})[group] = 100 * count / total if total else None
        shown = int(np.isin(seen.matching.found.channel[: seen.outcomes.shown], rows).sum())
        lost = int(counts[-1, rows].sum())
        values.setdefault("On nothing", {})[group] = 100 * lost / shown if shown else None
    return values


def _head(kind: str) -> str:
    return kind.capitalize()


@dataclass(frozen=True)
class _Line:
    """A row of a listing: a method and a score column, and of every head a number per run."""

    method: str
    title: str
    column: str
    cells: Mapping[str, Sequence[AP]]
    n: int


def _listing(
    title: str,
    scale: str,
    watched: Sequence[Watched],
    numbers: Callable[[Seen], Values],
    heads: Sequence[str],
    note: str,
) -> Listing:
    """Return a listing whose rows are methods and score columns: mean ± std over the runs."""
    rows = list(_rows(watched, numbers, heads))
    record = watched[0].seen[0].run.record
    keys = {name: getattr(record, name) for name in ("preset", "profile", "split_seed", "task", "split_sha256")}
    data = pd.DataFrame(
        {
            **keys, "method": row.method, "title": row.title, "column": row.column, "measure": head,
            "mean": _mean(row.cells[head]), "std": _std(row.cells[head]), "n": row.n,
        }
        for row in rows
        for head in heads
    )  # fmt: skip
    return Listing(title, scale, ("Method", "Classes", *heads, "n"), _texts(rows, heads), data, labels=2, notes=(note,))


def _texts(rows: Sequence[_Line], heads: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the rows as printed; a method's title stands in the first of its own."""
    before = ["", *(row.title for row in rows)]
    return tuple(
        (row.title if row.title != last else "", row.column, *(_words(row.cells[head]) for head in heads), str(row.n))
        for row, last in zip(rows, before, strict=False)
    )


def _rows(watched: Sequence[Watched], numbers: Callable[[Seen], Values], heads: Sequence[str]) -> Iterator[_Line]:
    for own in watched:
        values = [numbers(seen) for seen in own.seen]
        for column in values[0][heads[0]]:
            cells = {head: [value[head][column] for value in values] for head in heads}
            yield _Line(own.method, own.title, column, cells, len(own.seen))


def _mean(values: Sequence[AP]) -> float:
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else float("nan")


def _std(values: Sequence[AP]) -> float:
    defined = [value for value in values if value is not None]
    return statistics.stdev(defined) if len(defined) > 1 else float("nan")


def _words(values: Sequence[AP]) -> str:
    mean, std = _mean(values), _std(values)
    if np.isnan(mean):
        return UNDEFINED
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ±{std:.1f}"
