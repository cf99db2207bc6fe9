"""Ours against every other method, training seed by training seed: differences and paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import scale_words
from cissod_bench.reporting.contenders import OURS, Side, sides_of
from cissod_bench.reporting.paired_tests import MOST_FLIPPED, least_flip, paired
from cissod_bench.reporting.table_plan import is_competitor, scored_splits, split_keys
from cissod_bench.reporting.tables import DASH, Listing, Report, Splits, p_words

NOTES = (
    "Differences of AP in points, ours minus the other method, over the n training seeds that both were run with, on "
    "one split at one scale; ± is their sample standard deviation. A seed that only one of them has does not count.",
    "p is two-sided: of the paired t test, which takes the differences for normal, and of the exact sign-flip test, "
    "which takes them for symmetric only. With n seeds the latter cannot be below 2^(1 - n): 0.5 with 2, 0.25 with 3, "
    "0.0625 with 5, so with 3 seeds it never shows a difference at the usual 0.05. Neither is corrected for the number "
    "of comparisons.",
)
_HEADS = ("Against", "AP", "n", "Ours", "Other", "Difference", "p (t test)", "p (sign flips)", "least p")


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return, for every scale, task and split that ours and another method were run on, a test of every column.

    Methods are compared where their settings and numbers of processes are the same; their own constants may differ.

    Args:
        runs: of any state; those that are done and no variants are compared.
        splits: not needed here.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    listings: list[Listing] = []
    for on_split, title, columns, suffix in scored_splits(runs, tasks):
        listings += _listings(_sides(on_split, methods), columns, title + suffix)
    return Report("paired", "Paired tests", notes=NOTES * bool(listings), listings=tuple(listings), order=5)


def _sides(runs: Sequence[Run], methods: Mapping[str, Entry]) -> list[Side]:
    """Return the methods of one split, references named as such."""
    return [
        side if is_competitor(methods, side.method) else replace(side, title=f"{side.title} (reference)")
        for side in sides_of(runs, methods)
    ]


def _listings(sides: Sequence[Side], columns: Sequence[str], title: str) -> Iterator[Listing]:
    """Yield a split's comparisons, one listing per choice of our settings."""
    for ours in (side for side in sides if side.method == OURS):
        others = [side for side in sides if side.method != OURS]
        notes, frames, lines = [], [], []
        for other in others:
            if apart := ours.apart(other):
                notes.append(
                    f"{other.title}: not compared, it was run with other settings ({', '.join(sorted(apart))})."
                )
            elif not ours.aps().keys() & other.aps().keys():
                notes.append(f"{other.title}: not compared, no training seed is the same.")
            else:
                frames.append(_frame(ours, other, columns))
                lines += _lines(other.title, frames[-1])
        if others:
            data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
            name = f"Paired tests: {ours.title} against the others, {title}"
            yield Listing(name, scale_words(ours.record), _HEADS, tuple(lines), data, labels=2, notes=tuple(notes))


def _frame(ours: Side, other: Side, columns: Sequence[str]) -> pd.DataFrame:
    """Return a tidy line per column; a seed where either AP is undefined does not count."""
    our_aps, other_aps = ours.aps(), other.aps()
    both = sorted(our_aps.keys() & other_aps.keys())
    keys = split_keys(ours.record) | {"method": OURS, "mark": ours.mark}
    keys |= {"other": other.method, "other_mark": other.mark, "title": other.title}
    lines = []
    for column in columns:
        aps = [(our_aps[key].get(column), other_aps[key].get(column)) for key in both]
        pairs = [(a, b) for a, b in aps if a is not None and b is not None]
        test = paired([a - b for a, b in pairs])
        means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)] or [None, None]
        numbers = {"n": test.n, "ours_mean": means[0], "other_mean": means[1], "difference": test.mean}
        numbers |= {"std": test.std, "p_t": test.p_t, "p_flip": test.p_flip}
        lines.append({**keys, "column": column, **numbers, "p_flip_least": least_flip(test.n) if test.n else None})
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
