"""Ours against every other method, training seed by training seed: differences and paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import by_scale, is_scored, newest, scale_words
from cissod_bench.reporting.contenders import OURS, Side, sides_of
from cissod_bench.reporting.paired_tests import MOST_FLIPPED, least_flip, paired
from cissod_bench.reporting.table_plan import by_split, is_competitor
from cissod_bench.reporting.tables import DASH, Listing, Report, Runs, Splits, p_words

NOTES = (
    "Differences of AP in points, ours minus the other method, over the n training seeds that both were run with, on "
    "one split at one scale; ± is their sample standard deviation. A seed that only one of them has does not count.",
    "p is two-sided: of the paired t test, which takes the differences for normal, and of the exact sign-flip test, "
    "which takes them for symmetric only. With n seeds the latter cannot be below 2^(1 - n): 0.5 with 2, 0.25 with 3, "
    "0.0625 with 5, so with 3 seeds it never shows a difference at the usual 0.05. Neither is corrected for the number "
    "of comparisons.",
)
_HEADS = ("Against", "AP", "n", "Ours", "Other", "Difference", "p (t test)", "p (sign flips)", "least p")


def build(
    runs: Runs,
    splits: Splits = (),
    methods: Mapping[str, Entry] | None = None,
    tasks: Mapping[str, Entry] | None = None,
) -> Report:
    """Return, for every scale, task and split that ours and another method were run on, a test of every column.

    Methods are compared where their settings and numbers of processes are the same; their own constants may differ.

    Args:
        runs: (folder, record); those that are done and no variants are compared.
        splits: not needed here.
        methods: what the catalogue lists, for titles.
        tasks: what the catalogue lists, for titles.
    """
    methods = catalogue.list_methods() if methods is None else methods
    tasks = catalogue.list_tasks() if tasks is None else tasks
    listings: list[Listing] = []
    for at_scale in by_scale(newest(record for _, record in runs if is_scored(record) and not record.variant)):
        for own, title, columns, end in by_split(at_scale, tasks):
            listings += _listing(_sides(own, methods), columns, title + end)
    return Report("paired", "Paired tests", notes=NOTES * bool(listings), listings=tuple(listings), order=5)


def _sides(records: Sequence[RunRecord], methods: Mapping[str, Entry]) -> list[Side]:
    """Return the methods of one split, references named as such."""
    return [
        side if is_competitor(methods, side.method) else replace(side, title=f"{side.title} (reference)")
        for side in sides_of(records, methods)
    ]


def _listing(sides: Sequence[Side], columns: Sequence[str], title: str) -> Iterator[Listing]:
    """Yield a split's comparisons, one listing a choice of our settings."""
    for ours in (side for side in sides if side.method == OURS):
        others = [side for side in sides if side.method != OURS]
        notes, frames, lines = [], [], []
        for other in others:
            if apart := ours.apart(other):
                notes.append(
                    f"{other.title}: not compared, it was run with other settings ({', '.join(sorted(apart))})."
                )
            elif not ours.scores().keys() & other.scores().keys():
                notes.append(f"{other.title}: not compared, no training seed is the same.")
            else:
                frames.append(_frame(ours, other, columns))
                lines += _lines(other.title, frames[-1])
        if others:
            data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
            name = f"Paired tests: {ours.title} against the others, {title}"
            yield Listing(name, scale_words(ours.records[0]), _HEADS, tuple(lines), data, labels=2, notes=tuple(notes))


def _frame(ours: Side, other: Side, columns: Sequence[str]) -> pd.DataFrame:
    """Return a tidy line a column; a seed where either AP is undefined does not count."""
    record, one, two = ours.records[0], ours.scores(), other.scores()
    keys = {name: getattr(record, name) for name in ("preset", "profile", "split_seed", "task", "split_sha256")}
    keys |= {"method": OURS, "mark": ours.mark, "other": other.method, "other_mark": other.mark, "title": other.title}
    lines = []
    for column in columns:
        aps = [(one[key].get(column), two[key].get(column)) for key in sorted(one.keys() & two.keys())]
        pairs = [(a, b) for a, b in aps if a is not None and b is not None]
        found = paired([a - b for a, b in pairs])
        means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)] or [None, None]
        numbers = {"n": found.n, "ours_mean": means[0], "other_mean": means[1], "difference": found.mean}
        numbers |= {"std": found.std, "p_t": found.p_t, "p_flip": found.p_flip}
        lines.append({**keys, "column": column, **numbers, "p_flip_least": least_flip(found.n) if found.n else None})
    floats = ("ours_mean", "other_mean", "difference", "std", "p_t", "p_flip", "p_flip_least")
    return pd.DataFrame(lines).astype(dict.fromkeys(floats, float))


def _lines(title: str, frame: pd.DataFrame) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for line in frame.to_dict("records"):
        spread = "" if pd.isna(line["std"]) else f" ±{line['std']:.1f}"
        difference = DASH if pd.isna(line["difference"]) else f"{line['difference']:+.1f}{spread}"
        p_flip = f"n > {MOST_FLIPPED}" if line["n"] > MOST_FLIPPED else p_words(line["p_flip"])
        words = ("" if lines else title, line["column"], str(line["n"]))
        aps = (_points(line["ours_mean"]), _points(line["other_mean"]), difference)
        lines.append((*words, *aps, p_words(line["p_t"]), p_flip, p_words(line["p_flip_least"])))
    return lines


def _points(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.1f}"
