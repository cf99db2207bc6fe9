"""Tables 1-3: every method on every sub-task, the paper's row beside ours, and each class's AP behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from cissod_bench import catalogue
from cissod_bench.averaging import average, by_scale, departing, is_scored, newest, scale_words, scored_model
from cissod_bench.catalogue import Entry
from cissod_bench.charts import Panel, class_bars
from cissod_bench.paper_tables import CAVEATS, METHODS, TABLES, PaperTable
from cissod_bench.spec import AP, RunRecord
from cissod_bench.tables import CELL_COLUMNS, Block, Figure, Report, Row, Runs, Table

LARGE_CLASSES, CHART_CLASSES = 30, 120  # a drawing of more classes is folded away; of still more, is not read at all

READING = (
    "AP in points (COCO, IoU .50:.95), mean ± sample standard deviation over n training seeds on one split. Bold: the "
    "best competitor. A dash: nothing ran. n/a: no class of the group has a box to find."
)
PAPER = "The second number of a cell is the one the paper prints; a dash: it has none."
_ROLES = MappingProxyType(
    {  # by what a reference row trains on, the lower bound first
        "labelled": "a reference row, not a competitor",
        "semi": "a reference row, not a competitor",
        "oracle": "a reference row, not a competitor: it trains with boxes that the others never see",
    }
)


def build(runs: Runs, methods: Mapping[str, Entry] | None = None, tasks: Mapping[str, Entry] | None = None) -> Report:
    """Return Tables 1-3, and one more a task the paper does not have, one of each a scale that was run.

    A cell averages training seeds and nothing else: runs that differ in preset, profile, split seed, split or in a
    setting that departs from the paper stand in different tables, columns or rows.

    Args:
        runs: (folder, record); those that are not done are listed and left out.
        methods: what the catalogue lists, for titles and the mark of reference rows.
        tasks: what the catalogue lists, for titles.
    """
    methods = catalogue.list_methods() if methods is None else methods
    tasks = catalogue.list_tasks() if tasks is None else tasks
    finished = [record for _, record in runs if is_scored(record)]
    records = newest(finished)
    tables: list[Table] = []
    for at_scale in by_scale(records):
        for layout in _layouts(at_scale, tasks):
            chosen = [record for record in at_scale if record.task in layout.tasks]
            if chosen:
                tables.append(_Plan(layout, chosen, methods).table())
    notes = [READING] + [PAPER] * any(table.in_paper(row) for table in tables for row in table.rows)
    if len(finished) > len(records):
        notes.append(
            f"{len(finished) - len(records)} run(s) repeat a training seed of the same cell; the newest of each counts."
        )
    unfinished = tuple((folder, record) for folder, record in runs if not is_scored(record))
    return Report("comparison", "Comparison of methods", tuple(tables), notes=tuple(notes), unfinished=unfinished)


def _layouts(records: Sequence[RunRecord], tasks: Mapping[str, Entry]) -> list[PaperTable]:
    """Return the paper's tables, then one of the same layout a task that it does not have."""
    known = {task for table in TABLES for task in table.tasks}
    # A record that carries its task's title comes behind one that does not, and stands for the task.
    ordered = sorted(records, key=lambda record: (record.task, bool(record.title)))
    others = {record.task: record for record in ordered if record.task not in known}
    return [
        *TABLES,
        *(
            PaperTable("", title, {task: title}, tuple(dict.fromkeys(("all", *record.groups))), {})
            for task, record in others.items()
            for title in [tasks[task].title if task in tasks else record.title or task]
        ),
    ]


