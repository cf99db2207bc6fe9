"""How much of a score is the split's: the same training seed on several draws, beside several seeds on one draw."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import as_text, is_scored, newest, scale
from cissod_bench.reporting.contenders import OURS, ApByRun, Side, sides_of
from cissod_bench.reporting.paired_tests import paired_t, sign_flips
from cissod_bench.reporting.table_plan import columns_of, task_layouts
from cissod_bench.reporting.tables import DASH, Listing, Report, Splits, p_words
from cissod_bench.scoring.points import AP

NOTES = (
    "Mean and sample standard deviation of AP in points over k draws of the split (split seeds), all trained with the "
    "same seed; beside it the standard deviation over training seeds on one draw, pooled over the draws that were "
    "trained with several (degrees of freedom in brackets). A new draw changes the training's course as well, so the "
    "first holds the second.",
    "Rows of ours minus another method hold the differences split by split, of runs with the same training seed and "
    "settings; p is two-sided, of the paired t test and the exact sign-flip test over the k splits. With 5 splits the "
    "latter cannot be below 0.0625.",
)
_HEADS = (
    *("Method", "AP", "Seed", "Splits", "Mean", "Std over splits", "Std over seeds"),
    *("p (t test)", "p (sign flips)"),
)
_OPTIONS = (
    *("cover", "labelled_percent", "min_instances", "minority", "dm_minority", "unlabelled_percent"),
    *("algorithm", "imported"),
)


def _keys(side: Side) -> dict[str, str]:
    """Return what a tidy line calls a method."""
    names = {name: getattr(side.record, name) for name in ("preset", "profile", "task", "method")}
    return {**names, "mark": side.mark, "other": "", "other_mark": ""}


def _minus(ours: ApByRun, other: ApByRun) -> ApByRun:
    """Return ours minus other where both have a run on a split with a seed; None where either is undefined or lacks."""
    return {
        key: {column: _difference(ap, other[key].get(column)) for column, ap in aps.items()}
        for key, aps in ours.items()
        if key in other
    }


def _difference(ours: AP, other: AP) -> AP:
    return None if ours is None or other is None else ours - other


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return, for every task, preset and profile, the spread over splits of all methods that were run on several.

    Only draws with the same options are put together, as far as the splits' manifests are there to tell; so are only
    runs with the same settings.

    Args:
        runs: of any state; those that are done and no variants are read.
        splits: manifests of the splits that were found.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    options = {split.split_sha256: as_text(dict.fromkeys(_OPTIONS) | split.held(*_OPTIONS)) for split in splits}
    counted = newest(run for run in runs if is_scored(run.record) and not run.record.variant)
    alike: dict[tuple[Any, ...], list[Run]] = {}
    for run in sorted(counted, key=lambda run: scale(run.record)):
        drawn = options.get(run.record.split_sha256, "")
        alike.setdefault((scale(run.record)[:4], run.record.task, drawn), []).append(run)
    several = {place for place, number in Counter(key[:2] for key in alike).items() if number > 1}
    listings = []
    layouts = task_layouts(counted, tasks)
    for (at_scale, task, drawn), comparable in sorted(alike.items(), key=lambda item: item[0]):
        title, columns = layouts[task][0], columns_of(task, [run.record for run in comparable])
        end = f"; {_words(drawn)}" if (at_scale, task) in several else ""
        listing = _listing(comparable, methods, columns, title, end)
        listings += [listing] if listing else []
    return Report("split_spread", "Spread over splits", notes=NOTES * bool(listings), listings=tuple(listings), order=6)


def _words(drawn: str) -> str:
    """Return the options of a draw that are set, as a listing's subtitle tells draws apart."""
    if not drawn:
        return "splits without a manifest"
    return ", ".join(f"{name} {value}" for name, value in json.loads(drawn).items() if value not in (None, [], False))


