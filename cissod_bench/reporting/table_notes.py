"""What has to be said of the runs in a table: settings and versions that differ, scores that do not add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from cissod_bench.errors import first_of
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import as_text, comparable_settings, deciding_settings, run_words
from cissod_bench.reporting.consistency import ALL, record_breaks
from cissod_bench.reporting.tables import DAGGER, Row

PROGRAM = "cissod-bench"
"""What ``RunRecord.versions`` calls this program."""

_NAMED = 5  # classes of a group that a note names at most

RowOf = Mapping[Run, Row]
"""Run of a table -> the row it stands in."""


def mark_notes(row_of: RowOf, titles: Mapping[tuple[str, str], str]) -> list[str]:
    """Return what tells rows apart that differ in their settings only, a sentence per row.

    Args:
        row_of: the runs of one table.
        titles: (task, split hash) -> what its columns are called, said where a row means two things.
    """
    words_of: dict[str, dict[str, list[str]]] = {}
    for run, row in row_of.items():
        block = _block(run)
        same = [
            record
            for record, its_row in _of_block(row_of, block)
            if (its_row.method, its_row.variant) == (row.method, row.variant)
        ]
        if row.mark:
            where = words_of.setdefault(row.title, {}).setdefault(_words(run.record, same), [])
            where += [titles[block]] * (titles[block] not in where)
    return [
        f"{title}: {text}." if len(texts) == 1 else f"{title} on {' and '.join(where)}: {text}."
        for title, texts in sorted(words_of.items())
        for text, where in texts.items()
        if text  # a run with a name, and no other to differ from
    ]


def _block(run: Run) -> tuple[str, str]:
    """Return the key of the block a run belongs to: its task and draw."""
    return run.record.task, run.record.split_sha256


def _of_block(row_of: RowOf, block: tuple[str, str]) -> list[tuple[RunRecord, Row]]:
    return [(run.record, row) for run, row in row_of.items() if _block(run) == block]


def _words(record: RunRecord, same: Sequence[RunRecord]) -> str:
    """Return the values of the settings in which a run differs from others of its method."""
    values, names = deciding_settings(record), differing([deciding_settings(other) for other in same])
    departing = {name for other in same for name in other.departures}  # a record lists what is not the paper's
    as_in_paper = departing - record.departures.keys()
    return ", ".join(
        f"{name} as in the paper" if name in as_in_paper else f"{name} {values.get(name, 'unknown')}"
        for name in sorted(names)
    )


def differing(choices: Sequence[Mapping[str, object]]) -> AbstractSet[str]:
    """Return the names whose values are not the same in all choices; a missing one is a value of its own."""
    names = {name for settings in choices for name in settings}
    return {name for name in names if len({_value_text(name, settings) for settings in choices}) > 1}


def _value_text(name: str, settings: Mapping[str, object]) -> str:
    return as_text({name: settings[name]} if name in settings else {})


def between_notes(row_of: RowOf, titles: Mapping[tuple[str, str], str]) -> list[str]:
    """Return a sentence per block whose methods have no settings in common: it compares methods and settings at once.

    Settings that change no number and a method's own constants are no difference.
    """
    notes = []
    for block, title in titles.items():
        rows: dict[tuple[str, str], list[tuple[str, dict[str, object]]]] = {}
        for record, row in _of_block(row_of, block):
            rows.setdefault((row.method, row.variant), []).append((row.title, comparable_settings(record)))
        names = sorted(differing([settings for choices in rows.values() for _, settings in choices]))
        apart = [words for name in names if (words := _apart(name, list(rows.values())))]
        if apart:
            notes.append(f"Rows of {title} differ in settings as well as in methods: {'; '.join(apart)}.")
    return notes


def _apart(name: str, rows: Sequence[Sequence[tuple[str, Mapping[str, object]]]]) -> str:
    """Return which rows have which value of a setting, or "" where one value is common to all methods."""
    values = [{str(settings.get(name, "unknown")) for _, settings in choices} for choices in rows]
    if set.intersection(*values):
        return ""
    having: dict[str, list[str]] = {}
    for choices in rows:
        for title, settings in choices:
            where = having.setdefault(str(settings.get(name, "unknown")), [])
            where += [title] * (title not in where)
    return f"{name} " + ", ".join(f"{value} ({', '.join(where)})" for value, where in having.items())


def version_notes(row_of: RowOf, titles: Mapping[tuple[str, str], str]) -> list[str]:
    """Return a sentence per block whose runs are of several versions of this program, in one row or in several."""
    notes = []
    for block, title in titles.items():
        having: dict[str, list[str]] = {}
        for record, row in _of_block(row_of, block):
            where = having.setdefault(record.versions.get(PROGRAM, "unknown"), [])
            where += [row.title] * (row.title not in where)
        if len(having) > 1:
            told = ", ".join(f"{version} ({', '.join(where)})" for version, where in sorted(having.items()))
            moved = 'what moved between them stands in CHANGELOG.md under "Numbers"'
            notes.append(f"Runs of {title} are of several versions of {PROGRAM}: {told}; {moved}.")
    return notes


def group_notes(row_of: RowOf, titles: Mapping[tuple[str, str], str]) -> list[str]:
    """Return a sentence per block in which a group of one name has not the same classes in all runs.

    Parts that a user gives keep their hash whatever the groups are, so runs from before and after an edit of the task's
    file share a block.
    """
    notes = []
    for block, title in titles.items():
        classes: dict[str, list[frozenset[str]]] = {}
        for record, _ in _of_block(row_of, block):
            for group, names in record.groups.items():
                classes.setdefault(group, []).append(frozenset(names))
        apart = {
            group: sorted(frozenset.union(*choices) - frozenset.intersection(*choices))
            for group, choices in classes.items()
        }
        told = [f"{group} ({first_of(names, _NAMED)})" for group, names in apart.items() if names]
        if told:
            notes.append(
                f'Runs of {title} were scored with other groups under one name, so compare "all" alone. '
                f"Not in all runs' groups: {', '.join(told)}."
            )
    return notes


def identity_notes(row_of: RowOf) -> tuple[list[str], set[tuple[str, ...]]]:
    """Return a sentence per score that the classes of its run do not lead to, and the cells these scores are in.

    A cell is (method, variant, mark, task, split hash, column, "measured").
    """
    notes: list[str] = []
    cells: set[tuple[str, ...]] = set()
    for run, row in row_of.items():
        for broken in record_breaks(run.record):
            mean = "class-weighted mean of its groups" if broken.column == ALL else "mean of its classes"
            notes.append(f"{DAGGER} {run_words(run.record)}: {broken.words(mean)}.")
            cells.add((*row.key, *_block(run), broken.column, "measured"))
    return notes, cells
