"""LaTeX tables: whole by structure, and names in them, in HTML and in CSV are text and nothing else."""

from __future__ import annotations

import csv
import io
import re
import string
from html.parser import HTMLParser
from pathlib import Path

import pytest
from score_records import HOSTILE, report_of, scored

from cissod_bench.catalogue import Entry
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.csv_files import csv_cell
from cissod_bench.rendering.formats import RENDERERS
from cissod_bench.rendering.latex import escape
from cissod_bench.reporting.tables import Report

# Every command that a file may hold: nothing reads, writes or defines anything.
COMMANDS = {
    *("begin", "end", "caption", "label", "centering", "small", "footnotesize", "par", "noindent", "smallskip"),
    *("toprule", "midrule", "bottomrule", "cmidrule", "multicolumn", "textbf", "textit", "quad", "linewidth"),
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "char"),
    *("textasciigrave", "textquotesingle", "pm", "rightarrow", "checkmark", "dagger", "theta", "usepackage"),
}


def structure(text: str) -> list[list[str]]:
    """Check braces, environments, mathematics and the columns of every table; return the cells of each row."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= COMMANDS
    depth, dollars, open_, rows = 0, 0, [], []
    tokens = re.findall(r"\\begin\{[^}]*\}|\\end\{[^}]*\}|\\[A-Za-z]+|\\.|[^\\]", text, re.DOTALL)
    for token in tokens:
        depth += (token == "{") - (token == "}")
        dollars += token == "$"
        assert depth >= 0
        if token.startswith("\\begin{"):
            open_.append(token[7:-1])
        elif token.startswith("\\end{"):
            assert open_.pop() == token[5:-1]
    assert (depth, dollars % 2, open_) == (0, 0, [])
    for spec, body in re.findall(r"\\begin\{tabular\}\{@\{\}([lcr]+)@\{\}\}\n(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in body.splitlines() if not re.match(r"\\(top|mid|bottom|cmid)rule", line)]
        for line in lines:
            assert line.endswith(r" \\")
            cells = re.split(r"(?<!\\)&", line[:-3])
            spans = [int(found.group(1)) if (found := re.match(r"\s*\\multicolumn\{(\d+)\}", c)) else 1 for c in cells]
            assert sum(spans) == len(spec), line
            rows.append([cell.strip() for cell in cells])
        assert body.count("\\toprule") == body.count("\\bottomrule") == 1
        assert "\\midrule" in body
    return rows


def latex(*reports: Report) -> str:
    return "\n".join(RENDERERS["latex"](reports, []).values())


def test_blocks_and_reference_rows_have_rules_of_their_own() -> None:
    methods = {
        "ours": Entry("ours", "Ours", "", ""),
        "oracle": Entry("oracle", "Oracle", "", "", {"competitor": False}),
    }
    classes = {"maj": ["a"], "min": ["b"]}
    runs = [scored(name, 0, (31.0, 15.0), classes, task="coco-split1", preset="full") for name in methods]
    lines = latex(report_of("comparison", *runs, methods=methods)).splitlines()
    assert lines[lines.index("\\toprule") + 2] == r"\cmidrule(lr){2-5} \cmidrule(lr){6-9}"
    assert [lines[at + 1].split(" &")[0] for at, line in enumerate(lines) if line == "\\midrule"] == [
        "Soft Teacher", r"\textit{Oracle} (reference)",
    ]  # fmt: skip


def test_a_table_has_both_numbers_spread_and_the_best_in_bold() -> None:
    classes = {"maj": ["a"], "min": ["b"]}
    runs = [
        scored(method, seed, aps, classes, task="coco-split1", preset="full")
        for seed in range(2)
        for method, aps in (("ours", (31.0 + seed, 15.0)), ("rfs", (35.0, 5.0)))
    ]
    report = report_of("comparison", *runs)
    rows = structure(latex(report))
    assert rows[0][1:] == [r"\multicolumn{4}{c}{MS-COCO split 1}", r"\multicolumn{4}{c}{MS-COCO split 2}"]
    assert rows[1] == ["Method", *["all", "maj", "min", "$n$"] * 2]
    assert rows[-2][:5] == ["Ours", r"\textbf{23.2} $\pm$ 0.4", r"31.5 $\pm$ 0.7", r"\textbf{15.0} $\pm$ 0.0", "2"]
    assert rows[-1] == [r"\quad paper", r"\textbf{26.5}", "30.7", r"\textbf{13.9}", "", r"\textbf{23.8}", "32.4",
                        r"\textbf{15.1}", ""]  # fmt: skip
    assert [row[0] for row in rows[2::2]] == ["Soft Teacher", "RFS", "EQLv2", "C2AM", "CReST", "DASO", "DeFRCN", "Ours"]
    assert rows[4][1:5] == [r"20.0 $\pm$ 0.0", r"\textbf{35.0} $\pm$ 0.0", r"5.0 $\pm$ 0.0", "2"]
    assert rows[2][1:5] == ["--"] * 4
    assert rows[7][1] == r"22.8$^{\dagger}$"


def test_all_reports_are_files_of_their_own_and_whole() -> None:
    runs = [
        scored(method, seed, task=task, variant=variant, split_seed=split, split_sha256=f"{split}" * 64)
        for method, variant in (("ours", ""), ("rfs", ""), ("ours", "crs"), ("oracle", ""))
        for task in ("coco-split1", "lvis")
        for seed in range(2)
        for split in range(2)
    ]
    reports = [report_of(name, *runs) for name in ("comparison", "ablation", "paired", "split_spread")]
    files = RENDERERS["latex"](reports, [])
    assert set(files) == {"comparison.tex", "ablation.tex", "paired.tex", "split_spread.tex"}
    for text in files.values():
        assert len(structure(text)) > 5
        labels = re.findall(r"\\label\{([a-z0-9:-]+)\}", text)
        assert len(labels) == len(set(labels)) == text.count(r"\begin{table")
        assert "booktabs" in text.splitlines()[0]
    assert r"\checkmark" in files["ablation.tex"]
    assert r"$\theta$" in files["ablation.tex"]
    assert r"\textit{" in files["comparison.tex"]
    assert "$+0.0$" in files["paired.tex"] or r"+0.0 $\pm$" in files["paired.tex"]


def test_every_special_letter_prints_as_itself() -> None:
    assert escape("\\ & % $ # _ { } ~ ^") == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{}"
    )
    assert escape(r"\input{/etc/passwd}") == r"\textbackslash{}input\{/etc/passwd\}"
    assert escape('"') == r"\char34{}"  # \textquotedbl is not in every encoding
    assert escape("[1]*") == "{[}1{]}{*}"  # \\ at the end of the row above would take them for its arguments
    assert escape("a\n%b\x1b\tc") == r"a \%b c"
    assert escape("100 ± 1 → θᶜ") == r"100 $\pm$ 1 $\rightarrow$ $\theta$$^{c}$"
    bare = {letter for letter in string.printable if letter.isprintable() and escape(letter) == letter}
    assert not bare & set("\\&%$#_{}~^<>|\"'`[]*")
    assert escape("a---b-c") == "a-{}-{}-b-c"


def hostile() -> tuple[list[RunRecord], dict[str, Entry]]:
    """Runs whose methods, classes, groups, tasks, variants and settings are called like attacks."""
    groups = {f"{HOSTILE[0]}g": [HOSTILE[0], HOSTILE[1]], f"{HOSTILE[1]}g": [HOSTILE[2]]}
    runs = [
        scored(
            name, seed, groups=groups, task=f"t{name}", title=name, engine=name, split_seed=split,
            split_sha256=f"{split}" * 64, variant=variant, departures={name: [name, name]}, command=[name],
            versions={name: name}, settings={name: seed},
        )
        for name in (*HOSTILE, "ours")
        for seed in range(2)
        for split in range(2)
        for variant in ("", f"v{name}")
    ]  # fmt: skip
    runs += [scored("ours", 0, groups=groups, task=f"t{name}", title=name, split_sha256="0" * 64) for name in HOSTILE]
    return runs, {name: Entry(name, name, "", "") for name in HOSTILE}


@pytest.fixture(scope="module")
def attacked() -> dict[str, dict[str, str]]:
    records, methods = hostile()
    reports = [
        report_of(name, *records, methods=methods, tasks={})
        for name in ("comparison", "ablation", "paired", "split_spread")
    ]
    runs = [Run(Path(f"={number}"), one) for number, one in enumerate(records)]
    return {kind: dict(render(reports, runs)) for kind, render in RENDERERS.items()}


def test_hostile_names_are_text_in_latex(attacked: dict[str, dict[str, str]]) -> None:
    assert len(attacked["latex"]) == 4
    for text in attacked["latex"].values():
        structure(text)
        assert r"\input" not in text
        assert r"\textbackslash{}input\{/etc/passwd\}" in text
        assert r"\textless{}script\textgreater{}alert(1)" in text


def test_hostile_names_are_text_in_html(attacked: dict[str, dict[str, str]]) -> None:
    tags: set[str] = set()

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            assert not [name for name, _ in attrs if name.startswith("on")]

    text = attacked["html"]["report.html"]
    Page().feed(text)
    assert "script" not in tags
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    for title in ("Paired tests", "Spread over splits"):
        assert f"<h2>{title}: " in text


def test_hostile_names_are_text_in_csv(attacked: dict[str, dict[str, str]]) -> None:
    files = attacked["csv"]
    assert {"comparison.csv", "ablation.csv", "paired.csv", "split_spread.csv", "runs.csv"} <= set(files)
    for name, text in files.items():
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
        assert not [cell for cell in cells if re.match(r"[=+@\t\r]|-(?!\d)", cell)], name
        assert any(cell.startswith("'=") for cell in cells), name


def test_hostile_names_are_text_in_markdown(attacked: dict[str, dict[str, str]]) -> None:
    for text in attacked["md"].values():
        assert "<script" not in text
        assert "\\\\input" in text
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


@pytest.mark.parametrize(
    "text", ["=cmd()", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "-", "--1", "＝1", "-cmd|' /C'!A1"]
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, -3, "-1.5", "+2", "-1e-05", "-.5", None, "a=b", "", True])
def test_numbers_and_other_text_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) == value


def test_negative_numbers_stay_numbers_in_files() -> None:
    report = report_of("paired", scored("ours", aps=(1.0, 1.0, 1.0)), scored("rfs"))
    lines = list(csv.DictReader(io.StringIO(RENDERERS["csv"]([report], [])["paired.csv"])))
    assert [float(line["difference"]) for line in lines] == [-29.0, -40.0, -7.0]
    assert "$-29.0$" in latex(report)
