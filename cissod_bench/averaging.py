"""Which runs may stand in one cell, and their mean: the rules every report shares.

Two runs are repetitions of each other when they differ in the training seed only. Task, method, variant, preset,
profile, split seed, the split's hash and every setting that departs from the paper have to be the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

import pandas as pd

from cissod_bench.spec import RunRecord

_PRESETS = ("full", "mini", "smoke")
_PROFILES = ("default", "paper", "official")


def is_scored(record: RunRecord) -> bool:
    """Return whether a run has ended and holds scores."""
    return record.status == "done" and bool(record.ap.get(scored_model(record)))


def scored_model(record: RunRecord) -> str:
    """Return the model whose AP counts: the teacher, as in the paper, or the student where there is no teacher."""
    return "teacher" if record.ap.get("teacher") else "student"


def departing(record: RunRecord) -> str:
    """Return the settings that depart from the paper as text that is equal for repetitions."""
    return json.dumps(record.departures, sort_keys=True, default=str)


def newest(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return one run a training seed of a cell, the one started last: a copied folder must not count twice."""
    kept: dict[tuple[object, ...], RunRecord] = {}
    for record in sorted(records, key=lambda record: record.created):
        run = (record.task, record.split_sha256, record.method, record.variant, record.seed)
        kept[(scale(record), run, departing(record))] = record
    return list(kept.values())


def scale(record: RunRecord) -> tuple[int, str, int, str, int]:
    """Return preset, profile and split seed as a sort key: the full schedule first, unknown names last."""

    def place(name: str, known: Sequence[str]) -> int:
        return known.index(name) if name in known else len(known)

    preset, profile = record.preset, record.profile
    return place(preset, _PRESETS), preset, place(profile, _PROFILES), profile, record.split_seed


def by_scale(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Return the records of each preset, profile and split seed: a table shows one of them."""
    return [list(group) for _, group in groupby(sorted(records, key=scale), key=scale)]


def scale_words(record: RunRecord) -> str:
    """Return the scale as a table's subtitle."""
    return f"preset {record.preset}, profile {record.profile}, split seed {record.split_seed}"


def average(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean, std (of the sample, NaN below two) and n of the column "ap" over rows that agree in all others.

    An AP of None becomes NaN and stays it: it is undefined for every run on the same split.
    """
    keys = [column for column in frame.columns if column != "ap"]
    grouped = frame.astype({"ap": float}).groupby(keys, sort=False, dropna=False)["ap"]
    return grouped.agg(["mean", "std", "size"]).reset_index().rename(columns={"size": "n"})
