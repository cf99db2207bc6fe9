"""Tables 4 and 5: the method without some of its parts and with other thresholds; and any other method's variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.reporting.averaging import by_scale, is_scored, newest
from cissod_bench.reporting.paper_tables import PaperTable
from cissod_bench.reporting.table_plan import (
    PAPER,
    READING,
    TablePlan,
    is_competitor,
    method_place,
    method_title,
    repeated,
    task_layouts,
)
from cissod_bench.reporting.tables import Report, Row, Runs, Splits, Table
from cissod_bench.scoring.points import AP

Key = tuple[str, str]  # method, variant


@dataclass(frozen=True)
class Line:
    """A row of Table 4 or 5.

    Attributes:
        title: as printed, or in words where the table has check marks only.
        runs: (method, variant) whose runs stand here, the first that was run; the others have the same settings.
        checks: as printed.
    """

    title: str
    runs: tuple[Key, ...]
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """One of the paper's tables of variants.

    Attributes:
        number: as printed.
        title: what it compares.
        head: above the titles of its lines.
        heads: above the check marks.
        lines: from top to bottom.
    """

    number: str
    title: str
    head: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def keys(self) -> frozenset[Key]:
        """All runs that may stand in it."""
        return frozenset(key for line in self.lines for key in line.runs)

    @property
    def variants(self) -> frozenset[Key]:
        """The variants that are run for its sake."""
        return frozenset(line.runs[0] for line in self.lines if line.runs[0][1])


_METHOD = "ours"
_ALL, _CRS_GBR, _FIXED = (_METHOD, ""), (_METHOD, "crs+gbr"), (_METHOD, "theta-0.9")
ABLATIONS = (
    Ablation(
        "Table 4",
        "Components of the method",
        "Components",
        ("CrS", "GbT", "GbR"),
        (
            # Its first row is Soft Teacher's of Table 1, and printed with the same numbers.
            Line("Soft Teacher", ((_METHOD, "baseline"), ("soft-teacher", "")), ("", "", "")),
            Line("Focal loss", ((_METHOD, "fl"),), ("", "", "FL")),
            Line("CrS", ((_METHOD, "crs"),), ("✓", "", "")),
            Line("GbT", ((_METHOD, "gbt"),), ("", "✓", "")),
            Line("GbR", ((_METHOD, "gbr"),), ("", "", "✓")),
            Line("GbT + GbR", ((_METHOD, "gbr+gbt"),), ("", "✓", "✓")),
            Line("CrS + GbR", (_CRS_GBR, _FIXED), ("✓", "", "✓")),
            Line("CrS + GbT", ((_METHOD, "crs+gbt"),), ("✓", "✓", "")),
            Line("Ours", (_ALL,), ("✓", "✓", "✓")),
        ),
    ),
    Ablation(
        "Table 5",
        "Thresholds",
        "Threshold",
        (),
        (
            Line("θ = 0.5", ((_METHOD, "theta-0.5"),)),
            Line("θ = 0.9", (_FIXED, _CRS_GBR)),  # Table 4's row CrS + GbR, and printed with the same numbers
            Line("θᶜ", ((_METHOD, "theta-c"),)),
            Line("θᵖ", ((_METHOD, "theta-p"),)),
            Line("LabelMatch", ((_METHOD, "labelmatch"),)),
            Line("GbT", (_ALL,)),
        ),
    ),
)


def build(
    runs: Runs,
    splits: Splits = (),
    methods: Mapping[str, Entry] | None = None,
    tasks: Mapping[str, Entry] | None = None,
) -> Report:
    """Return Tables 4 and 5 of each task and scale whose rows were run, then the other variants of each method.

    On the paper's task both are there as soon as a row of either was run, on other tasks when a variant of it was: Soft
    Teacher and the method as it stands are compared in Tables 1-3.

    Args:
        runs: (folder, record); variants that are not done are listed and left out.
        splits: not needed here.
        methods: what the catalogue lists, for titles and the printed numbers of variants.
        tasks: what the catalogue lists, for titles.
    """
    methods = catalogue.list_methods() if methods is None else methods
    tasks = catalogue.list_tasks() if tasks is None else tasks
    finished = [record for _, record in runs if is_scored(record)]
    records = newest(finished)
    tables = [table for at_scale in by_scale(records) for table in _tables(at_scale, methods, tasks)]
    notes = [READING] * bool(tables) + [PAPER] * any(table.in_paper(row) for table in tables for row in table.rows)
    notes += repeated([one for one in finished if one.variant], [one for one in records if one.variant])
    unfinished = tuple((folder, one) for folder, one in runs if one.variant and not is_scored(one))
    return Report("ablation", "Ablations", tuple(tables), (), tuple(notes), unfinished, order=2)


def _tables(records: Sequence[RunRecord], methods: Mapping[str, Entry], tasks: Mapping[str, Entry]) -> list[Table]:
    """Return the tables of one scale, task by task."""
    tables = []
    rows = {key for ablation in ABLATIONS for key in ablation.keys}
    for task, (title, columns) in task_layouts(records, tasks).items():
        own = [record for record in records if record.task == task]
        run = set(map(_key, own))
        for ablation in (*ABLATIONS, *_others(run, methods)):
            in_paper = any(task in _reported(methods, key) for key in ablation.variants)
            if run & (rows if in_paper and ablation.number else ablation.variants):
                number = ablation.number if in_paper else ""
                layout = PaperTable(number, f"{ablation.title}, {title}", {task: title}, columns, {})
                tables.append(_plan(layout, own, methods, ablation).table())
    return tables


def _key(record: RunRecord) -> Key:
    return record.method, record.variant


def _words(key: Key) -> str:
    return "+".join(filter(None, key))


def _reported(methods: Mapping[str, Entry], key: Key) -> Mapping[str, Mapping[str, AP]]:
    """Return what the paper prints of a method's variant: task -> column -> AP."""
    method, variant = key
    literals = methods[method].literals if method in methods else {}
    found: Mapping[str, Mapping[str, AP]] = (
        literals.get("reported_variants", {}).get(variant, {}) if variant else literals.get("reported", {})
    )
    return found