@dataclass(frozen=True)
class _Plan:
    """One table in the making: the layout, the runs of one scale that belong in it, and the methods' titles."""

    layout: PaperTable
    records: Sequence[RunRecord]
    methods: Mapping[str, Entry]

    def table(self) -> Table:
        blocks = self._blocks()
        cells = [frame for frame in (self._measured(), self._printed(blocks)) if len(frame)]
        number, title = self.layout.number, self.layout.title
        return Table(
            number or title,
            f"{number}: {title}" if number else title,
            scale_words(self.records[0]),
            blocks,
            self._rows(),
            pd.concat(cells, ignore_index=True)[CELL_COLUMNS],
            self._notes(),
            tuple(self._figure(block) for block in blocks if block.split_sha256),
        )

    def _blocks(self) -> tuple[Block, ...]:
        blocks = []
        for task, title in self.layout.tasks.items():
            draws = sorted({record.split_sha256 for record in self.records if record.task == task})
            for draw in draws:
                named = title if len(draws) == 1 else f"{title} ({draw[:8]})"
                blocks.append(Block(task, draw, named, self.layout.columns))
            if not draws:
                blocks.append(Block(task, "", title, self.layout.columns))
        return tuple(blocks)

    def _variants(self, record: RunRecord) -> list[str]:
        """Return the settings with which a record's method was run on its split, in a fixed order."""
        same = (record.task, record.split_sha256, record.method, record.variant)
        return sorted({departing(o) for o in self.records if (o.task, o.split_sha256, o.method, o.variant) == same})

    def _row(self, record: RunRecord) -> Row:
        """Return the row of a record; where its method was run with several settings, they are numbered."""
        settings = self._variants(record)
        mark = "" if len(settings) == 1 else str(settings.index(departing(record)) + 1)
        return self._named(record.method, record.variant, mark)

    def _named(self, method: str, variant: str = "", mark: str = "") -> Row:
        entry = self.methods.get(method)
        title = entry.title if entry else METHODS.get(method, method)
        title += (f" ({variant})" if variant else "") + (f" [{mark}]" if mark else "")
        return Row(method, variant, mark, title, bool(entry.literals.get("competitor", True)) if entry else True)

    def _rows(self) -> tuple[Row, ...]:
        """Return the paper's rows in its order, what else was run behind them, and the reference rows last."""
        rows = set(map(self._row, self.records))
        printed = {method for values in self.layout.rows.values() for method in values}
        run = {row.method for row in rows if not row.variant}
        plain = {row.method for row in rows if not row.variant and not row.mark}  # the row the paper's numbers go to
        rows |= {self._named(method) for method in METHODS if method in (printed - plain) | (set(self.methods) - run)}
        return tuple(sorted(rows, key=self._place))

    def _place(self, row: Row) -> tuple[object, ...]:
        order = list(METHODS)
        reference = 0 if row.competitor else 1 + list(_ROLES).index(self._images(row))
        return reference, order.index(row.method) if row.method in order else len(order), row.key

    def _images(self, row: Row) -> str:
        """Return what the method trains on, a key of ``_ROLES``."""
        return str(self.methods[row.method].literals.get("images", "semi")) if row.method in self.methods else "semi"

    def _measured(self) -> pd.DataFrame:
        """Return a tidy line a measured cell: mean, sample standard deviation and number of training seeds."""
        lines = []
        for record in self.records:
            model = scored_model(record)
            shared = _keys(record, self._row(record)) | {"source": "measured", "model": model}
            lines += [shared | {"column": column, "ap": record.ap[model].get(column)} for column in self.layout.columns]
        return average(pd.DataFrame(lines))

    def _printed(self, blocks: Sequence[Block]) -> pd.DataFrame:
        """Return a tidy line a cell the paper prints, for every draw of its task and for tasks nothing ran on."""
        lines = []
        for block in blocks:
            for method in self.layout.rows.get(block.task, {}):
                shared = _keys(self.records[0], self._named(method)) | {
                    "task": block.task,
                    "split_sha256": block.split_sha256,
                }
                shared |= {"source": "paper", "model": "teacher", "std": None, "n": 0}
                lines += [
                    shared | {"column": c, "mean": self.layout.value(block.task, method, c)}
                    for c in self.layout.columns
                ]
        return pd.DataFrame(lines, columns=CELL_COLUMNS).astype({"mean": float, "std": float, "n": int})

    def _notes(self) -> tuple[str, ...]:
        notes = [f"{row.title}: {_ROLES[self._images(row)]}." for row in self._rows() if not row.competitor]
        students = sorted({self._row(record).title for record in self.records if scored_model(record) == "student"})
        if students:
            notes.append(f"{', '.join(students)}: has no teacher, its only model is scored.")
        if self.layout.rows and self.records[0].preset != "full":
            notes.append(
                f"The paper's numbers are of its full schedule; preset {self.records[0].preset} is a smaller one, and "
                "they do not compare."
            )
        notes += [
            f"{METHODS[method]} on {self.layout.tasks[task]}: {text}."
            for (task, method), text in CAVEATS.items()
            if task in self.layout.tasks
        ]
        return (*notes, *self._mark_notes())

    def _mark_notes(self) -> list[str]:
        """Return what tells rows apart that differ in their settings only."""
        notes = {}
        for record in self.records:
            settings = [json.loads(text) for text in self._variants(record)]
            if len(settings) > 1:
                row, own = self._row(record), json.loads(departing(record))
                differing = sorted(
                    {key for one in settings for other in settings for key in one if one.get(key) != other.get(key)}
                )
                used = [f"{key} {_used(own[key])}" if key in own else f"{key} as in the paper" for key in differing]
                notes[row.title] = f"{row.title}: {', '.join(used)}."
        return [notes[title] for title in sorted(notes)]

    def _figure(self, block: Block) -> Figure:
        """Return the AP of every class of a block, methods side by side."""
        records = [record for record in self.records if (record.task, record.split_sha256) == block.key]
        groups = records[0].groups
        lines = []
        for record in records:
            model = scored_model(record)
            shared = _keys(record, self._row(record)) | {"model": model}
            aps = record.per_class.get(model, {})
            for group, names in groups.items():
                lines += [shared | {"class": name, "group": group, "ap": aps.get(name)} for name in names]
        data = average(pd.DataFrame(lines)) if lines else pd.DataFrame()
        title, scale, count = (
            f"AP of every class: {block.title}",
            scale_words(records[0]),
            sum(map(len, groups.values())),
        )
        if not 0 < count <= CHART_CLASSES:
            return Figure(title, scale, f"{count} classes: see the CSV file.", "", data)
        run = set(map(self._row, records))
        drawing = class_bars([_panel(row, data) for row in self._rows() if row in run], groups)
        caption = "Mean over training seeds; a whisker is one standard deviation."
        return Figure(title, scale, caption, drawing, data, large=count > LARGE_CLASSES)


def _used(change: Sequence[object]) -> object:
    """Return the value used, of a departure as [the paper's value, the value used]."""
    return change[-1] if change else "unknown"


def _keys(record: RunRecord, row: Row) -> dict[str, object]:
    """Return the columns that say which cell a number belongs to, but for the score column."""
    return {
        "preset": record.preset,
        "profile": record.profile,
        "split_seed": record.split_seed,
        "task": record.task,
        "split_sha256": record.split_sha256,
        "method": row.method,
        "variant": row.variant,
        "mark": row.mark,
        "title": row.title,
        "competitor": row.competitor,
    }


def _panel(row: Row, data: pd.DataFrame) -> Panel:
    own = data[(data["method"] == row.method) & (data["variant"] == row.variant) & (data["mark"] == row.mark)]

    def column(name: str) -> dict[str, AP]:
        return {
            key: None if pd.isna(value) else float(value) for key, value in zip(own["class"], own[name], strict=True)
        }

    return Panel(row.title, column("mean"), column("std"))