def _listing(
    runs: Sequence[Run], methods: Mapping[str, Entry], columns: Sequence[str], title: str, end: str
) -> Listing | None:
    """Return the spreads of a task at one scale, or None where no method was run on two splits with one seed."""
    draws: dict[int, set[str]] = {}
    for run in runs:
        draws.setdefault(run.record.split_seed, set()).add(run.record.split_sha256)
    # Of several draws with one seed, which belongs to the others cannot be told.
    unclear = {seed: len(hashes) for seed, hashes in draws.items() if len(hashes) > 1}
    left_out = "Split seed {} is left out: runs have {} different draws of it."
    notes = [left_out.format(seed, number) for seed, number in unclear.items()]
    sides = sides_of([run for run in runs if run.record.split_seed not in unclear], methods)
    frames = [_frame(side.aps(), columns, _keys(side), side.title) for side in sides]
    for ours in (side for side in sides if side.method == OURS):
        for other in (side for side in sides if side.method != OURS and not ours.apart(side)):
            keys = {**_keys(ours), "other": other.method, "other_mark": other.mark}
            name = f"{ours.title} minus {other.title}"
            frames.append(_frame(_minus(ours.aps(), other.aps()), columns, keys, name))
    frames = [frame for frame in frames if len(frame)]
    lines = [line for frame in frames for line in _lines(frame)]
    if not frames:
        return None
    first = runs[0].record
    words = f"preset {first.preset}, profile {first.profile}{end}"
    data = pd.concat(frames, ignore_index=True)
    return Listing(f"Spread over splits: {title}", words, _HEADS, tuple(lines), data, 2, tuple(sorted(notes)))


def _frame(aps: ApByRun, columns: Sequence[str], keys: Mapping[str, str], title: str) -> pd.DataFrame:
    """Return a tidy line per training seed that was used on two splits or more, and a column."""
    lines = []
    for seed in sorted({seed for _, seed in aps}):
        splits = [split for split, used in aps if used == seed]
        for column in columns if len(splits) > 1 else ():
            values = [ap for split in splits if (ap := aps[split, seed].get(column)) is not None]
            pooled, freedom = pooled_std(_by_split(aps, column))
            lines.append(
                {
                    **keys,
                    "title": title,
                    "seed": seed,
                    "column": column,
                    "splits": len(values),
                    "mean": statistics.fmean(values) if values else None,
                    "std_splits": statistics.stdev(values) if len(values) > 1 else None,
                    "std_seeds": pooled,
                    "freedom": freedom,
                    "p_t": paired_t(values) if keys["other"] else None,
                    "p_flip": sign_flips(values) if keys["other"] else None,
                }
            )
    floats = ("mean", "std_splits", "std_seeds", "p_t", "p_flip")
    return pd.DataFrame(lines).astype(dict.fromkeys(floats, float)) if lines else pd.DataFrame()


def _by_split(aps: ApByRun, column: str) -> list[list[float]]:
    """Return the AP of every training seed, a list per split."""
    samples: dict[str, list[float]] = {}
    for (split, _), scores in aps.items():
        ap = scores.get(column)
        samples.setdefault(split, []).extend([] if ap is None else [ap])
    return list(samples.values())


def pooled_std(samples: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """Return sqrt(sum_s sum_i (x_si - mean_s)^2 / v) and its degrees of freedom v = sum_s (n_s - 1); None for v = 0."""
    freedom = sum(len(sample) - 1 for sample in samples if sample)
    squares = sum(statistics.variance(sample) * (len(sample) - 1) for sample in samples if len(sample) > 1)
    return (math.sqrt(squares / freedom) if freedom else None), freedom


def _lines(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for line in frame.to_dict("records"):
        seeds = DASH if pd.isna(line["std_seeds"]) else f"{line['std_seeds']:.2f} ({line['freedom']})"
        mean = _digits(line["mean"], "+.1f" if line["other"] else ".1f")
        numbers = (mean, _digits(line["std_splits"], ".2f"), seeds, p_words(line["p_t"]), p_words(line["p_flip"]))
        lines.append(("" if lines else line["title"], line["column"], str(line["seed"]), str(line["splits"]), *numbers))
    return lines


def _digits(value: float, form: str) -> str:
    return DASH if pd.isna(value) else f"{value:{form}}"
