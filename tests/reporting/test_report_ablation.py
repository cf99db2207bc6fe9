"""Tables 4 and 5: which runs stand in which row, the paper's numbers beside them, where a table is shown at all."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console
from score_records import built, finished, report_of, runs_of, shown

from cissod_bench.catalogue import Entry, list_methods, load_method
from cissod_bench.records.record import RunRecord
from cissod_bench.rendering.formats import RENDERERS, notes_once
from cissod_bench.rendering.terminal import print_rich
from cissod_bench.reporting.tables import DASH, Report
from method.ours import Choice, Switches, resolve
from method.profiles import profile_for
from reports.ablation import ABLATIONS


def record(
    method: str = "ours",
    variant: str = "",
    task: str = "toy",
    seed: int = 0,
    points: Sequence[float | None] = (30.0, 40.0, 10.0),
    groups: Sequence[str] = ("maj", "min"),
    **changes: Any,
) -> RunRecord:
    made = finished(
        method,
        seed,
        task=task,
        variant=variant,
        preset="full" if task == "coco-split1" else "mini",
        ap={"teacher": dict(zip(["all", *groups], points, strict=True))},
        groups={group: [] for group in groups},
    )
    return dataclasses.replace(made, **changes)


def coco(method: str = "ours", variant: str = "", **changes: Any) -> RunRecord:
    return record(method, variant, "coco-split1", **changes)


def build(*records: RunRecord, methods: Mapping[str, Entry] | None = None) -> Report:
    return report_of("ablation", *records, methods=methods)


def rows_of(number: int) -> list[str]:
    return [row.title for row in ABLATIONS[number].rows]


def test_the_tables_hold_every_variant_that_the_paper_reports_once() -> None:
    keys = [row.runs[0] for ablation in ABLATIONS for row in ablation.rows]
    variants = [variant for _, variant in keys if variant]
    assert sorted(variants) == sorted(load_method("ours").reported_variants)
    assert len(set(variants)) == len(variants)
    assert [len(ablation.rows) for ablation in ABLATIONS] == [9, 6]


def choice(variant: str) -> Choice:
    method = load_method("ours")
    profile = profile_for("default", "coco-split1", 180_000, 81)
    return resolve(Switches(**(method.variants[variant] if variant else {})), profile, 0.9)


def test_runs_that_stand_in_for_others_have_their_settings() -> None:
    found = 0
    for ablation in ABLATIONS:
        for row in ablation.rows:
            named = [variant for method, variant in row.runs if method == "ours"]
            assert len({choice(variant) for variant in named}) == 1, row
            found += len(row.runs) > 1
    assert found == 3
    plain = choice("baseline")  # Soft Teacher stands in for it
    assert plain == Choice(
        focal=False, weighted=False, thresholds="fixed", theta=0.9, rfs=False, crs=False, full_pass=False
    )


def test_check_marks_say_what_is_on() -> None:
    for row in ABLATIONS[0].rows:
        crs, gbt, gbr = row.checks
        found = choice(row.runs[0][1])
        assert (crs == "✓") == found.crs == found.rfs, row
        assert (gbt == "✓") == (found.thresholds == "gbt"), row
        assert (gbr == "✓") == found.weighted, row
        assert (gbr != "") == found.focal, row


def test_the_papers_columns_add_up_but_for_the_cells_the_note_names() -> None:
    odd = set()
    for table in build(coco()).tables:
        for row in table.rows:
            printed = {column: float(shown(table, row.title, column, "paper")) for column in ("all", "maj", "min")}
            if abs(printed["all"] - (60 * printed["maj"] + 20 * printed["min"]) / 80) > 0.12:
                odd.add(row.title)
        assert bool(odd) == any("class-weighted" in note for note in table.notes)
    assert odd == {"θᶜ", "LabelMatch"}


def test_both_tables_of_the_papers_task_show_dashes_where_nothing_ran() -> None:
    fourth, fifth = build(coco("soft-teacher", points=(24.0, 31.5, 2.0)), coco()).tables
    assert [table.title for table in (fourth, fifth)] == [
        "Table 4: Components of the method, MS-COCO split 1",
        "Table 5: Thresholds, MS-COCO split 1",
    ]
    assert [[row.title for row in table.rows] for table in (fourth, fifth)] == [rows_of(0), rows_of(1)]
    assert (shown(fourth, "Soft Teacher"), shown(fourth, "Soft Teacher", source="paper")) == ("24.0", "23.6")
    assert (shown(fourth, "CrS"), shown(fourth, "CrS", "min", "paper")) == (DASH, "6.6")
    assert (shown(fourth, "Ours"), shown(fifth, "GbT")) == ("30.0", "30.0")
    assert shown(fifth, "θᵖ", "min", "paper") == "13.8"


def test_a_cell_is_mean_and_deviation_over_seeds_of_one_scale() -> None:
    runs = [record(variant="gbr", seed=seed, points=(ap, 40.0, 10.0)) for seed, ap in enumerate((30.0, 33.0, 37.5))]
    report = build(*runs, record(variant="gbr", preset="smoke", points=(90.0, 90.0, 90.0)))
    assert sorted(shown(table, "GbR") for table in report.tables) == ["33.5 ±3.8", "90.0"]
    assert {table.scale for table in report.tables} == {
        "preset mini, profile default, split seed 0",
        "preset smoke, profile default, split seed 0",
    }


def test_other_tasks_have_a_table_once_a_variant_of_it_ran() -> None:
    assert build(record(), record("soft-teacher")).tables == ()
    (table,) = build(record(), record("soft-teacher"), record(variant="fl", points=(20.0, 20.0, 20.0))).tables
    assert table.title == "Components of the method, Toy shapes"
    assert [shown(table, title) for title in ("Soft Teacher", "Focal loss", "CrS", "Ours")] == [
        *("30.0", "20.0", DASH, "30.0"),
    ]
    assert set(table.cells["source"]) == {"measured"}
    (table,) = build(record(variant="theta-c")).tables
    assert table.title == "Thresholds, Toy shapes"


def test_runs_of_equal_settings_stand_in_for_a_row_and_the_note_says_so() -> None:
    fourth, fifth = build(coco("soft-teacher"), coco(variant="crs+gbr", points=(26.0, 31.0, 12.0))).tables
    assert (shown(fourth, "CrS + GbR"), shown(fifth, "θ = 0.9")) == ("26.0", "26.0")
    assert "Soft Teacher: runs of soft-teacher, which has the same settings as ours+baseline." in fourth.notes
    assert "θ = 0.9: runs of ours+crs+gbr, which has the same settings as ours+theta-0.9." in fifth.notes
    assert shown(fifth, "θ = 0.9", source="paper") == "25.8"


def test_a_rows_own_runs_come_before_those_that_stand_in() -> None:
    own = coco(variant="baseline", points=(20.0, 20.0, 20.0))
    fourth, _ = build(coco("soft-teacher"), own).tables
    assert shown(fourth, "Soft Teacher") == "20.0"
    assert shown(fourth, "Soft Teacher", "n") == "1"
    assert not any("same settings" in note for note in fourth.notes)


@pytest.mark.parametrize("number", [0, 1])
def test_on_each_draw_the_first_runs_that_there_are_stand_in_a_row(number: int) -> None:
    """Tables 4 and 5 have a row each that runs of two names may fill."""
    title, first, other = [("CrS + GbR", "crs+gbr", "theta-0.9"), ("θ = 0.9", "theta-0.9", "crs+gbr")][number]
    placed = [("a", first, 20.0), ("b", other, 30.0), ("c", first, 40.0), ("c", other, 50.0), ("d", "gbr", 60.0)]
    runs = [record(variant=variant, points=(points,) * 3, split_sha256=64 * draw) for draw, variant, points in placed]
    table = build(*runs, record(variant="theta-c")).tables[number]
    cells = [
        (block.split_sha256[0], row.variant, table.cell(row, block, "all").mean)
        for row in table.rows
        if row.title == title
        for block in table.blocks
        if table.seeds(row, block)
    ]
    assert cells == [("a", first, 20.0), ("c", first, 40.0), ("b", other, 30.0)]
    assert [note for note in table.notes if note.startswith(title)] == [
        f"{title}: runs of ours+{other}, which has the same settings as ours+{first}."
    ]


def test_groups_of_a_task_are_its_columns() -> None:
    one = record(variant="crs", task="mine", points=(8.0, 20.0, 12.0, 3.0), groups=("f", "c", "r"), title="My shapes")
    (table,) = build(one).tables
    assert table.title == "Components of the method, My shapes"
    assert [shown(table, "CrS", column) for column in ("all", "f", "c", "r")] == ["8.0", "20.0", "12.0", "3.0"]


def test_variants_outside_the_paper_stand_beside_their_method() -> None:
    new = Entry(
        "new", "New idea", "", "", {"reported_variants": {"half": {"toy": {"all": 9.0, "maj": 9.5, "min": 8.5}}}}
    )
    runs = [
        record(),
        record(variant="full-pass", points=(31.0, 41.0, 11.0)),
        record("new", "half"),
        record("new", "odd"),
    ]
    ours, other = build(*runs, methods={**list_methods(), "new": new}).tables
    assert [ours.title, other.title] == ["Variants of Ours, Toy shapes", "Variants of New idea, Toy shapes"]
    assert [(row.title, shown(ours, row.title)) for row in ours.rows] == [("Ours", "30.0"), ("full-pass", "31.0")]
    assert [(row.title, shown(other, row.title)) for row in other.rows] == [
        ("New idea", DASH),
        ("half", "30.0"),
        ("odd", "30.0"),
    ]
    assert shown(other, "half", "min", "paper") == "8.5"


def test_runs_with_other_settings_have_rows_of_their_own_below_the_papers() -> None:
    runs = [coco(variant="crs", departures={"lr": [0.01, lr]}, points=(lr * 100, 1.0, 1.0)) for lr in (0.2, 0.5)]
    fourth, _ = build(*runs).tables
    titles = [row.title for row in fourth.rows]
    assert titles[titles.index("CrS") :][:3] == ["CrS", "CrS [1]", "CrS [2]"]
    assert [shown(fourth, title) for title in ("CrS", "CrS [1]", "CrS [2]")] == [DASH, "20.0", "50.0"]
    assert "CrS [2]: lr 0.5." in fourth.notes
    (toy,) = build(*(dataclasses.replace(run, task="toy") for run in runs)).tables
    assert "CrS" not in [row.title for row in toy.rows]


def test_a_small_scale_is_not_passed_off_as_the_papers() -> None:
    small, full = (build(coco(preset=preset)).tables[0] for preset in ("mini", "full"))
    assert any("they do not compare" in note for note in small.notes)
    assert not any("they do not compare" in note for note in full.notes)


def test_a_variant_that_is_not_done_is_listed_and_not_averaged() -> None:
    report = build(record(variant="gbr"), record(variant="gbr", seed=1, status="failed"), record(status="running"))
    assert [(run.record.variant, run.record.status) for run in report.unfinished] == [("gbr", "failed")]
    assert shown(report.tables[0], "GbR", "n") == "1"


def test_a_variant_run_twice_with_one_seed_counts_once() -> None:
    report = build(record(variant="gbr"), record(variant="gbr", created="2026-02-01", points=(50.0, 50.0, 50.0)))
    assert shown(report.tables[0], "GbR") == "50.0"
    assert any("1 run(s) repeat a training seed" in note for note in report.notes)


@pytest.mark.parametrize("kind", RENDERERS)
def test_every_format_shows_rows_checks_and_both_numbers(kind: str) -> None:
    report = build(coco(variant="gbr+gbt", points=(25.7, 31.2, 10.6)))
    text = "\n".join(RENDERERS[kind]([report], ()).values())
    for part in ("GbT + GbR", "25.7", "25.8", r"$\theta$$^{p}$" if kind == "latex" else "θᵖ"):
        assert part in text
    if kind == "md":
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in rows[:20]} == {9}
        assert "| GbT + GbR |  | ✓ | ✓ | 25.7 | 31.2 | 10.6 | 1 |" in rows
    if kind == "html":
        assert text.count('<td class="check">✓</td>') == 12
        assert '<th scope="col" class="check">CrS</th>' in text


def test_the_terminal_shows_the_check_marks() -> None:
    stream = io.StringIO()
    print_rich(build(coco(variant="gbr")), Console(file=stream, width=150))
    (line,) = [line for line in stream.getvalue().splitlines() if line.startswith("│ GbR ")]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["GbR", "", "", "✓", "30.0", "40.0", "10.0", "1"]


def test_one_page_says_how_to_read_its_tables_once() -> None:
    runs = runs_of(coco(), coco(variant="gbr"))
    reports = [built(name, runs) for name in ("comparison", "ablation")]
    assert set(reports[0].notes) & set(reports[1].notes)
    first, second = notes_once(reports)
    assert first.notes == reports[0].notes
    assert not set(first.notes) & set(second.notes)
    assert RENDERERS["html"](reports, runs)["report.html"].count(reports[0].notes[0]) == 1
    for report in reports:
        assert report.notes[0].split(",")[0] in RENDERERS["md"]([report], runs)[f"{report.name}.md"]
