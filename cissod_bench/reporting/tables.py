"""What a report hands to a renderer: tables of scores, figures, and the runs they were made from.

Every table is a tidy pandas frame (a line per cell, numbers as numbers) with the order of its rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.galleries import Drawn, Gallery
from cissod_bench.scoring.points import AP
from cissod_bench.splitting.manifest import Manifest

Splits = Sequence[Manifest]
"""Manifests of splits."""

Files = Mapping[str, str]
"""File name -> text."""

FIGURES = "figures"  # the folder of the figures for print, beside the other files

DASH = "–"  # nothing ran
DAGGER = "†"  # behind a number that the others of its row do not lead to
UNDEFINED = "n/a"  # it ran, and no class of the group has a ground-truth box

CELL_COLUMNS = [
    *("preset", "profile", "split_seed", "task", "split_sha256"),
    *("method", "variant", "mark", "title", "competitor"),
    *("column", "source", "model", "mean", "std", "n"),
]


def p_words(value: float) -> str:
    """Return a p value as printed; a dash where it is NaN."""
    if math.isnan(value):
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


@dataclass(frozen=True)
class Block:
    """The columns of one task on one draw of its split.

    Attributes:
        task: the task's name.
        split_sha256: the draw; "" where nothing ran.
        title: what stands above the columns.
        columns: score columns from left to right, "all" first.
    """

    task: str
    split_sha256: str
    title: str
    columns: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What tells blocks of a table apart."""
        return self.task, self.split_sha256


@dataclass(frozen=True)
class Row:
    """A method as it was run.

    Attributes:
        method: its name.
        variant: its variant, "" for the method as it stands.
        mark: a name or a number where rows differ in their settings only (a note says in which), else "".
        title: as printed.
        competitor: False for the reference rows, which stand apart and are never the best.
        checks: check marks of the parts that are on, below ``Table.heads``.
    """

    method: str
    variant: str
    mark: str
    title: str
    competitor: bool = True
    checks: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells rows of a table apart."""
        return self.method, self.variant, self.mark


@dataclass(frozen=True)
class ScoreCell:
    """One score, measured and printed in the paper; AP in points.

    Attributes:
        mean: over training seeds; None where nothing ran or the AP is undefined.
        std: sample standard deviation over training seeds; None below two of them.
        n: training seeds.
        paper: the paper's number; None where it prints none.
        best: the highest measured mean among the competitors with the most training seeds.
        paper_best: the highest printed number.
        odd: the measured score does not follow from its classes in one of the runs; a note names it.
        paper_odd: the printed number does not follow from the groups; a note says what does.
    """

    mean: AP = None
    std: AP = None
    n: int = 0
    paper: AP = None
    best: bool = False
    paper_best: bool = False
    odd: bool = False
    paper_odd: bool = False

    @property
    def measured(self) -> str:
        """The mean as text: one decimal as in the paper, a dash where nothing ran."""
        if self.n == 0:
            return DASH
        return UNDEFINED if self.mean is None else f"{self.mean:.1f}"

    @property
    def spread(self) -> str:
        """The standard deviation as text, "" below two seeds."""
        return "" if self.std is None else f"±{self.std:.1f}"

    @property
    def text(self) -> str:
        """Mean and spread, "23.6 ±0.4"."""
        return f"{self.measured} {self.spread}".rstrip()

    @property
    def sign(self) -> str:
        """What stands behind the mean, a dagger where a note explains it."""
        return DAGGER if self.odd else ""

    @property
    def paper_sign(self) -> str:
        """What stands behind the printed number."""
        return DAGGER if self.paper_odd else ""

    @property
    def printed(self) -> str:
        """The paper's number as text, a dash where it has none."""
        return DASH if self.paper is None else f"{self.paper:.1f}"


@dataclass(frozen=True)
class Figure:
    """A drawing with the numbers behind it.

    Attributes:
        title: what it shows.
        scale: preset, profile and split seed in words.
        caption: how to read it.
        data: the tidy frame it was drawn from.
        drawing: draws it (``figures/drawing.py``); None where it would be too large to read.
        large: better folded away until it is asked for.
    """

    title: str
    scale: str
    caption: str
    data: pd.DataFrame
    drawing: Drawn | None = None
    large: bool = False

    @cached_property
    def svg(self) -> str:
        """The drawing for the page, safe to embed: every name in it is escaped; "" where there is none."""
        return self.drawing.page() if self.drawing else ""

    @property
    def stem(self) -> str:
        """What its files for print are called, without place and ending; "" where it has none."""
        return self.drawing.stem if self.drawing else ""

    @property
    def files(self) -> Callable[[str], Mapping[str, bytes]] | None:
        """What draws it for print: "png", "svg" or "pdf" -> file name -> bytes; None where only the page shows it."""
        return self.drawing.files if self.drawing and self.drawing.stem else None


