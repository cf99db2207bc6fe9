"""Tables 4 and 5: the method without some of its parts and with other thresholds; and any other method's variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry
from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.averaging import by_scale, is_scored, newest
from cissod_bench.reporting.paper_tables import PaperTable
from cissod_bench.reporting.table_plan import (
    TablePlan,
    is_competitor,
    method_place,
    method_title,
    reading_notes,
    repeated,
    task_layouts,
)
from cissod_bench.reporting.tables import Report, Row, Splits, Table
from cissod_bench.scoring.points import AP

Key = tuple[str, str]  # method, variant


@dataclass(frozen=True)
class AblationRow:
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
        head: above the titles of its rows.
        heads: above the check marks.
        rows: from top to bottom.
    """

    number: str
    title: str
    head: str
    heads: tuple[str, ...]
    rows: tuple[AblationRow, ...]

    @property
    def keys(self) -> frozenset[Key]:
        """All runs that may stand in it."""
        return frozenset(key for row in self.rows for key in row.runs)

    @property
    def variants(self) -> frozenset[Key]:
        """The variants that are run for its sake."""
        return frozenset(row.runs[0] for row in self.rows if row.runs[0][1])


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
            AblationRow("Soft Teacher", ((_METHOD, "baseline"), ("soft-teacher", "")), ("", "", "")),
            AblationRow("Focal loss", ((_METHOD, "fl"),), ("", "", "FL")),
            AblationRow("CrS", ((_METHOD, "crs"),), ("✓", "", "")),
            AblationRow("GbT", ((_METHOD, "gbt"),), ("", "✓", "")),
            AblationRow("GbR", ((_METHOD, "gbr"),), ("", "", "✓")),
            AblationRow("GbT + GbR", ((_METHOD, "gbr+gbt"),), ("", "✓", "✓")),
            AblationRow("CrS + GbR", (_CRS_GBR, _FIXED), ("✓", "", "✓")),
            AblationRow("CrS + GbT", ((_METHOD, "crs+gbt"),), ("✓", "✓", "")),
            AblationRow("Ours", (_ALL,), ("✓", "✓", "✓")),
        ),
    ),
    Ablation(
        "Table 5",
        "Thresholds",
        "Threshold",
        (),
        (
            AblationRow("θ = 0.5", ((_METHOD, "theta-0.5"),)),
            AblationRow("θ = 0.9", (_FIXED, _CRS_GBR)),  # Table 4's row CrS + GbR, and printed with the same numbers
            AblationRow("θᶜ", ((_METHOD, "theta-c"),)),
            AblationRow("θᵖ", ((_METHOD, "theta-p"),)),
            AblationRow("LabelMatch", ((_METHOD, "labelmatch"),)),
            AblationRow("GbT", (_ALL,)),
        ),
    ),
)


def build(runs: Sequence[Run], splits: Splits = ()) -> Report:
    """Return Tables 4 and 5 of each task and scale whose rows were run, then the other variants of each method.

    On the paper's task both are there as soon as a row of either was run, on other tasks when a variant of it was: Soft
    Teacher and the method as it stands are compared in Tables 1-3.

    Args:
        runs: of any state; variants that are not done are listed and left out.
        splits: not needed here.
    """
    methods, tasks = catalogue.list_methods(), catalogue.list_tasks()
    finished = [run for run in runs if is_scored(run.record)]
    counted = newest(finished)
    tables = [table for at_scale in by_scale(counted) for table in _tables(at_scale, methods, tasks)]
    notes = reading_notes(tables)
    notes += repeated(*([run for run in some if run.record.variant] for some in (finished, counted)))
    unfinished = tuple(run for run in runs if run.record.variant and not is_scored(run.record))
    return Report("ablation", "Ablations", tuple(tables), (), tuple(notes), unfinished, order=2)


def _tables(runs: Sequence[Run], methods: Mapping[str, Entry], tasks: Mapping[str, Entry]) -> list[Table]:
    """Return the tables of one scale, task by task."""
    tables = []
    rows = {key for ablation in ABLATIONS for key in ablation.keys}
    for task, (title, columns) in task_layouts(runs, tasks).items():
        on_task = [run for run in runs if run.record.task == task]
        keys = set(map(_key, on_task))
        for ablation in (*ABLATIONS, *_others(keys, methods)):
            in_paper = any(task in _reported(methods, key) for key in ablation.variants)
            if keys & (rows if in_paper and ablation.number else ablation.variants):
                number = ablation.number if in_paper else ""
                layout = PaperTable(number, f"{ablation.title}, {title}", {task: title}, columns, {})
                tables.append(_plan(layout, on_task, methods, ablation).table())
    return tables


