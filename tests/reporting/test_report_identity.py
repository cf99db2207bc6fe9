"""ap_all = sum_g n_g ap_g / sum_g n_g over scored classes: in the paper's tables, in records, in what reports say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from score_records import TOY_GROUPS, report_of, scored

from cissod_bench.records.record import RunRecord
from cissod_bench.rendering.formats import RENDERERS
from cissod_bench.reporting.consistency import Break, record_breaks, row_break, slack, weighted_mean
from cissod_bench.reporting.paper_tables import class_counts
from cissod_bench.reporting.tables import DAGGER, Table


def coco(**changes: Any) -> RunRecord:
    return scored(task="coco-split1", preset="full", **changes)


def with_columns(record: RunRecord, **columns: float | None) -> RunRecord:
    return dataclasses.replace(record, ap={"teacher": record.ap["teacher"] | columns})


def daggers(table: Table, *, paper: bool) -> set[tuple[str, str, str]]:
    return {
        (block.task, row.title, column)
        for block in table.blocks
        for row in table.rows
        for column in block.columns
        for cell in [table.cell(row, block, column)]
        if (cell.paper_odd if paper else cell.odd)
    }


def test_the_mean_of_groups_is_weighted_by_their_classes() -> None:
    # EQLv2 on split 1: (60 * 29.1 + 20 * 6.5) / 80 = 23.45
    assert weighted_mean({"maj": 29.1, "min": 6.5}, {"maj": 60, "min": 20}) == pytest.approx(23.45)
    assert weighted_mean({"maj": 30.0, "min": None}, {"maj": 60, "min": 0}) == 30.0
    assert weighted_mean({"maj": None}, {"maj": 0}) is None


@pytest.mark.parametrize(("value", "off"), [(23.4, 0.05), (30.0, 0.05), (23.45, 0.005), (23.456, 0.0005), (100 / 3, 0)])
def test_a_value_is_off_by_half_a_unit_of_its_last_decimal(value: float, off: float) -> None:
    assert slack(value) == pytest.approx(off)


def test_the_papers_four_misprinted_cells_are_found_and_no_other() -> None:
    (table,) = report_of("comparison", coco()).tables
    assert daggers(table, paper=True) == {("coco-split1", "EQLv2", "all"), ("coco-split1", "C2AM", "all")}
    for text in (
        "† EQLv2 on MS-COCO split 1, as printed: all is 22.8; the class-weighted mean of the printed groups is 23.45.",
        "† C2AM on MS-COCO split 1, as printed: all is 24.4; the class-weighted mean of the printed groups is 24.65.",
    ):
        assert text in table.notes
    fourth, fifth = report_of("ablation", coco()).tables
    assert daggers(fourth, paper=True) == set()
    assert {title for _, title, _ in daggers(fifth, paper=True)} == {"θᶜ", "LabelMatch"}
    assert [note.split(";")[1] for note in fifth.notes if "as printed" in note] == [
        " the class-weighted mean of the printed groups is 26.075.",
        " the class-weighted mean of the printed groups is 26.125.",
    ]
    second, third = report_of("comparison").blank[1:]
    assert daggers(second, paper=True) | daggers(third, paper=True) == set()
    assert class_counts("coco-o365") == {"maj": 78, "min": 287}
    assert class_counts("lvis") == {}  # the paper does not say how many are rare


def test_rounding_alone_is_no_misprint() -> None:
    # "all" is off by .05 at most and the mean of the groups by as much: .1
    row = {"maj": 30.0, "min": 10.0}
    assert row_break({"all": 25.1, **row}, {"maj": 60, "min": 20}) is None
    assert row_break({"all": 25.2, **row}, {"maj": 60, "min": 20}) == Break("all", 25.2, 25.0)
    assert row_break({"all": 25.2, "maj": 30.0}, {"maj": 60, "min": 20}) is None  # a group is not printed


def test_a_record_adds_up_over_the_classes_that_have_a_box() -> None:
    record = scored(aps=(40.1234567, None, 8.7654321))
    assert record_breaks(record) == ()
    # one scored class in each group: (1 * maj + 1 * min) / 2, and not (2 * maj + 1 * min) / 3
    wrong = (2 * 40.1234567 + 8.7654321) / 3
    (found,) = record_breaks(with_columns(record, all=wrong))
    assert (found.column, found.stated, found.implied) == ("all", wrong, pytest.approx((40.1234567 + 8.7654321) / 2))


def test_a_record_without_any_scored_class_is_undefined_and_adds_up() -> None:
    record = scored(aps=(None, None, None))
    assert record_breaks(record) == ()
    assert [one.column for one in record_breaks(with_columns(record, min=0.0))] == ["min"]


@pytest.mark.parametrize(
    ("by", "rounded", "odd"),
    [(5e-7, False, False), (5e-6, False, True), (0.04, True, False), (0.07, True, True)],
)
def test_unrounded_scores_agree_to_a_millionth_and_rounded_ones_to_half_a_unit(
    by: float, rounded: bool, odd: bool
) -> None:
    stated = 30.4 if rounded else 30 + 1 / 7
    record = scored(aps=(stated - by, stated - by, stated - by))
    changed = with_columns(record, all=stated, maj=stated - by, min=stated - by)
    assert [one.column for one in record_breaks(changed)] == ["all"] * odd


def test_without_classes_all_is_held_against_the_groups() -> None:
    bare = dataclasses.replace(scored(), per_class={})
    assert record_breaks(with_columns(bare, all=30.0, maj=40.0, min=10.0)) == ()
    (found,) = record_breaks(with_columns(bare, all=31.0, maj=40.0, min=10.0))
    assert (found.stated, found.implied) == (31.0, 30.0)
    assert record_breaks(dataclasses.replace(bare, groups={group: [] for group in TOY_GROUPS})) == ()


@pytest.mark.parametrize("name", ["comparison", "ablation"])
def test_a_note_names_the_run_whose_scores_do_not_add_up(name: str) -> None:
    good, bad = scored(seed=0, variant="gbr" * (name == "ablation")), scored(seed=1)
    bad = dataclasses.replace(with_columns(bad, all=31.0), variant=good.variant)
    (table,) = report_of(name, good, bad).tables
    what = "ours+gbr" if name == "ablation" else "ours"
    note = (
        f"† {what} on toy, preset mini, profile default, split seed 0, seed 1: all is 31; "
        "the class-weighted mean of its groups is 30."
    )
    assert note in table.notes
    assert {(title, column) for _, title, column in daggers(table, paper=False)} == {
        ("GbR" if name == "ablation" else "Ours", "all")
    }
    (clean,) = report_of(name, good).tables
    assert not any(DAGGER in note for note in clean.notes)


@pytest.mark.parametrize("kind", ["md", "latex", "html"])
def test_every_format_marks_the_cells(kind: str) -> None:
    report = report_of("comparison", with_columns(coco(), all=31.0))
    text = "\n".join(RENDERERS[kind]([report], ()).values())
    mark = r"$^{\dagger}$" if kind == "latex" else DAGGER
    own, printed = {"html": (f"31.0</span>{mark}", f"22.8</span>{mark}")}.get(kind, (f"31.0{mark}", f"22.8{mark}"))
    assert own in text
    assert printed in text
