"""How much of a score is the split's: the same training seed on several draws, beside several seeds on one draw."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import as_text, is_scored, newest, scale
from cissod_bench.reporting.contenders import OURS, Scores, Side, sides_of
from cissod_bench.reporting.paired_tests import paired_t, sign_flips
from cissod_bench.reporting.table_plan import task_layouts
from cissod_bench.reporting.tables import DASH, Listing, Report, Runs, Splits, p_words

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
    names = {name: getattr(side.records[0], name) for name in ("preset", "profile", "task", "method")}
    return {**names, "mark": side.mark, "other": "", "other_mark": ""}


def _minus(one: Scores, two: Scores) -> Scores:
    """Return one minus two where both have a run on a split with a seed; None where either is undefined or absent."""
    return {
        key: {column: None if (b := two[key].get(column)) is None or a is None else a - b for column, a in own.items()}
        for key, own in one.items()
        if key in two
    }


def build(
    runs: Runs,
    splits: Splits = (),
    methods: Mapping[str, Entry] | None = None,
    tasks: Mapping[str, Entry] | None = None,
) -> Report:
    """Return, for every task, preset and profile, the spread over splits of all methods that were run on several.

    Only draws with the same options are put together, as far as the splits' manifests are there to tell; so are only
    runs with the same settings.

    Args:
        runs: (folder, record); those that are done and no variants are read.
        splits: manifests of the splits that were found.
        methods: what the catalogue lists, for titles.
        tasks: what the catalogue lists, for titles.
    """
    methods = catalogue.list_methods() if methods is None else methods
    tasks = catalogue.list_tasks() if tasks is None else tasks
    options = {one["split_sha256"]: as_text({name: one.get(name) for name in _OPTIONS}) for one in splits}
    records = newest(record for _, record in runs if is_scored(record) and not record.variant)
    groups: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in sorted(records, key=scale):
        drawn = options.get(record.split_sha256, "")
        groups.setdefault((scale(record)[:4], record.task, drawn), []).append(record)
    several = sorted({key[:2] for key in groups if len([one for one in groups if one[:2] == key[:2]]) > 1})
    listings = []
    layouts = task_layouts(records, tasks)
    for (place, task, drawn), own in sorted(groups.items(), key=lambda item: item[0]):
        title, columns = layouts[task]
        end = f"; {_words(drawn)}" if (place, task) in several else ""
        found = _listing(own, methods, columns, title, end)
        listings += [found] if found else []
    return Report("split_spread", "Spread over splits", notes=NOTES * bool(listings), listings=tuple(listings), order=6)


def _words(drawn: str) -> str:
    """Return the options of a draw that are set, as a listing's subtitle tells draws apart."""
    if not drawn:
        return "splits without a manifest"
    return ", ".join(f"{name} {value}" for name, value in json.loads(drawn).items() if value not in (None, [], False))


def _listing(
    records: Sequence[RunRecord], methods: Mapping[str, Entry], columns: Sequence[str], title: str, end: str
) -> Listing | None:
    """Return the spreads of a task at one scale, or None where no method was run on two splits with one seed."""
    kept = []
    notes = set()
    for record in records:
        draws = {one.split_sha256 for one in records if one.split_seed == record.split_seed}
        if len(draws) > 1:  # which of them belongs to the others cannot be told
            notes.add(f"Split seed {record.split_seed} is left out: runs have {len(draws)} different draws of it.")
        else:
            kept.append(record)
    sides = sides_of(kept, methods)
    found = [_frame(side.scores(), columns, _keys(side), side.title) for side in sides]
    for ours in (side for side in sides if side.method == OURS):
        for other in (side for side in sides if side.method != OURS and not ours.apart(side)):
            keys = {**_keys(ours), "other": other.method, "other_mark": other.mark}
            name = f"{ours.title} minus {other.title}"
            found.append(_frame(_minus(ours.scores(), other.scores()), columns, keys, name))
    frames = [frame for frame in found if len(frame)]
    lines = [line for frame in frames for line in _lines(frame)]
    if not frames:
        return None
    first = records[0]
    words = f"preset {first.preset}, profile {first.profile}{end}"
    data = pd.concat(frames, ignore_index=True)
    return Listing(f"Spread over splits: {title}", words, _HEADS, tuple(lines), data, 2, tuple(sorted(notes)))


def _frame(aps: Scores, columns: Sequence[str], keys: Mapping[str, str], title: str) -> pd.DataFrame:
    """Return a tidy line a training seed that was used on two splits or more, and a column."""
    lines = []
    for seed in sorted({seed for _, seed in aps}):
        splits = [split for split, own in aps if own == seed]
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


def _by_split(aps: Scores, column: str) -> list[list[float]]:
    """Return the AP of every training seed, a list a split."""
    found: dict[str, list[float]] = {}
    for (split, _), own in aps.items():
        ap = own.get(column)
        found.setdefault(split, []).extend([] if ap is None else [ap])
    return list(found.values())


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