def _key(run: Run) -> Key:
    return run.record.method, run.record.variant


def _words(key: Key) -> str:
    return "+".join(filter(None, key))


def _reported(methods: Mapping[str, Entry], key: Key) -> Mapping[str, Mapping[str, AP]]:
    """Return what the paper prints of a method's variant: task -> column -> AP."""
    method, variant = key
    literals = methods[method].literals if method in methods else {}
    printed: Mapping[str, Mapping[str, AP]] = (
        literals.get("reported_variants", {}).get(variant, {}) if variant else literals.get("reported", {})
    )
    return printed


def _others(keys: AbstractSet[Key], methods: Mapping[str, Entry]) -> list[Ablation]:
    """Return a table per method whose variants were run and stand in no table of the paper."""
    left = keys - {key for ablation in ABLATIONS for key in ablation.keys}
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
                AblationRow(method_title(methods, method), ((method, ""),)),
                *(AblationRow(variant, ((method, variant),)) for variant in names),
            ),
        )
        for method, names in variants.items()
        if names
    ]


def _plan(layout: PaperTable, runs: Sequence[Run], methods: Mapping[str, Entry], ablation: Ablation) -> _AblationPlan:
    draws = _keys_by_draw(runs)
    keys = {key for on_draw in draws.values() for key in on_draw}
    active: dict[Key, AblationRow] = {}
    for row in ablation.rows:
        standing = {_standing(row, on_draw) for on_draw in draws.values()} & keys
        active |= {key: row for key in row.runs if key in (standing or row.runs[:1])}
    return _AblationPlan(layout, runs, methods, ablation, active, draws)


def _keys_by_draw(runs: Sequence[Run]) -> dict[str, set[Key]]:
    """Return hash of the split -> what was run on it."""
    draws: dict[str, set[Key]] = {}
    for run in runs:
        draws.setdefault(run.record.split_sha256, set()).add(_key(run))
    return draws


def _standing(row: AblationRow, keys: AbstractSet[Key]) -> Key:
    """Return the runs that stand in a row on a draw where ``keys`` were run: the first of its own, if any was."""
    return next((key for key in row.runs if key in keys), row.runs[0])


@dataclass(frozen=True)
class _AblationPlan(TablePlan):
    """Rows are the ablation's, in its order.

    ``active`` names the runs that stand in each: one entry per row, and several where draws of the split have different
    ones of its runs. ``draws`` holds what was run on each draw.
    """

    ablation: Ablation
    active: Mapping[Key, AblationRow]
    draws: Mapping[str, AbstractSet[Key]]

    def belongs(self, run: Run) -> bool:
        key, on_draw = _key(run), self.draws[run.record.split_sha256]
        return key in self.active and key == _standing(self.active[key], on_draw)

    def named(self, method: str, variant: str = "", mark: str = "") -> Row:
        wanted = self.active[method, variant]
        title = wanted.title + (f" [{mark}]" if mark else "")
        return Row(method, variant, mark, title, is_competitor(self.methods, method), wanted.checks)

    def rows(self) -> tuple[Row, ...]:
        measured = sorted(set(map(self.row, self.shown)), key=lambda row: row.key)
        rows: list[Row] = []
        for key in self.active:
            marked, plain = [row for row in measured if (row.method, row.variant) == key], self.named(*key)
            # The paper's numbers keep a row of their own where the runs are told apart by their settings.
            alone = not marked or (plain not in marked and plain in self._paper)
            rows += [*([plain] if alone else []), *marked]
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
        numbers = {self.named(*key): _reported(self.methods, row.runs[0]).get(task) for key, row in self.active.items()}
        return {row: [aps.get(column) for column in self.layout.columns] for row, aps in numbers.items() if aps}

    def notes(self) -> list[str]:
        return [
            f"{row.title}: runs of {_words(key)}, which has the same settings as {_words(row.runs[0])}."
            for key, row in self.active.items()
            if key != row.runs[0]
        ]
