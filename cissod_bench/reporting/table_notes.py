"""What has to be said of the runs in a table: settings that differ, scores that do not add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import as_text, changing, run_words, shared
from cissod_bench.reporting.consistency import ALL, record_breaks
from cissod_bench.reporting.tables import DAGGER, Row

Entries = Sequence[tuple[Row, RunRecord]]
"""Runs with the rows they stand in."""


def mark_notes(entries: Entries, titles: Mapping[tuple[str, str], str]) -> list[str]:
    """Return what tells rows apart that differ in their settings only, a sentence a row.

    Args:
        entries: the runs of one table.
        titles: (task, split hash) -> what its columns are called, said where a row means two things.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for row, record in entries:
        key = (record.task, record.split_sha256)
        same = [
            other
            for also, other in entries
            if (also.method, also.variant) == (row.method, row.variant) and (other.task, other.split_sha256) == key
        ]
        if row.mark:
            where = found.setdefault(row.title, {}).setdefault(_words(record, same), [])
            where += [titles[key]] * (titles[key] not in where)
    return [
        f"{title}: {text}." if len(texts) == 1 else f"{title} on {' and '.join(where)}: {text}."
        for title, texts in sorted(found.items())
        for text, where in texts.items()
    ]


def _words(record: RunRecord, same: Sequence[RunRecord]) -> str:
    """Return the values of the settings in which a run differs from others of its method."""
    own, names = changing(record), differing([changing(other) for other in same])
    named = {name for other in same for name in other.departures}  # a record lists what is not the paper's
    return ", ".join(
        f"{name} as in the paper" if name in named - record.departures.keys() else f"{name} {own.get(name, 'unknown')}"
        for name in sorted(names)
    )


def differing(settings: Sequence[Mapping[str, object]]) -> AbstractSet[str]:
    """Return the names whose values are not the same in all settings; a missing one is a value of its own."""
    names = {name for one in settings for name in one}
    return {name for name in names if len({as_text({name: one[name]} if name in one else {}) for one in settings}) > 1}


def between_notes(entries: Entries, titles: Mapping[tuple[str, str], str]) -> list[str]:
    """Return a sentence a block whose methods have no settings in common: it compares methods and settings at once.

    Settings that change no number and a method's own constants are no difference.
    """
    notes = []
    for key, title in titles.items():
        rows: dict[tuple[str, str], list[tuple[str, dict[str, object]]]] = {}
        for row, record in entries:
            if (record.task, record.split_sha256) == key:
                rows.setdefault((row.method, row.variant), []).append((row.title, shared(record)))
        names = sorted(differing([settings for own in rows.values() for _, settings in own]))
        apart = [words for name in names if (words := _apart(name, list(rows.values())))]
        if apart:
            notes.append(f"Rows of {title} differ in settings as well as in methods: {'; '.join(apart)}.")
    return notes


def _apart(name: str, rows: Sequence[Sequence[tuple[str, Mapping[str, object]]]]) -> str:
    """Return which rows have which value of a setting, or "" where one value is common to all methods."""
    values = [{str(settings.get(name, "unknown")) for _, settings in own} for own in rows]
    if set.intersection(*values):
        return ""
    having: dict[str, list[str]] = {}
    for own in rows:
        for title, settings in own:
            where = having.setdefault(str(settings.get(name, "unknown")), [])
            where += [title] * (title not in where)
    return f"{name} " + ", ".join(f"{value} ({', '.join(where)})" for value, where in having.items())


def identity_notes(entries: Entries) -> tuple[list[str], set[tuple[str, ...]]]:
    """Return a sentence a score that the classes of its run do not lead to, and the cells these scores are in.

    A cell is (method, variant, mark, task, split hash, column, "measured").
    """
    notes: list[str] = []
    cells: set[tuple[str, ...]] = set()
    for row, record in entries:
        for one in record_breaks(record):
            of = "class-weighted mean of its groups" if one.column == ALL else "mean of its classes"
            notes.append(f"{DAGGER} {run_words(record)}: {one.words(of)}.")
            cells.add((*row.key, record.task, record.split_sha256, one.column, "measured"))
    return notes, cells
