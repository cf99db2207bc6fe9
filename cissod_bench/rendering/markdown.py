"""Reports as Markdown files, and their tables as Markdown text for pages of other hands.

Names of classes, methods and runs come from users and files; each of their characters is shown as itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.departures import change_words, departures
from cissod_bench.reporting.tables import DASH, FIGURES, Files, Listing, Report, Row, Table, draw_figures


def render_markdown(reports: Sequence[Report], runs: Sequence[Run]) -> Files:
    """Return a Markdown file per report: tables with the paper's rows under ours, notes, figures, unfinished runs."""
    told = [
        report
        for report in reports
        if report.tables or report.listings or report.figures or report.notes or report.unfinished
    ]
    pages = {f"{report.name}.md": "\n".join(_page(report)) + "\n" for report in told}
    if told:
        pages[f"{told[0].name}.md"] += "\n".join(_departures(runs))
    return {**pages, **{name: data.decode() for name, data in draw_figures(reports, "svg").items()}}


def _departures(runs: Sequence[Run]) -> list[str]:
    """Return a footnote per set of settings that are not the paper's."""
    lines = []
    for departed in departures(runs):
        seeds_of = {words: ", ".join(map(str, sorted(seeds))) for words, seeds in departed.runs.items()}
        shared = "; ".join(f"{words} (seed {seeds})" for words, seeds in seeds_of.items())
        changes = "; ".join(f"{name}: {change_words(pair)}" for name, pair in departed.settings.items())
        lines.append(f"* {escape(shared)}: {escape(changes)}")
    head = ["", "## Departures from the paper", "", "Setting: the paper's value -> the value used.", ""]
    return [*head, *lines, ""] if lines else []


def _page(report: Report) -> list[str]:
    lines = [f"# {report.title}", ""]
    for table in report.tables:
        lines += [f"## {escape(table.title)}", "", escape(table.scale), "", table_text(table), ""]
        lines += [f"* {escape(note)}" for note in table.notes] + [""] * bool(table.notes)
    for listing in report.listings:
        lines += [f"## {escape(listing.title)}", "", escape(listing.scale), "", listing_text(listing), ""]
        lines += [f"* {escape(note)}" for note in listing.notes] + [""] * bool(listing.notes)
    lines += [escape(note) for note in report.notes]
    for figure in report.figures:
        lines += ["", f"## {escape(figure.title)}", "", escape(figure.scale), ""]
        lines += [f"![{escape(figure.title)}]({FIGURES}/{figure.stem}.svg)", ""] if figure.files else []
        lines.append(escape(figure.caption))
    if report.unfinished:
        lines += ["", "Not averaged:", ""]
        lines += [f"* {escape(str(run.folder))}: {run.record.status}" for run in report.unfinished]
    return lines


def table_text(table: Table) -> str:
    """Return a table of scores as Markdown, the paper's numbers in a row below ours; without its notes."""
    several = len(table.blocks) > 1
    heads = [
        f"{block.title} {column}" if several else column for block in table.blocks for column in [*block.columns, "n"]
    ]
    rules = ["---", *[":---:"] * len(table.heads), *["---:"] * len(heads)]
    lines = [line for row in table.rows for line in _row_lines(table, row)]
    return grid_text(["", *map(escape, [*table.heads, *heads])], rules, lines)


def _row_lines(table: Table, row: Row) -> list[list[str]]:
    """Return the line of a row as it was measured and, where there is one, the line that the paper prints."""
    title = escape(row.title) if row.competitor else f"*{escape(row.title)}* (reference)"
    measured, printed = [title, *map(escape, row.checks)], [f"{title}, paper", *("" for _ in row.checks)]
    for block in table.blocks:
        cells = [table.cell(row, block, column) for column in block.columns]
        measured += [_bold(cell.text, cell.best) + cell.sign for cell in cells]
        measured.append(str(table.seeds(row, block) or DASH))
        printed += [*(_bold(cell.printed, cell.paper_best) + cell.paper_sign for cell in cells), ""]
    return [measured, printed] if table.in_paper(row) else [measured]


def listing_text(listing: Listing) -> str:
    """Return a listing as Markdown; without its notes."""
    rules = column_rules(len(listing.heads), listing.labels)
    return grid_text(list(map(escape, listing.heads)), rules, [list(map(escape, line)) for line in listing.lines])


def column_rules(columns: int, labels: int) -> list[str]:
    """Return what stands below the heads: columns of words are set to the left, those of numbers to the right.

    Args:
        columns: how many there are.
        labels: how many of them, from the left, hold words.
    """
    return ["---"] * labels + ["---:"] * (columns - labels)


def grid_text(heads: Sequence[str], rules: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *lines))


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def escape(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no end of the table's cell."""
    plain = " ".join(text.split())
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]|#$~" else letter for letter in plain)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
