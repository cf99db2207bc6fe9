r"""Reports as LaTeX tables for a paper: one file a report, to be read with ``\input``; needs booktabs and amssymb.

Names of classes, methods and runs come from users and files; each of their characters prints as itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cissod_bench.records.run_folder import Run
from cissod_bench.reporting.tables import DASH, Block, Listing, Report, Row, ScoreCell, Table

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
    """Return a file a report that has tables, file name -> text; figures are written as PNG and SVG."""
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


def _float(title: str, scale: str, spec: str, lines: Sequence[str], notes: Sequence[str], wide: bool) -> str:
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
            f"\\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
            "\\toprule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            *(below if notes else []),
            f"\\end{{{name}}}",
            "",
        ]
    )


def _notes(notes: Sequence[str]) -> str:
    return "\\par\n".join(map(escape, notes))


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _table(table: Table) -> str:
    checks = len(table.heads)
    spec = "l" + "c" * checks + "".join("r" * (len(block.columns) + 1) for block in table.blocks)
    heads = [*map(escape, [table.head, *table.heads])]
    heads += [name for block in table.blocks for name in [*map(escape, block.columns), "$n$"]]
    lines = [*(_block_heads(table.blocks, 1 + checks) if len(table.blocks) > 1 else []), _line(heads), "\\midrule"]
    reference = False
    for row in table.rows:
        if not row.competitor and not reference:
            lines, reference = [*lines, "\\midrule"], True
        lines += _rows(table, row)
    return _float(table.title, table.scale, spec, lines, table.notes, wide=len(table.blocks) > 1)


def _block_heads(blocks: Sequence[Block], first: int) -> list[str]:
    """Return the row of the blocks' titles and the rules below them; ``first`` columns come before them."""
    titles, rules = [""] * first, []
    for block in blocks:
        width = len(block.columns) + 1
        titles.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(block.title)}}}")
        rules.append(f"\\cmidrule(lr){{{first + 1}-{first + width}}}")
        first += width
    return [_line(titles), " ".join(rules)]


def _rows(table: Table, row: Row) -> list[str]:
    """Return the line of a row as it was measured and, below it, as the paper prints it."""
    cells = [[table.cell(row, block, column) for column in block.columns] for block in table.blocks]
    title = escape(row.title) if row.competitor else f"\\textit{{{escape(row.title)}}} (reference)"
    measured = [title, *map(escape, row.checks)]
    for part, block in zip(cells, table.blocks, strict=True):
        measured += [*map(_measured, part), escape(str(table.seeds(row, block) or DASH))]
    if not table.in_paper(row):
        return [_line(measured)]
    printed = ["\\quad paper", *("" for _ in row.checks)]
    for part in cells:
        printed += [*(_bold(cell.printed, cell.paper_best) + escape(cell.paper_sign) for cell in part), ""]
    return [_line(measured), _line(printed)]


def _measured(cell: ScoreCell) -> str:
    spread = f" $\\pm$ {escape(cell.spread.lstrip('±'))}" if cell.spread else ""
    return _bold(cell.measured, cell.best) + escape(cell.sign) + spread


def _bold(text: str, best: bool) -> str:
    return f"\\textbf{{{_number(text)}}}" if best else _number(text)


def _number(text: str) -> str:
    """Return a number with a minus for its hyphen; other text is escaped."""
    return f"${text}$" if re.fullmatch(r"[+-]\d+(\.\d+)?", text) else escape(text)


def _listing(listing: Listing) -> str:
    numbers = len(listing.heads) - listing.labels
    lines = [_line([*map(escape, listing.heads)]), "\\midrule"]
    for line in listing.lines:
        words, cells = line[: listing.labels], line[listing.labels :]
        lines.append(_line([*map(escape, words), *map(_number, cells)]))
    return _float(listing.title, listing.scale, "l" * listing.labels + "r" * numbers, lines, listing.notes, wide=False)
