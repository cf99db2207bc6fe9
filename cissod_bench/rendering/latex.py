r"""Reports as LaTeX tables for a paper: one file per report, to be read with ``\input``; needs booktabs and amssymb.

Names of classes, methods and runs come from users and files; each of their characters prints as itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.tables import DASH, Block, Listing, Report, Row, ScoreCell, Table

_NO_RULES: Mapping[int, str] = MappingProxyType({})
PREAMBLE = r"% \usepackage{booktabs,amssymb}"

_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "\0": "{}",
        "\\": r"\textbackslash{}",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\char34{}",
        "`": r"\textasciigrave{}",
        "'": r"\textquotesingle{}",
        # The end of the row above would take these for its arguments.
        **{letter: f"{{{letter}}}" for letter in "[]*"},
        # What the reports themselves print.
        "±": r"$\pm$", "–": "--", "—": "---", "→": r"$\rightarrow$", "−": "$-$", "✓": r"$\checkmark$",
        "†": r"$^{\dagger}$", "Δ": r"$\Delta$", "θ": r"$\theta$", "λ": r"$\lambda$", "γ": r"$\gamma$", "ᶜ": "$^{c}$",
        "ᵖ": "$^{p}$", "“": "``", "”": "''", "’": "'", "≥": r"$\geq$", "≤": r"$\leq$",
    }
)  # fmt: skip


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is: no command, no comment, no end of a cell, row or group."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    apart = re.sub("-(?=-)", "-\0", plain)  # two hyphens in a row would be drawn as a dash
    return "".join(_LETTERS.get(letter, letter) for letter in apart)


def render_latex(reports: Sequence[Report], runs: Sequence[Run]) -> Mapping[str, str]:
    """Return a file per report that has tables, file name -> text; figures are written as PNG and SVG."""
    told = [report for report in reports if report.tables or report.listings]
    return {f"{report.name}.tex": _file(report) for report in told}


def _file(report: Report) -> str:
    parts = [*map(_table, report.tables), *map(_listing, report.listings)]
    labelled = [
        part.replace("LABEL", f"tab:{re.sub('[^a-z]+', '-', report.name)}-{number}", 1)
        for number, part in enumerate(parts, start=1)
    ]
    reading = "".join(f"\\par\\noindent\\footnotesize {escape(note)}\n" for note in report.notes)
    return "\n".join([PREAMBLE, *labelled, *([f"{{%\n{reading}\\par}}\n"] if reading else [])])


def _float(title: str, scale: str, tabular: Sequence[str], notes: Sequence[str], wide: bool) -> str:
    """Return a table that floats: caption above, notes below."""
    name = "table*" if wide else "table"
    # A caption is written to another file as well, where only robust commands survive; all of ours are.
    below = [f"\\par\\smallskip\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{_notes(notes)}\n\\end{{minipage}}"]
    return "\n".join(
        [
            f"\\begin{{{name}}}",
            "\\centering\\small",
            f"\\caption{{{escape(title)} ({escape(scale)}).}}",
            "\\label{LABEL}",
            *tabular,
            *(below if notes else []),
            f"\\end{{{name}}}",
            "",
        ]
    )


def _notes(notes: Sequence[str]) -> str:
    return "\\par\n".join(map(escape, notes))


def _tabular(
    columns: pd.Index, spec: str, rows: Sequence[Sequence[str]], rules: Mapping[int, str] = _NO_RULES
) -> list[str]:
    """Return the lines of a tabular: pandas writes it, and the rules that it has no word for are put between.

    Args:
        columns: heads, escaped; the upper of two levels stands once over the columns that share it.
        spec: a letter per column.
        rows: cells, escaped.
        rules: place of a line of cells, heads included -> the rule above it.
    """
    styler = pd.DataFrame(list(map(list, rows)), columns=columns, dtype=object).style.hide(axis="index")
    lines: list[str] = []
    place = 0
    for line in styler.to_latex(column_format=f"@{{}}{spec}@{{}}", hrules=True, multicol_align="c").splitlines():
        if line.endswith("\\\\"):
            lines += [rules[place]] if place in rules else []
            place += 1
        lines.append(line)
    return lines


def _table(table: Table) -> str:
    labels, several = 1 + len(table.heads), len(table.blocks) > 1
    spec = "l" + "c" * len(table.heads) + "".join("r" * (len(block.columns) + 1) for block in table.blocks)
    heads = [("", escape(head)) for head in (table.head, *table.heads)]
    for block in table.blocks:
        heads += [(escape(block.title), name) for name in (*map(escape, block.columns), "$n$")]
    columns = pd.MultiIndex.from_tuples(heads) if several else pd.Index([name for _, name in heads])
    rows: list[list[str]] = []
    rules = {1: _block_rules(table.blocks, labels)} if several else {}
    for row in table.rows:
        if not row.competitor and "\\midrule" not in rules.values():
            rules[len(rows) + columns.nlevels] = "\\midrule"
        rows += _rows(table, row)
    return _float(table.title, table.scale, _tabular(columns, spec, rows, rules), table.notes, wide=several)


def _block_rules(blocks: Sequence[Block], first: int) -> str:
    """Return a rule below the title of each block; ``first`` columns come before them."""
    rules = []
    for block in blocks:
        last = first + len(block.columns) + 1
        rules.append(f"\\cmidrule(lr){{{first + 1}-{last}}}")
        first = last
    return " ".join(rules)


def _rows(table: Table, row: Row) -> list[list[str]]:
    """Return the cells of a row as it was measured and, below it, as the paper prints it."""
    cells = [[table.cell(row, block, column) for column in block.columns] for block in table.blocks]
    title = escape(row.title) if row.competitor else f"\\textit{{{escape(row.title)}}} (reference)"
    measured = [title, *map(escape, row.checks)]
    for part, block in zip(cells, table.blocks, strict=True):
        measured += [*map(_measured, part), escape(str(table.seeds(row, block) or DASH))]
    if not table.in_paper(row):
        return [measured]
    printed = ["\\quad paper", *("" for _ in row.checks)]
    for part in cells:
        printed += [*(_bold(cell.printed, cell.paper_best) + escape(cell.paper_sign) for cell in part), ""]
    return [measured, printed]


def _measured(cell: ScoreCell) -> str:
    spread = f" $\\pm$ {escape(cell.spread.lstrip('±'))}" if cell.spread else ""
    return _bold(cell.measured, cell.best) + escape(cell.sign) + spread


def _bold(text: str, best: bool) -> str:
    return f"\\textbf{{{_number(text)}}}" if best else _number(text)


def _number(text: str) -> str:
    """Return a number with a minus for its hyphen; other text is escaped."""
    return f"${text}$" if re.fullmatch(r"[+-]\d+(\.\d+)?", text) else escape(text)


def _listing(listing: Listing) -> str:
    spec = "l" * listing.labels + "r" * (len(listing.heads) - listing.labels)
    rows = [[*map(escape, line[: listing.labels]), *map(_number, line[listing.labels :])] for line in listing.lines]
    tabular = _tabular(pd.Index(list(map(escape, listing.heads))), spec, rows)
    return _float(listing.title, listing.scale, tabular, listing.notes, wide=False)
