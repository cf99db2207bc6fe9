"""Which runs may stand in one cell, and their mean: the rules every report shares.

Two runs are repetitions of each other when they differ in the training seed only. Task, method, variant, preset,
profile, split seed, the split's hash, the number of processes and every setting that can change a number have to be the
same.

From the outside in: a table shows one ``scale`` (preset, profile, split seed), a block of columns one draw of one task
(the split's hash), a row one method with its variant and its ``marks`` (what the user called it, or a number for its
choice of settings), and the seeds of a cell are the ``newest`` runs of all that.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import count, groupby
from types import MappingProxyType
from typing import Any

import pandas as pd

from cissod_bench.contract.settings import FULL
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.records.run_folder import Run

_PRESETS = ("full", "fine-tune", "photo", "mini", "smoke")
_PROFILES = ("default", "paper", "official")
# As a record holds them: a setting that a record of an older version lacks had this value all the same.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(json.loads(json.dumps(asdict(FULL))))

WORLD_SIZE = "world_size"  # number of processes
WEIGHTS = "weights"  # the beginning of the hash of the pretrained backbone's file; its path says not what is in it


def is_scored(record: RunRecord) -> bool:
    """Return whether a run has ended and holds scores."""
    return record.status == "done" and bool(record.ap.get(scored_model(record)))


def scored_model(record: RunRecord) -> str:
    """Return the model whose AP counts: the teacher, as in the paper, or the student where there is no teacher."""
    return "teacher" if record.ap.get("teacher") else "student"


def deciding_settings(record: RunRecord) -> dict[str, Any]:
    """Return all that can change a run's numbers but its seeds: name -> the value used.

    These are its settings, its method's constants that depart from the paper, the number of processes ("world_size")
    and the pretrained weights ("weights"), where the record knows them, and the model that is scored ("scored").
    ``FREE_SETTINGS`` change no number.
    """
    used = {**_DEFAULTS, **record.settings}
    used |= {name: pair[-1] if pair else None for name, pair in record.departures.items()}
    used |= {WORLD_SIZE: record.hardware[WORLD_SIZE]} if WORLD_SIZE in record.hardware else {}
    used |= {WEIGHTS: record.backbone["sha256"][:12]} if record.backbone.get("sha256") else {}
    return {name: value for name, value in used.items() if name not in FREE_SETTINGS} | {"scored": scored_model(record)}


def comparable_settings(record: RunRecord) -> dict[str, Any]:
    """Return what two methods need in common to be compared: settings, processes, weights, not their own constants.

    A setting counts as it was set, also where the method uses another value, as ours does of theta in short runs.
    """
    names = {*_DEFAULTS, WORLD_SIZE, WEIGHTS}
    decisive = {name: value for name, value in deciding_settings(record).items() if name in names}
    return {name: record.settings.get(name, value) for name, value in decisive.items()}


def as_text(settings: Mapping[str, Any]) -> str:
    """Return settings as text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=str)


def repetition_key(record: RunRecord) -> str:
    """Return `deciding_settings` as text: equal for runs that are repetitions of each other."""
    return as_text(deciding_settings(record))


def marks(runs: Sequence[Run]) -> dict[Run, str]:
    """Return run -> what tells it from other runs of its method on its split: its name, or a number, or both, or "".

    Runs have a name where the user gave one or changed settings. Runs of one name, or of none, that differ in settings
    all the same are numbered from 1, in an order that depends on the settings alone; a number that is another run's
    name is passed over.
    """
    settings = [repetition_key(run.record) for run in runs]
    places = [(*_place(run.record), run.record.name) for run in runs]
    choices: dict[tuple[str, ...], set[str]] = {}
    for place, text in zip(places, settings, strict=True):
        choices.setdefault(place, set()).add(text)
    numbers: dict[tuple[tuple[str, ...], str], str] = {}
    for place, texts in choices.items():
        free = free_numbers([other[-1] for other in choices if other[:-1] == place[:-1]])
        numbers |= {(place, text): next(free) if len(texts) > 1 else "" for text in sorted(texts)}
    return {
        run: " ".join(filter(None, (run.record.name, numbers[place, text])))
        for run, place, text in zip(runs, places, settings, strict=True)
    }


def free_numbers(names: Collection[str]) -> Iterator[str]:
    """Yield "1", "2" and so on without those that are the name of a run: a user may call one so."""
    return (str(number) for number in count(1) if str(number) not in names)


def _place(record: RunRecord) -> tuple[str, ...]:
    """Return what was run and on which draw, whatever the settings and the seed."""
    return record.task, record.split_sha256, record.method, record.variant


def newest(runs: Iterable[Run]) -> list[Run]:
    """Return one run per training seed of a cell, the one started last: a copied folder must not count twice."""
    kept: dict[tuple[object, ...], Run] = {}
    for run in sorted(runs, key=lambda run: run.record.created):
        record = run.record
        kept[(scale(record), _place(record), record.name, record.seed, repetition_key(record))] = run
    return list(kept.values())


def scale(record: RunRecord) -> tuple[int, str, int, str, int]:
    """Return preset, profile and split seed as a sort key: the full schedule first, unknown names last."""

    def place(name: str, known: Sequence[str]) -> int:
        return known.index(name) if name in known else len(known)

    preset, profile = record.preset, record.profile
    return place(preset, _PRESETS), preset, place(profile, _PROFILES), profile, record.split_seed


def by_scale(runs: Iterable[Run]) -> list[list[Run]]:
    """Return the runs of each preset, profile and split seed: a table shows one of them."""

    def scale_of(run: Run) -> tuple[object, ...]:
        return scale(run.record)

    return [list(at_scale) for _, at_scale in groupby(sorted(runs, key=scale_of), key=scale_of)]


def scale_words(record: RunRecord) -> str:
    """Return the scale as a table's subtitle."""
    return f"preset {record.preset}, profile {record.profile}, split seed {record.split_seed}"


def file_words(record: RunRecord) -> str:
    """Return task and scale as the names of files have them, "toy_mini-default_split0"."""
    return f"{record.task}_{record.preset}-{record.profile}_split{record.split_seed}"


def method_words(record: RunRecord) -> str:
    """Return the method with its variant, "ours+gbr"."""
    return f"{record.method}+{record.variant}" if record.variant else record.method


def run_words(record: RunRecord) -> str:
    """Return what a note calls a run."""
    named = f" [{record.name}]" if record.name else ""
    return f"{method_words(record)}{named} on {record.task}, {scale_words(record)}, seed {record.seed}"


def average(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean, std (of the sample, NaN below two) and n of the column "ap" over rows that agree in all others.

    An AP of None becomes NaN. It is undefined for every run on the same split, so it stays NaN with the n of its runs;
    a run that alone lacks the column does not count.
    """
    keys = [column for column in frame.columns if column != "ap"]
    grouped = frame.astype({"ap": float}).groupby(keys, sort=False, dropna=False)["ap"]
    means = grouped.agg(["mean", "std", "size", "count"]).reset_index()
    means["n"] = means["count"].where(means["count"] > 0, means["size"])
    return means.drop(columns=["size", "count"])
