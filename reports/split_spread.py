"""How much of a score is the split's: the same training seed on several draws, beside several seeds on one draw."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.averaging import as_text, departing, is_scored, newest, scale, scored_model
from cissod_bench.catalogue import Entry
from cissod_bench.spec import RunRecord
from cissod_bench.table_plan import is_competitor, method_place, method_title, task_layouts
from cissod_bench.tables import DASH, Listing, Report, Runs, Splits

NOTES = (
    "Mean and sample standard deviation of AP in points over k draws of the split (split seeds), all trained with the "
    "same seed; beside it the standard deviation over training seeds on one draw, pooled over the draws that were "
    "trained with several (degrees of freedom in brackets). A new draw changes the training's course as well, so the "
    "first holds the second.",
)
_HEADS = ("Method", "AP", "Seed", "Splits", "Mean", "Std over splits", "Std over seeds")
_OPTIONS = (
    *("cover", "labelled_percent", "min_instances", "minority", "dm_minority", "unlabelled_percent"),
    *("algorithm", "imported"),
)


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
    together: dict[tuple[str, str], list[RunRecord]] = {}
    notes = set()
    for record in records:
        draws = {one.split_sha256 for one in records if one.split_seed == record.split_seed}
        if len(draws) > 1:  # which of them belongs to the others cannot be told
            notes.add(f"Split seed {record.split_seed} is left out: runs have {len(draws)} different draws of it.")
        else:
            together.setdefault((record.method, departing(record)), []).append(record)
    order = sorted(together, key=lambda key: (not is_competitor(methods, key[0]), *method_place(key[0]), key[1]))
    frames, lines = [], []
    for method, settings in order:
        same = [key for key in order if key[0] == method]
        mark = str(same.index((method, settings)) + 1) if len(same) > 1 else ""
        name = method_title(methods, method) + (f" [{mark}]" if mark else "")
        frame = _frame(together[method, settings], columns, mark, name)
        frames += [frame] * bool(len(frame))
        lines += _lines(name, frame)
    if not frames:
        return None
    first = records[0]
    words = f"preset {first.preset}, profile {first.profile}{end}"
    data = pd.concat(frames, ignore_index=True)
    return Listing(f"Spread over splits: {title}", words, _HEADS, tuple(lines), data, 2, tuple(sorted(notes)))


def _frame(records: Sequence[RunRecord], columns: Sequence[str], mark: str, title: str) -> pd.DataFrame:
    """Return a tidy line a training seed that was used on two splits or more, and a column."""
    lines = []
    for seed in sorted({record.seed for record in records}):
        own = [record for record in records if record.seed == seed]
        for column in columns if len(own) > 1 else ():
            aps = [ap for record in own if (ap := record.ap[scored_model(record)].get(column)) is not None]
            pooled, freedom = pooled_std(_by_split(records, column))
            keys = {name: getattr(own[0], name) for name in ("preset", "profile", "task", "method")}
            lines.append(
                {
                    **keys,
                    "mark": mark,
                    "title": title,
                    "seed": seed,
                    "column": column,
                    "splits": len(aps),
                    "mean": statistics.fmean(aps) if aps else None,
                    "std_splits": statistics.stdev(aps) if len(aps) > 1 else None,
                    "std_seeds": pooled,
                    "freedom": freedom,
                }
            )
    return (
        pd.DataFrame(lines).astype(dict.fromkeys(("mean", "std_splits", "std_seeds"), float))
        if lines
        else pd.DataFrame()
    )


def _by_split(records: Sequence[RunRecord], column: str) -> list[list[float]]:
    """Return the AP of every training seed, a list a split."""
    found: dict[str, list[float]] = {}
    for record in records:
        ap = record.ap[scored_model(record)].get(column)
        found.setdefault(record.split_sha256, []).extend([] if ap is None else [ap])
    return list(found.values())


def pooled_std(samples: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """Return sqrt(sum_s sum_i (x_si - mean_s)^2 / v) and its degrees of freedom v = sum_s (n_s - 1); None for v = 0."""
    freedom = sum(len(sample) - 1 for sample in samples if sample)
    squares = sum(statistics.variance(sample) * (len(sample) - 1) for sample in samples if len(sample) > 1)
    return (math.sqrt(squares / freedom) if freedom else None), freedom


def _lines(title: str, frame: pd.DataFrame) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for line in frame.to_dict("records"):
        seeds = DASH if pd.isna(line["std_seeds"]) else f"{line['std_seeds']:.2f} ({line['freedom']})"
        numbers = (_digits(line["mean"], 1), _digits(line["std_splits"], 2), seeds)
        lines.append(("" if lines else title, line["column"], str(line["seed"]), str(line["splits"]), *numbers))
    return lines


def _digits(value: float, decimals: int) -> str:
    return DASH if pd.isna(value) else f"{value:.{decimals}f}"
