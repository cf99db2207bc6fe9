"""Tables from records: what is averaged, what is kept apart, what is escaped."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from score_records import built, finished, report_of, runs_of, shown

from cissod_bench import catalogue
from cissod_bench.catalogue import Entry, list_methods
from cissod_bench.figures.class_bars import BarPanel, class_bars
from cissod_bench.records.record import RunRecord
from cissod_bench.records.run_folder import Run
from cissod_bench.rendering.csv_files import runs_frame
from cissod_bench.rendering.formats import RENDERERS
from cissod_bench.rendering.terminal import print_rich
from cissod_bench.reporting.paper_tables import METHODS, TABLES
from cissod_bench.reporting.tables import DASH, UNDEFINED, Report

GROUPS = {"maj": ["disc", "ring"], "min": ["star"]}
ENTRIES = {
    "soft-teacher": Entry("soft-teacher", "Soft Teacher", "", ""),
    "ours": Entry("ours", "Ours", "", ""),
    "new": Entry("new", "A new one", "", ""),
    "supervised": Entry("supervised", "Supervised", "", "", {"competitor": False, "images": "labelled"}),
    "oracle": Entry("oracle", "Oracle", "", "", {"competitor": False, "images": "oracle"}),
}


def record(
    method: str = "soft-teacher", seed: int = 0, points: Sequence[float | None] = (30.0, 40.0, 10.0), **changes: Any
) -> RunRecord:
    columns = dict(zip(["all", *GROUPS], points, strict=True))
    classes = {"disc": points[1], "ring": points[1], "star": points[2]}
    made = finished(
        method,
        seed,
        engine="hotcoco 1.3.0",
        ap={"teacher": columns, "student": dict.fromkeys(columns, 0.0)},
        per_class={"teacher": classes, "student": dict.fromkeys(classes, 0.0)},
        groups=GROUPS,
    )
    return dataclasses.replace(made, **changes)


def build(*records: RunRecord, methods: Mapping[str, Entry] = ENTRIES) -> Report:
    return report_of("comparison", *records, methods=methods)


def rendered(kind: str, *records: RunRecord, methods: Mapping[str, Entry] = ENTRIES) -> str:
    runs = runs_of(*records)
    reports = [built(name, runs, methods=methods) for name in ("comparison", "ablation")]
    return "\n".join(RENDERERS[kind](reports, runs).values())


def test_a_cell_is_the_mean_and_sample_deviation_over_training_seeds() -> None:
    aps = [30.0, 33.0, 37.5]
    (table,) = build(*(record(seed=seed, points=(ap, 40.0, 10.0)) for seed, ap in enumerate(aps))).tables
    cell = table.cell(table.rows[0], table.blocks[0], "all")
    assert [cell.mean, cell.std, cell.n] == pytest.approx([33.5, statistics.stdev(aps), 3])
    assert shown(table, "Soft Teacher") == "33.5 ±3.8"
    assert shown(table, "Soft Teacher", "n") == "3"


def test_one_seed_has_no_deviation() -> None:
    (table,) = build(record()).tables
    assert shown(table, "Soft Teacher") == "30.0"
    assert table.cell(table.rows[0], table.blocks[0], "all").std is None


def test_rows_follow_the_paper_then_what_is_new_then_the_reference_rows() -> None:
    methods = ("oracle", "new", "ours", "supervised", "soft-teacher")
    (table,) = build(*(record(method) for method in methods)).tables
    assert [row.method for row in table.rows] == ["soft-teacher", "ours", "new", "supervised", "oracle"]


def test_a_reference_row_is_never_the_best_and_is_said_to_be_none() -> None:
    runs = [record("oracle", points=(90.0, 90.0, 90.0)), record("ours", points=(31.0, 39.0, 10.0)), record()]
    (table,) = build(*runs).tables
    best = {row.method: table.cell(row, table.blocks[0], "all").best for row in table.rows}
    assert best == {"soft-teacher": False, "ours": True, "oracle": False}
    assert any("Oracle: a reference row, not a competitor" in note for note in table.notes)


def test_a_method_that_did_not_run_shows_a_dash_and_an_undefined_ap_does_not() -> None:
    (table,) = build(record(points=(30.0, 40.0, None))).tables
    assert shown(table, "Ours") == DASH
    assert shown(table, "Soft Teacher", "min") == UNDEFINED


def test_the_student_is_scored_only_where_there_is_no_teacher() -> None:
    alone = record("supervised", ap={"student": {"all": 12.0, "maj": 15.0, "min": 3.0}})
    (table,) = build(record(), alone).tables
    assert (shown(table, "Soft Teacher"), shown(table, "Supervised")) == ("30.0", "12.0")
    assert any("Supervised: has no teacher" in note for note in table.notes)


@pytest.mark.parametrize("change", [{"preset": "smoke"}, {"profile": "paper"}, {"split_seed": 1}])
def test_scales_and_split_seeds_never_share_a_table(change: dict[str, Any]) -> None:
    report = build(record(), record(seed=1, points=(90.0, 90.0, 90.0), **change))
    assert sorted(shown(table, "Soft Teacher") for table in report.tables) == ["30.0", "90.0"]


def test_two_draws_with_one_split_seed_never_share_a_column() -> None:
    (table,) = build(record(), record(seed=1, points=(90.0, 90.0, 90.0), split_sha256="cd" * 32)).tables
    assert [block.title for block in table.blocks] == ["Toy shapes (abababab)", "Toy shapes (cdcdcdcd)"]
    assert [shown(table, "Soft Teacher", block=number) for number in (0, 1)] == ["30.0", "90.0"]


def test_runs_with_other_settings_never_share_a_row_and_the_note_names_the_setting() -> None:
    changed = record(seed=1, points=(90.0, 90.0, 90.0), departures={"lr": [0.01, 0.5]})
    (table,) = build(record(departures={"lr": [0.01, 0.2]}), changed).tables
    assert [shown(table, f"Soft Teacher [{mark}]") for mark in "12"] == ["30.0", "90.0"]
    assert "Soft Teacher [2]: lr 0.5." in table.notes


def test_rows_told_apart_by_settings_leave_the_papers_row_in_its_place() -> None:
    runs = [record(task="coco-split1", preset="full", departures={"lr": [0.01, lr]}) for lr in (0.2, 0.5)]
    (table,) = build(*runs).tables
    assert [row.title for row in table.rows[:3]] == ["Soft Teacher", "Soft Teacher [1]", "Soft Teacher [2]"]
    assert (shown(table, "Soft Teacher", source="paper"), shown(table, "Soft Teacher")) == ("23.6", DASH)


def test_a_copied_run_does_not_count_twice() -> None:
    report = build(record(created="2026-01-01"), record(created="2026-01-02", points=(50.0, 50.0, 50.0)))
    assert shown(report.tables[0], "Soft Teacher") == "50.0"
    assert any("1 run(s) repeat a training seed" in note for note in report.notes)


def test_variants_of_a_method_are_left_to_the_ablations() -> None:
    variant = record("ours", variant="gbr", points=(20.0, 20.0, 20.0))
    report = build(record("ours"), variant, record("ours", variant="crs", status="failed"))
    (table,) = report.tables
    assert {row.variant for row in table.rows} == {""}
    assert shown(table, "Ours") == "30.0"
    assert report.unfinished == ()
    assert build(variant).tables == ()
    assert build(variant).notes == ()


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_done_is_listed_and_not_averaged(status: str) -> None:
    report = build(record(), record(seed=1, points=(90.0, 90.0, 90.0), status=status))
    assert shown(report.tables[0], "Soft Teacher") == "30.0"
    assert [run.record.status for run in report.unfinished] == [status]
    assert f"runs/1: {status}" in rendered("md", record(), record(seed=1, status=status))


def test_the_papers_row_stands_beside_ours_only_for_tasks_it_reports() -> None:
    report = build(record(), record(task="coco-split1", preset="full", points=(24.0, 31.0, 2.0)))
    paper, toy = report.tables
    assert (paper.name, toy.title) == ("Table 1", "Toy shapes")
    assert shown(paper, "Soft Teacher") == "24.0"
    assert [shown(paper, "Soft Teacher", column, "paper") for column in ("all", "maj", "min")] == [
        "23.6",
        "31.0",
        "1.5",
    ]
    assert shown(paper, "Ours", "min", "paper", block=1) == "15.1"
    assert shown(paper, "Ours", "min", block=1) == DASH
    assert set(toy.cells["source"]) == {"measured"}


def test_a_small_scale_is_not_passed_off_as_the_papers() -> None:
    small, full = (build(record(task="coco-split1", preset=preset)).tables[0] for preset in ("mini", "full"))
    assert any("they do not compare" in note for note in small.notes)
    assert not any("they do not compare" in note for note in full.notes)


def test_lvis_has_its_own_columns() -> None:
    scores = {"teacher": {"all": 8.0, "f": 20.0, "c": 12.0, "r": 3.0}}
    (table,) = build(record(task="lvis", ap=scores, groups={"f": [], "c": [], "r": []})).tables
    assert [shown(table, "Soft Teacher", column) for column in ("all", "f", "c", "r")] == ["8.0", "20.0", "12.0", "3.0"]
    assert "CReST" not in {row.title for row in table.rows}


def test_cells_are_a_frame_of_numbers() -> None:
    report = build(record(), record(seed=1))
    frame = report.frames["comparison"]
    assert frame[["mean", "std"]].dtypes.map(pd.api.types.is_float_dtype).all()
    line = frame[(frame["method"] == "soft-teacher") & (frame["column"] == "min")].iloc[0]
    assert (line["mean"], line["n"], line["model"], line["preset"]) == (10.0, 2, "teacher", "mini")
    classes = report.frames["comparison_figures"]
    assert dict(zip(classes["class"], classes["mean"], strict=True)) == {"disc": 40.0, "ring": 40.0, "star": 10.0}


def test_table_3_has_no_crest_and_no_defrcn() -> None:
    assert set(TABLES[2].rows["lvis"]) == set(METHODS) - {"crest", "defrcn"}


def test_numbers_in_method_files_equal_the_papers_tables() -> None:
    found = 0
    for name, entry in list_methods().items():
        for task, columns in entry.literals.get("reported", {}).items():
            (table,) = [table for table in TABLES if task in table.tasks]
            assert columns == {column: table.value(task, name, column) for column in table.columns}, (name, task)
            found += 1
    assert found >= 4, "Soft Teacher reports on four tasks"


def test_reference_rows_of_the_catalogue_are_no_competitors() -> None:
    entries = catalogue.list_methods()
    assert {name for name, entry in entries.items() if not entry.literals.get("competitor", True)} == {
        "supervised",
        "oracle",
    }


class Page(HTMLParser):
    """Collects what a page would run or load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[tuple[str, str | None]] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [(name, value) for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def hostile() -> tuple[list[RunRecord], dict[str, Entry]]:
    attack = '"><script>alert(1)</script>'
    groups = {"maj": [f"<img src=x onerror=1>{attack}"], "min": ["=1+1"]}
    classes = {"teacher": {name: 1.0 for names in groups.values() for name in names}}
    one = record("=cmd()", task=f"t{attack}", engine=attack, groups=groups, per_class=classes)
    one.command, one.versions, one.hardware = ["run", attack], {attack: attack}, {"device": attack}
    one.departures = {f"lr{attack}": [attack, "=2"]}
    return [one, dataclasses.replace(one, variant=f"@x{attack}")], {
        "=cmd()": Entry("=cmd()", f"=cmd(){attack}", "", "")
    }


def test_the_page_loads_nothing_and_shows_names_as_text() -> None:
    records, methods = hostile()
    text = rendered("html", *records, methods=methods)
    page = Page(text)
    assert not set(page.tags) & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert page.loaded == []
    assert page.handlers == []
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "svg" in page.tags


def test_the_page_says_what_every_number_was_made_of() -> None:
    text = rendered(
        "html", record(departures={"lr": [0.01, 0.001]}, versions={"torch": "2.13.0"}, hardware={"device": "cpu"})
    )
    for part in (
        "abababab",
        "hotcoco 1.3.0",
        "torch 2.13.0",
        "device cpu",
        "2026-01-01 00:00",
        '<td class="text">0.001</td>',
    ):
        assert part in text


def test_markdown_ends_with_every_departure_from_the_paper_and_who_shares_it() -> None:
    runs = [record(seed=seed, departures={"lr": [0.01, 0.001], "workers": [5, 0]}) for seed in (1, 0)]
    text = rendered("md", *runs)
    assert text.count("## Departures from the paper") == 1
    assert "* toy, soft-teacher, mini-default (seed 0, 1): lr: 0.01 -&gt; 0.001\n" in text


def test_csv_files_hold_numbers_and_no_formulas() -> None:
    records, methods = hostile()
    runs = [Run(Path("+r"), one) for one in records]
    reports = [built(name, runs, methods=methods, tasks={}) for name in ("comparison", "ablation")]
    files = RENDERERS["csv"](reports, runs)
    assert set(files) == {"comparison.csv", "comparison_figures.csv", "ablation.csv", "runs.csv"}
    cells = [cell for text in files.values() for line in csv.reader(io.StringIO(text)) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t"))]
    assert any(cell.startswith("'=cmd()") for cell in cells)
    lines = list(csv.DictReader(io.StringIO(files["comparison.csv"])))
    assert [float(line["mean"]) for line in lines if line["column"] == "min"] == [10.0]


def test_markdown_shows_names_as_text() -> None:
    records, methods = hostile()
    text = rendered("md", *records, methods=methods)
    assert "<script" not in text
    pipes = rendered("md", record("a|b\n*c*"), methods={})
    assert "a\\|b \\*c\\*" in pipes
    rows = [line for line in pipes.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}


def test_the_terminal_shows_both_rows_and_no_markup_of_names() -> None:
    stream = io.StringIO()
    report = build(record("[red]x[/]"), record(task="coco-split1", preset="full"), record(seed=9, status="failed"))
    print_rich(report, Console(file=stream, width=150))
    text = stream.getvalue()
    for part in ("[red]x[/]", "MS-COCO split 2", "23.6", "paper", "Not averaged: runs/2 (failed)"):
        assert part in text


def test_every_run_has_a_line_with_its_settings() -> None:
    frame = runs_frame(runs_of(record(timings={"train": 60.0, "iterations_per_second": 5.0}), record(seed=1)))
    assert list(frame["seconds"]) == [60.0, 0.0]
    assert list(frame["teacher"]) == [30.0, 30.0]


def bar_widths(drawing: str) -> list[float]:
    """How long the bars are that say something to the mouse, from top to bottom."""
    svg = "{http://www.w3.org/2000/svg}"
    bars = [path for path in ElementTree.fromstring(drawing).iter(f"{svg}path") if path.find(f"{svg}title") is not None]
    across = [[float(corner.split()[0]) for corner in re.findall(r"[\d.]+ [\d.]+", bar.attrib["d"])] for bar in bars]
    return [max(places) - min(places) for places in across]


def test_bars_are_as_long_as_their_ap_and_missing_ones_say_so() -> None:
    drawing = class_bars([BarPanel("m", {"disc": 10.0, "ring": 20.0, "star": None}, {"disc": 2.0})], GROUPS).page()
    widths = bar_widths(drawing)
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert len(widths) == 2
    assert ">n/a<" in drawing
    assert drawing.count("stroke:var(--ink)") == 1  # the whisker
    assert "<title>m, disc: 10.0 ± 2.0</title>" in drawing


def test_a_drawing_of_too_many_classes_is_left_to_the_csv_file() -> None:
    names = [f"c{number}" for number in range(130)]
    many = record(groups={"maj": names, "min": []}, per_class={"teacher": dict.fromkeys(names, 1.0)})
    (figure,) = build(many).tables[0].figures
    assert figure.svg == ""
    assert "130 classes" in figure.caption
    assert len(figure.data) == 130


@pytest.mark.parametrize("kind", RENDERERS)
def test_odd_records_are_drawn_and_kill_no_report(kind: str) -> None:
    odd = [
        record(seed=1, departures={"lr": [1]}),
        record(seed=2, departures={"lr": []}),
        record(seed=3, ap={"foo": {"all": 99.5}}),
        record("ours", points=(-1.0, -50.0, -1.0)),
        record("new", points=(120.0, 120.0, 120.0)),
        record(seed=4, groups={}, per_class={}, split_sha256="cd" * 32),
    ]
    text = re.sub(r"[\\{}]", "", rendered(kind, record(), *odd))  # Markdown and LaTeX escape the bracket
    assert "Soft Teacher [1]" in text or "soft-teacher,,1,Soft Teacher" in text
    assert "99.5" not in text


def test_scores_of_no_known_model_are_not_averaged() -> None:
    report = build(record(), record(seed=1, ap={"foo": {"all": 99.0}}))
    assert shown(report.tables[0], "Soft Teacher") == "30.0"
    assert [str(run.folder) for run in report.unfinished] == ["runs/1"]


@pytest.mark.parametrize("ap", [-0.5, -1.0, -50.0])
def test_negative_bars_have_no_length(ap: float) -> None:
    drawing = class_bars([BarPanel("m", dict.fromkeys(("disc", "ring", "star"), ap), {"disc": 1.0})], GROUPS).page()
    widths = bar_widths(drawing)
    assert len(widths) == 3
    assert max(widths) < 0.5
    assert f">{ap:.1f}<" in drawing


def test_a_task_outside_the_catalogue_is_called_by_its_title() -> None:
    titles = [table.title for table in build(record(task="mine", title="My shapes"), record(title="not this")).tables]
    assert titles == ["My shapes", "Toy shapes"]
    assert [table.title for table in build(record(task="mine")).tables] == ["mine"]
    mixed = build(record(task="mine"), record(task="mine", seed=1, title="My shapes"))
    assert [table.title for table in mixed.tables] == ["My shapes"]
