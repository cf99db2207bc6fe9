"""What the columns of a score row owe each other: "all" is the mean of the groups, weighted by their scored classes.

A group's AP is the mean over its classes that have a ground-truth box, and so is "all" over every group's classes; a
class without one (AP None) has no weight. Rows that break this were not scored as they say, or misprinted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import scored_model
from cissod_bench.scoring.points import AP, mean_ap

ALL = "all"
EXACT = 1e-6  # points; sums of floats in another order differ by less
ROUNDED = 0.05  # points; half a unit of the one decimal that tables print


@dataclass(frozen=True)
class Break:
    """A score that its groups or classes do not lead to.

    Attributes:
        column: "all" or a group.
        stated: as recorded or printed, points.
        implied: what it should be.
    """

    column: str
    stated: AP
    implied: AP

    def words(self, of: str) -> str:
        """Return "all is 22.8, the class-weighted mean of its groups 23.45"."""
        return f"{self.column} is {_digits(self.stated)}; the {of} is {_digits(self.implied)}"


def weighted_mean(groups: Mapping[str, AP], counts: Mapping[str, int]) -> AP:
    """Return sum_g n_g AP_g / sum_g n_g, points; None where no group is defined.

    Args:
        groups: group -> AP; a group that is None has no scored class.
        counts: group -> its scored classes n_g, >= 0.
    """
    defined = {group: value for group, value in groups.items() if value is not None}
    weight = sum(counts[group] for group in defined)
    return sum(counts[group] * value for group, value in defined.items()) / weight if weight else None


def slack(value: AP) -> float:
    """Return how far a value may be off by its rounding: half a unit of its last decimal where it has three at most.

    One that is written out in full may be off by nothing, one with a single decimal, as printed, by .05.
    """
    decimals = next((n for n in range(1, 4) if value is not None and round(value, n) == value), None)
    return 0.0 if decimals is None else ROUNDED * 10.0 ** (1 - decimals)


def row_break(row: Mapping[str, AP], counts: Mapping[str, int]) -> Break | None:
    """Return what is wrong with a row's "all", given its groups; None where nothing is or can be told.

    Args:
        row: "all" and every group -> AP in points.
        counts: group -> classes.
    """
    groups = {group: row[group] for group in counts if group in row}
    stated, implied = row.get(ALL), weighted_mean(groups, counts)
    if stated is None or implied is None or len(groups) < len(counts):
        return None
    # Where all is printed with one decimal, "all" is off by half a unit and the mean of the groups by as much: .1.
    rounding = slack(stated) + (weighted_mean({group: slack(ap) for group, ap in groups.items()}, counts) or 0.0)
    return Break(ALL, stated, implied) if abs(stated - implied) > rounding + EXACT else None


def record_breaks(record: RunRecord) -> tuple[Break, ...]:
    """Return the columns of a run that are not the mean of its classes, for the model that is scored.

    Where a record has no AP of classes, "all" is held against its groups, weighted by their classes.
    """
    model = scored_model(record)
    columns, classes = record.ap.get(model, {}), record.per_class.get(model, {})
    members = {
        group: [ap for name in names if (ap := classes.get(name)) is not None] for group, names in record.groups.items()
    }
    if not any(name in classes for names in record.groups.values() for name in names):
        counts = {group: len(names) for group, names in record.groups.items()}
        broken = row_break(columns, counts) if any(counts.values()) else None
        return (broken,) if broken else ()
    # The class-weighted mean of the groups is the mean of all scored classes: sum_g n_g (sum_i AP_i / n_g) / sum_g n_g.
    means: dict[str, AP] = {group: mean_ap(aps) for group, aps in members.items()}
    means[ALL] = weighted_mean(means, {group: len(aps) for group, aps in members.items()})
    return tuple(
        Break(column, columns[column], implied)
        for column, implied in means.items()
        if column in columns and _differ(columns[column], implied)
    )


def _differ(stated: AP, implied: AP) -> bool:
    if stated is None or implied is None:
        return stated is not implied
    return abs(stated - implied) > slack(stated) + EXACT


def _digits(value: AP) -> str:
    """Return a value with the decimals it has, seven digits at most."""
    return "undefined" if value is None else f"{round(value, 7):.9g}"
