"""From runs of one scale to a table: which runs share a cell, the paper's numbers beside them, notes on both.

A report says which rows there are and how they are called (a subclass of ``TablePlan``); what may be averaged and what
has to be said about it is the same for all tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import average, by_scale, is_scored, marks, newest, scale_words, scored_model
from cissod_bench.reporting.consistency import row_break
from cissod_bench.reporting.paper_tables import METHODS, TABLES, PaperTable, class_counts
from cissod_bench.reporting.table_notes import between_notes, group_notes, identity_notes, mark_notes, version_notes
from cissod_bench.reporting.tables import CELL_COLUMNS, DAGGER, Block, Figure, Row, Table
from cissod_bench.scoring.points import AP

READING = (
    "AP in points (COCO, IoU .50:.95), mean ± sample standard deviation over n training seeds on one split. Bold: the "
    "best competitor of those with the most seeds. A dash: nothing ran. n/a: no class of the group has a box to find."
)
NOTHING_RAN = "no run"  # in place of a scale
PAPER = "The second number of a cell is the one the paper prints; a dash: it has none."


@dataclass(frozen=True)
class TablePlan(ABC):
    """One table in the making.

    ``row`` puts a run into a row by asking the subclass for the row so ``named``; ``rows`` lists these and the ones
    that nothing ran for; ``printed`` gives the paper's numbers to rows so named without a mark.

    Attributes:
        layout: tasks, columns and number; its ``rows`` are the subclass's business.
        runs: of one scale on its tasks; those that belong in it may be fewer. None of a blank table.
        methods: what the catalogue lists.
    """

    layout: PaperTable
    runs: Sequence[Run]
    methods: Mapping[str, Entry]

    def belongs(self, run: Run) -> bool:
        """Return whether a run stands in a row of this table."""
        return True

    @abstractmethod
    def named(self, method: str, variant: str = "", mark: str = "") -> Row:
        """Return the row of a method's variant; ``mark`` tells settings apart, where it was run with several."""

    @abstractmethod
    def rows(self) -> tuple[Row, ...]:
        """Return all rows from top to bottom, those that nothing ran for among them."""

    @abstractmethod
    def printed(self, task: str) -> Mapping[Row, Sequence[AP]]:
        """Return the paper's numbers of a task: row -> an AP per column of the layout."""

    def notes(self) -> list[str]:
        """Return what has to be said of these rows."""
        return []

    def figures(self, blocks: Sequence[Block]) -> tuple[Figure, ...]:
        """Return drawings of what lies behind the cells."""
        return ()

    @property
    def head(self) -> str:
        """What stands above the rows' titles."""
        return "Method"

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of the columns that show ``Row.checks``."""
        return ()

    def table(self) -> Table:
        """Return the table."""
        blocks = self._blocks()
        cells = [frame for frame in (self._measured(), self._printed(blocks)) if len(frame)]
        number, title = self.layout.number, self.layout.title
        broken, odd = identity_notes(self._row_of)
        misprinted, paper_odd = self._printed_breaks(blocks)
        titles = {block.key: block.title for block in blocks}
        makers = (group_notes, mark_notes, between_notes, version_notes)
        settings = [note for make in makers for note in make(self._row_of, titles)]
        return Table(
            number or title,
            f"{number}: {title}" if number else title,
            scale_words(self.runs[0].record) if self.runs else NOTHING_RAN,
            blocks,
            self.rows(),
            pd.concat(cells, ignore_index=True)[CELL_COLUMNS],
            (*self.notes(), *self._scale_notes(), *settings, *broken, *misprinted),
            self.figures([block for block in blocks if block.split_sha256]),
            self.columns,
            self.head,
            frozenset(odd | paper_odd),
        )

    @cached_property
    def shown(self) -> list[Run]:
        """The runs that stand in its rows."""
        return [run for run in self.runs if self.belongs(run)]

    @cached_property
    def _row_of(self) -> dict[Run, Row]:
        return {run: self.row(run) for run in self.shown}

    def _blocks(self) -> tuple[Block, ...]:
        blocks = []
        for task, title in self.layout.tasks.items():
            draws = _draws(self.runs, task)
            for draw in draws:
                named = title if len(draws) == 1 else f"{title} ({draw[:8]})"
                shown = columns_of(task, [run.record for run in self.runs if _on_draw(run, task, draw)])
                blocks.append(Block(task, draw, named, tuple(name for name in self.layout.columns if name in shown)))
            if not draws:
                blocks.append(Block(task, "", title, self.layout.columns))
        return tuple(blocks)

    @cached_property
    def _marks(self) -> dict[Run, str]:
        return marks(self.shown)

    def row(self, run: Run) -> Row:
        """Return the row of a run; where its method was run with several settings, they are numbered."""
        return self.named(run.record.method, run.record.variant, self._marks[run])

    def _measured(self) -> pd.DataFrame:
        """Return a tidy line per measured cell: mean, sample standard deviation and number of training seeds."""
        lines = []
        for run in self.shown:
            record = run.record
            model = scored_model(record)
            shared, aps = cell_keys(record, self.row(run)) | {"source": "measured", "model": model}, record.ap[model]
            lines += [shared | {"column": column, "ap": aps[column]} for column in self.layout.columns if column in aps]
        return average(pd.DataFrame(lines)) if lines else pd.DataFrame()

    def _printed(self, blocks: Sequence[Block]) -> pd.DataFrame:
        """Return a tidy line per cell that the paper prints, for every draw of its task, run or not."""
        lines = []
        for block in blocks:
            for row, values in self.printed(block.task).items():
                shared = cell_keys(self.runs[0].record if self.runs else None, row) | {
                    "task": block.task,
                    "split_sha256": block.split_sha256,
                }
                shared |= {"source": "paper", "model": "teacher", "std": None, "n": 0}
                lines += [
                    shared | {"column": column, "mean": value}
                    for column, value in zip(self.layout.columns, values, strict=True)
                ]
        return pd.DataFrame(lines, columns=CELL_COLUMNS).astype({"mean": float, "std": float, "n": int})

    def _scale_notes(self) -> list[str]:
        """Return what keeps the paper's numbers apart from those of a smaller scale."""
        preset = self.runs[0].record.preset if self.runs else "full"
        if preset == "full" or not any(self.printed(task) for task in self.layout.tasks):
            return []
        return [
            f"The paper's numbers are of its full schedule; preset {preset} is a smaller one, and they do not compare."
        ]

    def _printed_breaks(self, blocks: Sequence[Block]) -> tuple[list[str], set[tuple[str, ...]]]:
        """Return a sentence per printed "all" that its groups do not lead to, and the cells of these numbers."""
        notes: list[str] = []
        cells: set[tuple[str, ...]] = set()
        for block in blocks:
            for row, values in self.printed(block.task).items():
                columns = dict(zip(self.layout.columns, values, strict=True))
                broken = row_break(columns, class_counts(block.task))
                if broken:
                    what = broken.words("class-weighted mean of the printed groups")
                    notes.append(f"{DAGGER} {row.title} on {self.layout.tasks[block.task]}, as printed: {what}.")
                    cells.add((*row.key, *block.key, broken.column, "paper"))
        return list(dict.fromkeys(notes)), cells


