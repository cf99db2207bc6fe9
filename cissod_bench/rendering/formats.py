"""Reports as a terminal table, Markdown, LaTeX, CSV and HTML: one function a format, each from the same tables.

Names of classes, methods and runs come from users and files; every format escapes them in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
from rich.table import Table as Grid

from cissod_bench.rendering import page as html
from cissod_bench.rendering.csv_files import csv_text
from cissod_bench.rendering.latex import render_latex
from cissod_bench.reporting.averaging import is_scored
from cissod_bench.reporting.tables import DASH, Cell, Listing, Report, Row, Runs, Table
from cissod_bench.terminal import Console, Text

Files = Mapping[str, str]
"""File name -> text."""

FIGURES = "figures"  # the folder of the figures for print, beside the other files


def render_markdown(reports: Sequence[Report], runs: Runs) -> Files:
    """Return a Markdown file a report: its tables with the paper's rows under ours, notes, figures, unfinished runs."""
    told = [
        report
        for report in reports
        if report.tables or report.listings or report.figures or report.notes or report.unfinished
    ]
    pages = {f"{report.name}.md": "\n".join(_markdown_lines(report)) + "\n" for report in told}
    if told:
        pages[f"{told[0].name}.md"] += "\n".join(_markdown_departures(runs))
    return {**pages, **{name: data.decode() for name, data in draw_figures(reports, "svg").items()}}


def _markdown_departures(runs: Runs) -> list[str]:
    """Return a footnote a set of settings that are not the paper's."""
    lines = []
    for one in html.departures(runs):
        shared = "; ".join(f"{name} (seed {', '.join(map(str, sorted(seeds)))})" for name, seeds in one["runs"].items())
        changes = "; ".join(f"{name}: {_change(pair)}" for name, pair in one["settings"].items())
        lines.append(f"* {_markdown(shared)}: {_markdown(changes)}")
    head = ["", "## Departures from the paper", "", "Setting: the paper's value -> the value used.", ""]
    return [*head, *lines, ""] if lines else []


def _markdown_lines(report: Report) -> list[str]:
    lines = [f"# {report.title}", ""]
    for table in report.tables:
        lines += [f"## {_markdown(table.title)}", "", f"{_markdown(table.scale)}", "", *_markdown_table(table), ""]
        lines += [f"* {_markdown(note)}" for note in table.notes] + [""] * bool(table.notes)
    for listing in report.listings:
        lines += [f"## {_markdown(listing.title)}", "", _markdown(listing.scale), "", *_markdown_listing(listing), ""]
        lines += [f"* {_markdown(note)}" for note in listing.notes] + [""] * bool(listing.notes)
    lines += [_markdown(note) for note in report.notes]
    for figure in report.figures:
        lines += ["", f"## {_markdown(figure.title)}", "", _markdown(figure.scale), ""]
        lines += [f"![{_markdown(figure.title)}]({FIGURES}/{figure.stem}.svg)", ""] if figure.files else []
        lines.append(_markdown(figure.caption))
    if report.unfinished:
        lines += ["", "Not averaged:", ""]
        lines += [f"* {_markdown(str(folder))}: {record.status}" for folder, record in report.unfinished]
    return lines


def _markdown_table(table: Table) -> list[str]:
    several = len(table.blocks) > 1
    heads = [
        f"{block.title} {column}" if several else column for block in table.blocks for column in [*block.columns, "n"]
    ]
    lines = [
        ["", *map(_markdown, [*table.heads, *heads])],
        ["---", *[":---:"] * len(table.heads), *["---:"] * len(heads)],
    ]
    for row in table.rows:
        title = _markdown(row.title) if row.competitor else f"*{_markdown(row.title)}* (reference)"
        cells = [[table.cell(row, block, column) for column in block.columns] for block in table.blocks]
        seeds = [str(table.seeds(row, block) or DASH) for block in table.blocks]
        measured = [
            [_bold(cell.text, cell.best) + cell.sign for cell in part] + [n]
            for part, n in zip(cells, seeds, strict=True)
        ]
        lines.append([title, *map(_markdown, row.checks), *(text for part in measured for text in part)])
        if table.in_paper(row):
            printed = [
                [_bold(cell.printed, cell.paper_best) + cell.paper_sign for cell in part] + [""] for part in cells
            ]
            lines.append([f"{title}, paper", *("" for _ in row.checks), *(text for part in printed for text in part)])
    return [f"| {' | '.join(line)} |" for line in lines]


def _markdown_listing(listing: Listing) -> list[str]:
    rules = ["---"] * listing.labels + ["---:"] * (len(listing.heads) - listing.labels)
    lines = [listing.heads, *listing.lines]
    rows = [f"| {' | '.join(map(_markdown, line))} |" for line in lines]
    return [rows[0], f"| {' | '.join(rules)} |", *rows[1:]]


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no end of the table's cell."""
    plain = " ".join(text.split())
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]|#$~" else letter for letter in plain)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw_figures(reports: Sequence[Report], kind: str) -> Mapping[str, bytes]:
    """Return every figure that is drawn for print, file name -> bytes of a PNG or SVG file."""
    drawn = (figure.files for report in reports for figure in report.figures if figure.files)
    return {f"{FIGURES}/{name}": data for files in drawn for name, data in files(kind).items()}


