"""Tables 1-3: every method on every sub-task, the paper's row beside ours, and each class's AP behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.figures.class_bars import BarPanel, class_bars
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import average, by_scale, is_scored, newest, scale_words, scored_model
from cissod_bench.reporting.paper_tables import METHODS, TABLES, PaperTable
from cissod_bench.reporting.table_plan import (
    TablePlan,
    cell_keys,
    is_competitor,
    method_place,
    method_title,
    reading_notes,
    repeated,
    task_layouts,
)
from cissod_bench.reporting.tables import Block, Figure, Report, Row, Splits, Table
from cissod_bench.scoring.points import AP

LARGE_CLASSES, CHART_CLASSES = 30, 120  # a drawing of more classes is folded away; of still more, is not read at all

_ROLES = MappingProxyType(
    {  # by what a reference row trains on, the lower bound first
        "labelled": "a reference row, not a competitor",
        "semi": "a reference row, not a competitor",
        "promoted": "a reference row, not a competitor",
        "oracle": "a reference row, not a competitor: it trains with boxes that the others never see",
    }
)


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return Tables 1-3 and one more per task that the paper does not have, each once per scale that was run.

    A cell averages training seeds and nothing else: runs that differ in preset, profile, split seed, split or in a
    setting that can change a number stand in different tables, columns or rows. Variants of methods are not here but
    in the ablations (``reports/ablation.py``). A table that nothing ran for is blank.

    Args:
        runs: of any state; those that are not done are listed and left out.
        splits: not needed here.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    plain = [run for run in runs if not run.record.variant]
    finished = [run for run in plain if is_scored(run.record)]
    counted = newest(finished)
    tables: list[Table] = []
    for at_scale in by_scale(counted):
        for layout in _layouts(at_scale, tasks):
            chosen = [run for run in at_scale if run.record.task in layout.tasks]
            if chosen:
                tables.append(_Comparison(layout, chosen, methods).table())
    filled = {table.name for table in tables}
    blank = tuple(_Comparison(layout, (), methods).table() for layout in TABLES if layout.number not in filled)
    notes = reading_notes(tables)
    notes += repeated(finished, counted)
    unfinished = tuple(run for run in plain if not is_scored(run.record))
    title = "Comparison of methods"
    return Report("comparison", title, tuple(tables), (), tuple(notes), unfinished, order=1, blank=blank)


def _layouts(runs: Sequence[Run], tasks: Mapping[str, Entry]) -> list[PaperTable]:
    """Return the paper's tables, then one of the same layout per task that it does not have."""
    known = {task for table in TABLES for task in table.tasks}
    others = task_layouts([run for run in runs if run.record.task not in known], tasks)
    return [*TABLES, *(PaperTable("", title, {task: title}, columns, {}) for task, (title, columns) in others.items())]


@dataclass(frozen=True)
class _Comparison(TablePlan):
    """Rows are methods: the paper's in its order, what else was run behind them, and the reference rows last."""

    def named(self, method: str, variant: str = "", mark: str = "") -> Row:
        title = method_title(self.methods, method) + (f" [{mark}]" if mark else "")
        return Row(method, variant, mark, title, is_competitor(self.methods, method))

    def rows(self) -> tuple[Row, ...]:
        rows = set(map(self.row, self.shown))
        printed = {method for values in self.layout.rows.values() for method in values}
        run = {row.method for row in rows}
        plain = {row.method for row in rows if not row.mark}  # the row the paper's numbers go to
        # A table of the paper has its rows (Table 3 lacks CReST and DeFRCN), another one those that could be run.
        wanted = printed - plain if printed else set(self.methods) - run
        rows |= {self.named(method) for method in METHODS if method in wanted}
        return tuple(sorted(rows, key=self._place))

    def printed(self, task: str) -> Mapping[Row, Sequence[AP]]:
        return {self.named(method): values for method, values in self.layout.rows.get(task, {}).items()}

    def _place(self, row: Row) -> tuple[object, ...]:
        reference = 0 if row.competitor else 1 + list(_ROLES).index(self._images(row))
        return reference, method_place(row.method), row.key

    def _images(self, row: Row) -> str:
        """Return what the method trains on, a key of ``_ROLES``."""
        return str(self.methods[row.method].literals.get("images", "semi")) if row.method in self.methods else "semi"

    def notes(self) -> list[str]:
        notes = [f"{row.title}: {_ROLES[self._images(row)]}." for row in self.rows() if not row.competitor]
        students = sorted({self.row(run).title for run in self.shown if scored_model(run.record) == "student"})
        if students:
            notes.append(f"{', '.join(students)}: has no teacher, its only model is scored.")
        return notes

    def figures(self, blocks: Sequence[Block]) -> tuple[Figure, ...]:
        return tuple(map(self._figure, blocks))

    def _figure(self, block: Block) -> Figure:
        """Return the AP of every class of a block, methods side by side."""
        runs = [run for run in self.shown if (run.record.task, run.record.split_sha256) == block.key]
        groups = runs[0].record.groups
        lines = []
        for run in runs:
            record = run.record
            model = scored_model(record)
            shared = cell_keys(record, self.row(run)) | {"model": model}
            aps = record.per_class.get(model, {})
            for group, names in groups.items():
                lines += [shared | {"class": name, "group": group, "ap": aps.get(name)} for name in names]
        data = average(pd.DataFrame(lines)) if lines else pd.DataFrame()
        title, scale, count = (
            f"AP of every class: {block.title}",
            scale_words(runs[0].record),
            sum(map(len, groups.values())),
        )
        if not 0 < count <= CHART_CLASSES:
            return Figure(title, scale, f"{count} classes: see the CSV file.", data)
        measured = set(map(self.row, runs))
        drawing = class_bars([_panel(row, data) for row in self.rows() if row in measured], groups)
        caption = "Mean over training seeds; a whisker is one standard deviation."
        return Figure(title, scale, caption, data, drawing, large=count > LARGE_CLASSES)


def _panel(row: Row, data: pd.DataFrame) -> BarPanel:
    of_row = data[(data["method"] == row.method) & (data["variant"] == row.variant) & (data["mark"] == row.mark)]

    def column(name: str) -> dict[str, AP]:
        values = zip(of_row["class"], of_row[name], strict=True)
        return {key: None if pd.isna(value) else float(value) for key, value in values}

    return BarPanel(row.title, column("mean"), column("std"))