def reading_notes(tables: Sequence[Table]) -> list[str]:
    """Return how tables are read: nothing without any; the paper's numbers are told of where one of them has some."""
    printed = any(table.in_paper(row) for table in tables for row in table.rows)
    return [READING] * bool(tables) + [PAPER] * printed


def repeated(finished: Sequence[Run], counted: Sequence[Run]) -> list[str]:
    """Return a note on runs that do not count because a newer one has the same cell and training seed."""
    number = len(finished) - len(counted)
    return [f"{number} run(s) repeat a training seed of the same cell; the newest of each counts."] if number else []


class OnSplit(NamedTuple):
    """What was run on one draw of a task at one scale.

    Attributes:
        runs: of it.
        title: the task's.
        columns: the task's score columns.
        suffix: tells draws of the task apart, to stand behind the title or in a file's name: the beginning of the
            split's hash, " (1a2b3c4d)"; "" where the task has one draw.
    """

    runs: list[Run]
    title: str
    columns: Sequence[str]
    suffix: str


def scored_splits(runs: Iterable[Run], tasks: Mapping[str, Entry]) -> Iterator[OnSplit]:
    """Yield what `by_split` does, of every scale, for the newest runs that are done and no variants.

    Args:
        runs: of any state.
        tasks: what the catalogue lists.
    """
    for at_scale in by_scale(newest(run for run in runs if is_scored(run.record) and not run.record.variant)):
        yield from by_split(at_scale, tasks)