def _others(run: AbstractSet[Key], methods: Mapping[str, Entry]) -> list[Ablation]:
    """Return a table a method whose variants were run and stand in no table of the paper."""
    left = run - {key for ablation in ABLATIONS for key in ablation.keys}
    variants: dict[str, list[str]] = {}
    for method, variant in sorted(left, key=lambda key: (method_place(key[0]), key[1])):
        variants.setdefault(method, []).extend([variant] if variant else [])
    return [
        Ablation(
            "",
            f"Variants of {method_title(methods, method)}",
            "Variant",
            (),
            (
                Line(method_title(methods, method), ((method, ""),)),
                *(Line(variant, ((method, variant),)) for variant in names),
            ),
        )
        for method, names in variants.items()
        if names
    ]


def _plan(
    layout: PaperTable, records: Sequence[RunRecord], methods: Mapping[str, Entry], ablation: Ablation
) -> _AblationPlan:
    run = set(map(_key, records))
    active = {next((key for key in line.runs if key in run), line.runs[0]): line for line in ablation.lines}
    return _AblationPlan(layout, records, methods, ablation, active)


@dataclass(frozen=True)
class _AblationPlan(TablePlan):
    """Rows are the ablation's lines, in its order; ``lines`` names the runs that stand in each."""

    ablation: Ablation
    lines: Mapping[Key, Line]

    def belongs(self, record: RunRecord) -> bool:
        return _key(record) in self.lines

    def named(self, method: str, variant: str = "", mark: str = "") -> Row:
        line = self.lines[method, variant]
        title = line.title + (f" [{mark}]" if mark else "")
        return Row(method, variant, mark, title, is_competitor(self.methods, method), line.checks)

    def rows(self) -> tuple[Row, ...]:
        run = sorted(set(map(self.row, self.own)), key=lambda row: row.key)
        rows: list[Row] = []
        for key in self.lines:
            own, plain = [row for row in run if (row.method, row.variant) == key], self.named(*key)
            # The paper's numbers keep a row of their own where the runs are told apart by their settings.
            rows += [*([plain] if not own or (plain not in own and plain in self._paper) else []), *own]
        return tuple(rows)

    @property
    def _paper(self) -> Mapping[Row, Sequence[AP]]:
        (task,) = self.layout.tasks
        return self.printed(task)

    @property
    def head(self) -> str:
        return self.ablation.head

    @property
    def columns(self) -> tuple[str, ...]:
        return self.ablation.heads

    def printed(self, task: str) -> Mapping[Row, Sequence[AP]]:
        found = {self.named(*key): _reported(self.methods, line.runs[0]).get(task) for key, line in self.lines.items()}
        return {row: [values.get(column) for column in self.layout.columns] for row, values in found.items() if values}

    def notes(self) -> list[str]:
        return [
            f"{line.title}: runs of {_words(key)}, which has the same settings as {_words(line.runs[0])}."
            for key, line in self.lines.items()
            if key != line.runs[0]
        ]
