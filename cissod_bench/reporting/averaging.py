"""Which runs may stand in one cell, and their mean: the rules every report shares.

Two runs are repetitions of each other when they differ in the training seed only. Task, method, variant, preset,
profile, split seed, the split's hash, the number of processes and every setting that can change a number have to be the
same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from types import MappingProxyType
from typing import Any

import pandas as pd

from cissod_bench.contract.settings import FULL
from cissod_bench.records.record import FREE_SETTINGS, RunRecord

_PRESETS = ("full", "mini", "smoke")
_PROFILES = ("default", "paper", "official")
# As a record holds them: a setting that a record of an older version lacks had this value all the same.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(json.loads(json.dumps(asdict(FULL))))

WORLD_SIZE = "world_size"  # number of processes


def is_scored(record: RunRecord) -> bool:
    """Return whether a run has ended and holds scores."""
    return record.status == "done" and bool(record.ap.get(scored_model(record)))


def scored_model(record: RunRecord) -> str:
    """Return the model whose AP counts: the teacher, as in the paper, or the student where there is no teacher."""
    return "teacher" if record.ap.get("teacher") else "student"


def changing(record: RunRecord) -> dict[str, Any]:
    """Return all that can change a run's numbers but its seeds: name -> the value used.

    These are its settings, its method's constants that depart from the paper, the number of processes ("world_size",
    where the record knows it) and the model that is scored ("scored"). ``FREE_SETTINGS`` change no number.
    """
    used = {**_DEFAULTS, **record.settings}
    used |= {name: pair[-1] if pair else None for name, pair in record.departures.items()}
    used |= {WORLD_SIZE: record.hardware[WORLD_SIZE]} if WORLD_SIZE in record.hardware else {}
    return {name: value for name, value in used.items() if name not in FREE_SETTINGS} | {"scored": scored_model(record)}


def shared(record: RunRecord) -> dict[str, Any]:
    """Return what methods have to have in common to be compared: settings and processes, not the methods' constants."""
    return {name: value for name, value in changing(record).items() if name in _DEFAULTS or name == WORLD_SIZE}


def as_text(settings: Mapping[str, Any]) -> str:
    """Return settings as text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=str)


def departing(record: RunRecord) -> str:
    """Return all that can change a run's numbers as text that is equal for repetitions."""
    return as_text(changing(record))


def marks(records: Sequence[RunRecord]) -> dict[int, str]:
    """Return id(record) -> a number where a method was run with several settings on a split, else "".

    The numbers count from 1 in an order that depends on the settings alone.
    """
    texts = [departing(record) for record in records]
    rows = [(record.task, record.split_sha256, record.method, record.variant) for record in records]
    seen: dict[tuple[str, ...], set[str]] = {}
    for row, text in zip(rows, texts, strict=True):
        seen.setdefault(row, set()).add(text)
    return {
        id(record): "" if len(seen[row]) == 1 else str(sorted(seen[row]).index(text) + 1)
        for record, row, text in zip(records, rows, texts, strict=True)
    }


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


def run_words(record: RunRecord) -> str:
    """Return what a note calls a run."""
    method = f"{record.method}+{record.variant}" if record.variant else record.method
    return f"{method} on {record.task}, {scale_words(record)}, seed {record.seed}"


def average(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean, std (of the sample, NaN below two) and n of the column "ap" over rows that agree in all others.

    An AP of None becomes NaN. It is undefined for every run on the same split, so it stays NaN with the n of its runs;
    a run that alone lacks the column does not count.
    """
    keys = [column for column in frame.columns if column != "ap"]
    grouped = frame.astype({"ap": float}).groupby(keys, sort=False, dropna=False)["ap"]
    found = grouped.agg(["mean", "std", "size", "count"]).reset_index()
    found["n"] = found["count"].where(found["count"] > 0, found["size"])
    return found.drop(columns=["size", "count"])