def by_split(runs: Sequence[Run], tasks: Mapping[str, Entry]) -> Iterator[OnSplit]:
    """Yield the runs of every task and draw at one scale.

    Args:
        runs: of one scale.
        tasks: what the catalogue lists.
    """
    for task, (title, _) in task_layouts(runs, tasks).items():
        draws = _draws(runs, task)
        for draw in draws:
            on_draw = [run for run in runs if _on_draw(run, task, draw)]
            columns = columns_of(task, [run.record for run in on_draw])
            yield OnSplit(on_draw, title, columns, "" if len(draws) == 1 else f" ({draw[:8]})")


def _on_draw(run: Run, task: str, draw: str) -> bool:
    return (run.record.task, run.record.split_sha256) == (task, draw)


def _draws(runs: Sequence[Run], task: str) -> list[str]:
    """Return the hashes of the splits that a task was run on."""
    return sorted({run.record.split_sha256 for run in runs if run.record.task == task})


def columns_of(task: str, records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the score columns of a task: the paper's, else "all" and every group of these runs.

    Groups belong to the split: where a user divides his classes anew, runs of one task have different ones.
    """
    known = next((table.columns for table in TABLES if task in table.tasks), None)
    # One group of all classes says what "all" says.
    groups = [group for record in records if len(record.groups) > 1 for group in record.groups]
    return known or tuple(dict.fromkeys(("all", *groups)))


def task_layouts(runs: Sequence[Run], tasks: Mapping[str, Entry]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return every task that was run -> its title and score columns, the paper's tasks first and in its order."""
    known = {task: title for table in TABLES for task, title in table.tasks.items()}
    # A record that carries its task's title comes behind one that does not, and stands for the task.
    ordered = sorted((run.record for run in runs), key=lambda record: (record.task, bool(record.title)))
    record_of = {record.task: record for record in ordered}
    layouts = {}
    for task in sorted(record_of, key=lambda task: list(known).index(task) if task in known else len(known)):
        title = known.get(task) or (tasks[task].title if task in tasks else record_of[task].title or task)
        layouts[task] = title, columns_of(task, [run.record for run in runs if run.record.task == task])
    return layouts


def method_place(method: str) -> tuple[int, str]:
    """Return a method's place among rows as a sort key: the paper's order, then all others by name."""
    order = list(METHODS)
    return (order.index(method) if method in order else len(order)), method


def method_title(methods: Mapping[str, Entry], method: str) -> str:
    """Return a method's title: the catalogue's, else the paper's, else its name."""
    return methods[method].title if method in methods else METHODS.get(method, method)


def is_competitor(methods: Mapping[str, Entry], method: str) -> bool:
    """Return whether a method is one of those compared, and no reference row."""
    return bool(methods[method].literals.get("competitor", True)) if method in methods else True


def split_keys(record: RunRecord) -> dict[str, object]:
    """Return the columns of a tidy frame that say at which scale and on which draw a run was."""
    return {name: getattr(record, name) for name in ("preset", "profile", "split_seed", "task", "split_sha256")}


def cell_keys(record: RunRecord | None, row: Row) -> dict[str, object]:
    """Return the columns that say which cell a number belongs to, but for the score column; None: nothing ran."""
    nothing = {"preset": "", "profile": "", "split_seed": None, "task": "", "split_sha256": ""}
    return {
        **(split_keys(record) if record else nothing),
        "method": row.method,
        "variant": row.variant,
        "mark": row.mark,
        "title": row.title,
        "competitor": row.competitor,
    }
