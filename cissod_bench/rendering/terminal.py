"""Reports in the terminal, drawn by rich. Names come from users and files; none is obeyed as markup or control."""

from __future__ import annotations

from rich.table import Table as Grid

from cissod_bench.reporting.averaging import is_scored
from cissod_bench.reporting.tables import DASH, Listing, Report, Row, ScoreCell, Table
from cissod_bench.terminal import Console, Text


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
    for run in report.unfinished:
        status = run.record.status
        state = status if not is_scored(run.record) and status != "done" else "done, without scores"
        console.print(_text(f"Not averaged: {run.folder} ({state})", "yellow"))


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


def _grid_cell(cell: ScoreCell, paper: bool) -> Text:
    text = Text(f"{cell.measured}{cell.sign}", style="bold" if cell.best else "")
    text.append(f" {cell.spread}" if cell.spread else "", style="dim")
    text.append(f"\n{cell.printed}{cell.paper_sign}" if paper else "", style="dim bold" if cell.paper_best else "dim")
    return text