def notes_once(reports: Sequence[Report]) -> list[Report]:
    """Return reports that are read one after another: without notes that an earlier one has."""
    seen: set[str] = set()
    found = []
    for report in reports:
        found.append(replace(report, notes=tuple(note for note in report.notes if note not in seen)))
        seen.update(report.notes)
    return found


def render_csv(reports: Sequence[Report], runs: Runs) -> Files:
    """Return the tidy frames of every report, one line a number, and one file of the runs."""
    files = {f"{stem}.csv": csv_text(frame) for report in reports for stem, frame in report.frames.items()}
    return {**files, "runs.csv": csv_text(runs_frame(runs))}


def runs_frame(runs: Runs) -> pd.DataFrame:
    """Return one line a run: what it was, its state, its AP of all classes and what it was made with."""
    lines = [
        {
            "folder": str(folder),
            **{
                key: getattr(record, key)
                for key in ("task", "method", "variant", "preset", "profile", "split_seed", "seed")
            },
            **{key: getattr(record, key) for key in ("status", "split_sha256", "engine", "created")},
            "teacher": record.ap.get("teacher", {}).get("all"),
            "student": record.ap.get("student", {}).get("all"),
            "seconds": sum(seconds for phase, seconds in record.timings.items() if phase in html.PHASES),
            "versions": "; ".join(f"{name} {version}" for name, version in record.versions.items()),
            "hardware": "; ".join(f"{name} {value}" for name, value in record.hardware.items()),
            "departures": "; ".join(f"{key}: {_change(pair)}" for key, pair in record.departures.items()),
        }
        for folder, record in runs
    ]
    return pd.DataFrame(lines)


def plain_records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return a frame's lines as JSON knows them: None where a number is undefined."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in line.items()}
        for line in frame.to_dict("records")
    ]


def _change(pair: Sequence[object]) -> str:
    return " -> ".join(map(str, pair))


def print_rich(report: Report, console: Console) -> None:
    """Print a report's tables, the paper's number below ours in every cell."""
    for table in report.tables:
        console.print(Text.assemble(_text(table.title, "bold"), _text(f"  {table.scale}")))
        console.print(_grid(table))
        for note in table.notes:
            console.print(_text(f"  {note}", "dim"))
        console.print()
    for listing in report.listings:
        console.print(Text.assemble(_text(listing.title, "bold"), _text(f"  {listing.scale}")))
        console.print(_listing_grid(listing))
        for note in listing.notes:
            console.print(_text(f"  {note}", "dim"))
        console.print()
    for figure in report.figures:
        console.print(Text.assemble(_text(figure.title, "bold"), _text(f"  {figure.scale}")))
    for note in report.notes:
        console.print(_text(note, "dim"))
    for folder, record in report.unfinished:
        state = record.status if not is_scored(record) and record.status != "done" else "done, without scores"
        console.print(_text(f"Not averaged: {folder} ({state})", "yellow"))


def _text(text: str, style: str = "") -> Text:
    """Return text without markup and without what a terminal would obey."""
    return Text(text, style)


def _listing_grid(listing: Listing) -> Grid:
    grid = Grid(header_style="bold")
    for number, head in enumerate(listing.heads):
        grid.add_column(_text(head), justify="left" if number < listing.labels else "right")
    for line in listing.lines:
        grid.add_row(*map(_text, line))
    return grid


def _grid(table: Table) -> Grid:
    grid = Grid(header_style="bold")
    grid.add_column("")
    for head in table.heads:
        grid.add_column(_text(f"\n{head}" if len(table.blocks) > 1 else head), justify="center")
    for block in table.blocks:
        for number, column in enumerate(block.columns):
            above = block.title if len(table.blocks) > 1 and number == 0 else ""
            grid.add_column(_text(f"{above}\n{column}" if len(table.blocks) > 1 else column), justify="right")
        grid.add_column(Text("\nn" if len(table.blocks) > 1 else "n"), justify="right")
    reference = False
    for row in table.rows:
        if not row.competitor and not reference:
            grid.add_section()
            reference = True
        grid.add_row(*_grid_row(table, row))
    return grid


def _grid_row(table: Table, row: Row) -> list[Text]:
    paper = table.in_paper(row)
    texts = [_text(row.title, "" if row.competitor else "italic")]
    texts[0].append("\n  paper" if paper else "", style="dim")
    texts += [Text(check) for check in row.checks]
    for block in table.blocks:
        texts += [_grid_cell(table.cell(row, block, column), paper) for column in block.columns]
        texts.append(Text(str(table.seeds(row, block) or DASH), style="dim"))
    return texts


def _grid_cell(cell: Cell, paper: bool) -> Text:
    text = Text(f"{cell.measured}{cell.sign}", style="bold" if cell.best else "")
    text.append(f" {cell.spread}" if cell.spread else "", style="dim")
    text.append(f"\n{cell.printed}{cell.paper_sign}" if paper else "", style="dim bold" if cell.paper_best else "dim")
    return text


def _html(reports: Sequence[Report], runs: Runs) -> Files:
    return {"report.html": html.render_html(notes_once(reports), runs)}


RENDERERS: Mapping[str, Callable[[Sequence[Report], Runs], Files]] = {
    "md": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
    "html": _html,
}
"""Format -> what writes its files. The terminal's table ("rich") is printed and makes none."""
