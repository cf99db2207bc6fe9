"""How far a small task may stand in for the paper's: do our rows come in the order of its tables?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from cissod_bench import catalogue
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import as_text, comparable_settings, scale_words
from cissod_bench.reporting.contenders import Side, sides_of
from cissod_bench.reporting.paper_tables import METHODS, TABLES, PaperTable
from cissod_bench.reporting.rank_agreement import DRAWS, exact_p, interval, kendall
from cissod_bench.reporting.table_plan import scored_splits
from cissod_bench.reporting.tables import DASH, Listing, Report, Splits, p_words

NOTES = (
    "Kendall's tau between the methods' mean AP here and the AP that the paper prints: 1 where all pairs of methods "
    "come in the same order, -1 in the opposite one, 0 as by chance. p is the share of all orders whose tau is as far "
    "from 0.",
    f"The interval holds tau in 95 % of {DRAWS:,} draws of the training seeds, each method's drawn anew. It holds the "
    "noise of our seeds alone: the paper prints one number for a method, and other methods could have been compared.",
)
_LEAST = 4  # methods; below, no order is a rare one
_HEADS = ("Beside", "AP", "Methods", "tau", "95 % of draws", "p")


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return, for every scale, task and split with four of the paper's methods or more, tau with its tables.

    Methods count that have the settings of most of them, their own constants aside. A task stands beside the tables
    with the same columns: all, maj, min or all, f, c, r.

    Args:
        runs: of any state; those that are done and no variants are compared.
        splits: not needed here.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    listings: list[Listing] = []
    for on_split, title, columns, suffix in scored_splits(runs, tasks):
        sides = _alike([side for side in sides_of(on_split, methods) if side.method in METHODS])
        frames = [
            _frame(sides, table, task) for table in TABLES if table.columns == tuple(columns) for task in table.tasks
        ]
        if frames := [frame for frame in frames if len(frame)]:
            data = pd.concat(frames, ignore_index=True)
            lines = tuple(line for frame in frames for line in _lines(frame))
            name = f"Order of the methods: {title}{suffix}"
            listings.append(Listing(name, scale_words(sides[0].record), _HEADS, lines, data, labels=2))
    return Report("ranking", "Order of the methods", notes=NOTES * bool(listings), listings=tuple(listings), order=8)


def _alike(sides: Sequence[Side]) -> list[Side]:
    """Return one side per method, those with the settings that most methods have; of several such the first ones."""
    alike: dict[str, dict[str, Side]] = {}
    for side in sides:
        alike.setdefault(as_text(comparable_settings(side.record)), {}).setdefault(side.method, side)
    return list(max(alike.values(), key=len, default={}).values())


def _frame(sides: Sequence[Side], table: PaperTable, task: str) -> pd.DataFrame:
    """Return a tidy line per column; a method without an AP there does not count."""
    keys = {"table": table.number, "beside": task, "title": f"{table.number}, {table.tasks[task]}"}
    lines = []
    for column in table.columns:
        seeds, printed = [], []
        for side in sides:
            aps = [ap for scores in side.aps().values() if (ap := scores.get(column)) is not None]
            known = table.value(task, side.method, column)
            if aps and known is not None:
                seeds.append(aps)
                printed.append(known)
        if len(seeds) >= _LEAST:
            means, theirs = np.array([np.mean(aps) for aps in seeds]), np.array(printed)
            low, high = interval(seeds, theirs) or (math.nan, math.nan)
            numbers = {"tau": float(kendall(means, theirs)), "low": low, "high": high, "p": exact_p(means, theirs)}
            lines.append({**keys, "column": column, "methods": len(seeds), **numbers})
    return pd.DataFrame(lines)


def _lines(frame: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    for place, line in enumerate(frame.to_dict("records")):
        tau, low, high = (DASH if math.isnan(line[name]) else f"{line[name]:+.2f}" for name in ("tau", "low", "high"))
        between = DASH if low == DASH else f"{low} to {high}"
        yield ("" if place else line["title"], line["column"], str(line["methods"]), tau, between, p_words(line["p"]))