@dataclass(frozen=True)
class Table:
    """A table of one scale (preset, profile, split seed), which no cell mixes with another.

    Attributes:
        name: the paper's number ("Table 1") or the task's title.
        title: what it compares.
        scale: preset, profile and split seed in words.
        blocks: column blocks from left to right.
        rows: rows from top to bottom, reference rows last.
        cells: the tidy frame, columns ``CELL_COLUMNS``; "source" is "measured" or "paper".
        notes: what a reader has to know, a sentence each.
        figures: drawings of what lies behind its cells.
        heads: above the check marks of its rows; none where rows have none.
        head: above the titles of its rows.
        odd: cells that their groups or classes do not lead to, (*row.key, *block.key, column, source).
    """

    name: str
    title: str
    scale: str
    blocks: tuple[Block, ...]
    rows: tuple[Row, ...]
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    heads: tuple[str, ...] = ()
    head: str = "Method"
    odd: frozenset[tuple[str, ...]] = frozenset()

    @cached_property
    def _values(self) -> dict[tuple[object, ...], tuple[AP, AP, int]]:
        keys = (self.cells[key] for key in ("method", "variant", "mark", "task", "split_sha256", "column", "source"))
        numbers = (self.cells[key] for key in ("mean", "std", "n"))
        pairs = zip(zip(*keys, strict=True), zip(*numbers, strict=True), strict=True)
        return {key: (_ap(mean), _ap(std), int(n)) for key, (mean, std, n) in pairs}

    def _value(self, row: Row, block: Block, column: str, source: str) -> tuple[AP, AP, int]:
        return self._values.get((*row.key, *block.key, column, source), (None, None, 0))

    def _is_top(self, row: Row, block: Block, column: str, source: str) -> bool:
        """Return whether a value, as printed, is the highest of two or more competitors with the most seeds."""
        values = [self._value(other, block, column, source) for other in self.rows if other.competitor]
        most = max((n for mean, _, n in values if mean is not None), default=0)
        compared = [round(mean, 1) for mean, _, n in values if mean is not None and n == most]
        mean, _, n = self._value(row, block, column, source)
        if not row.competitor or mean is None or n < most:
            return False
        return len(compared) > 1 and round(mean, 1) == max(compared)

    def cell(self, row: Row, block: Block, column: str) -> ScoreCell:
        """Return the cell at a place; an empty one where nothing ran."""
        mean, std, n = self._value(row, block, column, "measured")
        paper = self._value(row, block, column, "paper")[0]
        best, paper_best = (self._is_top(row, block, column, source) for source in ("measured", "paper"))
        odd, paper_odd = ((*row.key, *block.key, column, source) in self.odd for source in ("measured", "paper"))
        return ScoreCell(mean, std, n, paper, best, paper_best, odd, paper_odd)

    def in_paper(self, row: Row) -> bool:
        """Return whether the paper prints any cell of a row."""
        return any(self.cell(row, block, column).paper is not None for block in self.blocks for column in block.columns)

    def with_numbers(self) -> Table:
        """Return the table without the rows that nothing ran for and the paper prints nothing of, and their notes."""
        run = {row for row in self.rows if any(self.seeds(row, block) for block in self.blocks)}
        idle = [row for row in self.rows if row not in run and not self.in_paper(row)]
        about = tuple(f"{row.title}: " for row in idle)
        notes = tuple(note for note in self.notes if not (about and note.startswith(about)))
        return replace(self, rows=tuple(row for row in self.rows if row not in idle), notes=notes)

    @property
    def has_spread(self) -> bool:
        """Whether any cell has two training seeds or more."""
        return bool(self.cells["std"].notna().any())

    def seeds(self, row: Row, block: Block) -> int:
        """Return the number of training seeds behind a row of a block."""
        return self._value(row, block, block.columns[0], "measured")[2]


@dataclass(frozen=True)
class Listing:
    """A table of other numbers than scores, as text, with the tidy frame behind it.

    Attributes:
        title: what it shows.
        scale: preset, profile and split seed in words.
        heads: above its columns.
        lines: its rows from top to bottom, a text per column.
        data: the numbers.
        labels: columns from the left that hold words; the others hold numbers.
        notes: what a reader has to know, a sentence each.
    """

    title: str
    scale: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    data: pd.DataFrame
    labels: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Tables and figures made by one file of ``reports/``.

    Attributes:
        name: what its files are called.
        title: heading.
        tables: in the order of reading.
        figures: those that belong to no table, in the order of reading.
        notes: how to read the tables.
        unfinished: runs that were met and not averaged.
        order: its place among the reports, ascending; the paper's own come first.
        listings: tables of other numbers than scores, below the tables.
        blank: the paper's tables that nothing ran for, shown when they are asked for.
        galleries: pictures, below the figures.
    """

    name: str
    title: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    unfinished: tuple[Run, ...] = ()
    order: int = 100
    listings: tuple[Listing, ...] = ()
    blank: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = ()

    @property
    def numbers(self) -> list[pd.DataFrame]:
        """The tidy frames of its tables and listings."""
        return [table.cells.assign(table=table.name) for table in self.tables] + [
            listing.data.assign(table=listing.title) for listing in self.listings
        ]

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """File stem -> tidy frame of all tables and listings, and of all figures where there are any."""
        figures = [*(figure for table in self.tables for figure in table.figures), *self.figures]
        drawn = [figure.data.assign(figure=figure.title) for figure in figures if len(figure.data)]
        frames_of = {self.name: self.numbers, f"{self.name}_figures": drawn}
        return {stem: pd.concat(frames, ignore_index=True) for stem, frames in frames_of.items() if frames}


def draw_figures(reports: Sequence[Report], kind: str) -> Mapping[str, bytes]:
    """Return every figure that is drawn for print, file name -> bytes of a PNG or SVG file."""
    drawn = (figure.files for report in reports for figure in report.figures if figure.files)
    return {f"{FIGURES}/{name}": data for files in drawn for name, data in files(kind).items()}


def _ap(value: float) -> AP:
    return None if value is None or math.isnan(value) else float(value)
