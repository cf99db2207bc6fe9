"""What may share a cell: only runs that differ in nothing but the training seed and what changes no number."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pandas as pd
import pytest
from score_records import TOY_GROUPS, report_of, runs_of, scored

from cissod_bench.catalogue import Entry
from cissod_bench.contract.presets import MINI
from cissod_bench.records.record import FREE_SETTINGS, RunRecord
from cissod_bench.rendering.formats import RENDERERS
from cissod_bench.reporting.averaging import average, deciding_settings, repetition_key
from cissod_bench.reporting.contenders import sides_of
from cissod_bench.reporting.paper_tables import METHODS
from cissod_bench.reporting.tables import DASH

BASE: dict[str, Any] = {"settings": {"lr": 0.001, "workers": 1}, "hardware": {"world_size": 1}}


def counts(*records: RunRecord) -> list[int]:
    return sorted(
        int(table.cells.loc[index, "n"])
        for table in report_of("comparison", *records).tables
        for index in table.cells.index
        if table.cells.loc[index, "column"] == "all" and table.cells.loc[index, "source"] == "measured"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"split_sha256": "cd" * 32},
        {"split_seed": 1},
        {"preset": "smoke"},
        {"profile": "paper"},
        {"hardware": {"world_size": 8}},
        {"hardware": {}},
        {"backbone": {"file": "r50.pth", "sha256": "ab" * 32}},
        {"settings": {"lr": 0.002, "workers": 1}},
        {"departures": {"gbr.rate": [1.0, 2.0]}},
        {"variant": "gbr"},
        {"method": "rfs"},
        {"task": "coco-split1"},
    ],
    ids=str,
)
def test_runs_that_differ_in_what_changes_numbers_have_cells_of_their_own(change: dict[str, Any]) -> None:
    one, other = scored(**BASE), scored(seed=1, **{**BASE, **change})
    assert counts(one, other) == ([1] if "variant" in change else [1, 1])  # variants stand among the ablations
    assert counts(one, scored(seed=1, **BASE)) == [2]


@pytest.mark.parametrize("name", sorted(FREE_SETTINGS))
def test_settings_that_change_no_number_split_no_row_and_are_no_departure(name: str) -> None:
    records = [
        scored(
            method, seed, settings={"lr": 0.001, name: seed + 1}, departures={name: [5, seed + 1], "lr": [0.01, 0.001]}
        )
        for method in ("ours", "rfs")
        for seed in range(2)
    ]
    report = report_of("comparison", *records)
    assert [int(n) for n in report.tables[0].cells["n"].unique()] == [2]
    assert not any(name in note for note in (*report.tables[0].notes, *report.notes))
    page = RENDERERS["html"]([report], runs_of(*records))["report.html"]
    assert f"<code>{name}</code>" not in page
    assert "<code>lr</code>" in page
    assert page.count("<summary>Departures from the paper") == 1
    assert name not in deciding_settings(records[0])


def test_a_setting_that_an_older_record_lacks_has_its_default() -> None:
    old, new = scored(settings={"theta": 0.5}), scored(settings={"theta": 0.5, "nms_iou": 0.5})
    assert repetition_key(old) == repetition_key(new)
    assert repetition_key(old) != repetition_key(scored(settings={"theta": 0.5, "nms_iou": 0.6}))
    assert set(vars(MINI)) >= FREE_SETTINGS


def test_a_note_says_what_tells_rows_of_one_method_apart() -> None:
    runs = [scored(settings={"lr": 0.01}), scored(seed=1, settings={"lr": 0.5}, departures={"lr": [0.01, 0.5]})]
    (table,) = report_of("comparison", *runs).tables
    told = {note for note in table.notes if note.startswith("Ours [")}
    assert any(note.endswith(": lr as in the paper.") for note in told)
    assert any(note.endswith(": lr 0.5.") for note in told)
    worlds = [scored(hardware={"world_size": 1}), scored(seed=1, hardware={})]
    notes = report_of("comparison", *worlds).tables[0].notes
    assert {"Ours [1]: world_size 1.", "Ours [2]: world_size unknown."} <= set(notes)


@pytest.mark.parametrize("name", ["1", "2"])
def test_a_name_that_is_a_number_is_not_taken_for_a_numbered_row(name: str) -> None:
    runs = [
        scored(seed=0, settings={"lr": 0.1}, aps=(30.0, 30.0, 30.0)),
        scored(seed=1, settings={"lr": 0.2}, aps=(60.0, 60.0, 60.0)),
        scored(seed=2, settings={"lr": 0.3}, aps=(90.0, 90.0, 90.0), name=name),
    ]
    assert counts(*runs) == [1, 1, 1]
    table = report_of("comparison", *runs).tables[0]
    cells = table.cells[(table.cells["column"] == "all") & (table.cells["source"] == "measured")]
    assert sorted(cells["mean"]) == pytest.approx([30.0, 60.0, 90.0])
    assert dict(zip(cells["mark"], cells["mean"], strict=True))[name] == pytest.approx(90.0)
    sides = [side.title for side in sides_of(runs_of(*runs), {})]
    assert sorted(sides) == sorted(cells["title"])
    assert len(set(sides)) == 3


def test_a_note_says_so_where_runs_are_of_several_versions_of_the_program() -> None:
    old, new = ({"cissod-bench": number, "torch": number} for number in ("0.1.0", "0.2.0"))
    note = "Runs of Toy shapes are of several versions of cissod-bench: 0.1.0 (Ours), {}; what moved between them"
    for others, told in (
        ([scored(seed=1, versions=new)], "0.2.0 (Ours)"),
        ([scored("rfs", versions=new), scored(seed=1, versions=new)], "0.2.0 (RFS, Ours)"),
        ([scored(seed=1)], "unknown (Ours)"),
    ):
        (table,) = report_of("comparison", scored(versions=old), *others).tables
        assert [text for text in table.notes if text.startswith(note.format(told))]
    torch = scored(seed=1, versions=old | {"torch": "3.0"})
    for same in ([torch], [scored(seed=1, versions=new, split_sha256="cd" * 32)]):
        (table,) = report_of("comparison", scored(versions=old), *same).tables
        assert not any("versions" in text for text in table.notes)


FREQUENCY = {"f": ["disc"], "c": ["ring"], "r": ["star"]}
ALONE = {"classes": ["disc", "ring", "star"]}
BY_LIST, BY_COUNT = {"all", "maj", "min"}, {"all", "f", "c", "r"}


@pytest.mark.parametrize(
    ("draws", "columns"),
    [
        ("ab", [BY_LIST, BY_COUNT]),
        ("ba", [BY_COUNT, BY_LIST]),
        ("aa", [BY_LIST | BY_COUNT]),  # parts that a user has already have one hash, however he divides their classes
    ],
)
def test_runs_whose_classes_are_divided_anew_keep_all_their_scores(draws: str, columns: list[set[str]]) -> None:
    first, second = (64 * letter for letter in draws)
    runs = [scored("ours", split_sha256=first), scored("rfs", split_sha256=second, groups=FREQUENCY)]
    for order in (runs, runs[::-1]):
        table = report_of("comparison", *order).tables[0]
        assert [set(block.columns) for block in table.blocks] == columns
        shown: dict[str, dict[str, str]] = {}
        for row, block in itertools.product(table.rows, table.blocks):
            texts = {column: table.cell(row, block, column).text for column in block.columns}
            shown.setdefault(row.method, {}).update({name: text for name, text in texts.items() if text != DASH})
        assert shown["ours"] == {"all": "30.0", "maj": "41.0", "min": "8.0"}
        assert shown["rfs"] == {"all": "30.0", "f": "40.0", "c": "42.0", "r": "8.0"}


def test_groups_of_one_name_with_other_classes_are_told() -> None:
    def notes(*groups: dict[str, list[str]]) -> list[str]:
        runs = [
            scored(seed=seed, groups=own, aps=range(sum(map(len, own.values())))) for seed, own in enumerate(groups)
        ]
        (table,) = report_of("comparison", *runs).tables
        return [note for note in table.notes if "groups" in note]

    moved = {"maj": ["disc"], "min": ["star", "ring"]}
    (told,) = notes(TOY_GROUPS, moved)
    assert told.endswith('compare "all" alone. Not in all runs\' groups: maj (ring), min (ring).')
    (told,) = notes({"maj": [*"abcdefg"], "min": ["h"]}, {"maj": ["a"], "min": ["h", *"bcdefg"]})
    assert "maj (b, c, d, e, f and 1 more), min (b," in told
    in_another_order = {"min": ["star"], "maj": ["ring", "disc"]}
    assert notes(TOY_GROUPS, in_another_order) == notes(TOY_GROUPS, FREQUENCY) == []


def test_a_spread_over_splits_has_the_groups_of_its_own_runs() -> None:
    runs = [
        scored(split_sha256=f"{preset}{seed}" * 32, split_seed=seed, groups=groups, preset=name)
        for preset, name, groups in ((1, "mini", FREQUENCY), (2, "smoke", TOY_GROUPS), (3, "full", ALONE))
        for seed in range(2)
    ]
    listings = report_of("split_spread", *runs).listings
    assert [{line[1] for line in listing.lines} for listing in listings] == [{"all"}, BY_COUNT, BY_LIST]


def test_weights_of_one_name_with_other_bytes_are_other_weights() -> None:
    ours, other, rfs = (
        scored(method, seed, backbone={"file": "r50.pth", "sha256": 64 * letter}, settings={"pretrained": "r50.pth"})
        for method, seed, letter in (("ours", 0, "a"), ("ours", 1, "b"), ("rfs", 0, "b"))
    )
    assert counts(ours, other) == [1, 1]
    assert counts(other, dataclasses.replace(other, seed=2)) == [2]
    notes = report_of("comparison", ours, other).tables[0].notes
    assert {"Ours [1]: weights aaaaaaaaaaaa.", "Ours [2]: weights bbbbbbbbbbbb."} <= set(notes)
    (table,) = report_of("comparison", ours, rfs).tables
    assert any("differ in settings as well as in methods: weights" in note for note in table.notes)
    (listing,) = report_of("paired", ours, rfs).listings
    assert listing.notes == ("RFS: not compared, it was run with other settings (weights).",)


def test_a_mark_that_means_two_things_is_explained_for_each_task() -> None:
    runs = [
        scored(task=task, seed=seed, settings={"lr": lr})
        for task, rates in (("coco-split1", (0.1, 0.2)), ("coco-split2", (0.3, 0.4)))
        for seed, lr in enumerate(rates)
    ]
    notes = report_of("comparison", *runs).tables[0].notes
    assert "Ours [1] on MS-COCO split 1: lr 0.1." in notes
    assert "Ours [1] on MS-COCO split 2: lr 0.3." in notes


def test_rows_with_no_settings_in_common_are_said_to_differ_in_them() -> None:
    ours, rfs = scored(**BASE), scored("rfs", settings={"lr": 0.5, "workers": 4}, hardware={"world_size": 1})
    (table,) = report_of("comparison", ours, rfs).tables
    note = "Rows of Toy shapes differ in settings as well as in methods: lr 0.001 (Ours), 0.5 (RFS)."
    assert note in table.notes
    both = report_of("comparison", ours, rfs, scored("rfs", seed=1, **BASE)).tables[0]
    assert not any("differ in settings" in note for note in both.notes)


def test_a_run_without_a_column_does_not_count_in_it() -> None:
    frame = pd.DataFrame({"key": ["a", "a", "b", "b"], "ap": [1.0, None, None, None]})
    found = average(frame)
    assert list(found["n"]) == [1, 2]
    assert found["mean"][0] == 1.0
    assert pd.isna(found["mean"][1])


def test_tables_of_the_paper_have_its_rows_whatever_the_catalogue_holds() -> None:
    everything = {name: Entry(name, title, "", "") for name, title in METHODS.items()}
    titles = list(METHODS.values())
    runs = [scored(task="coco-split1"), scored(task="lvis", groups={"f": ["a"], "c": ["b"], "r": ["c"]})]
    for methods in ({}, everything):
        first, third = report_of("comparison", *runs, methods=methods).tables
        assert [row.title for row in first.rows] == titles
        assert [row.title for row in third.rows] == [one for one in titles if one not in ("CReST", "DeFRCN")]
    ran = scored("crest", task="lvis", groups={"f": ["a"], "c": ["b"], "r": ["c"]})
    (table,) = report_of("comparison", ran, methods=everything).tables
    assert "CReST" in [row.title for row in table.rows]


def test_tables_that_nothing_ran_for_are_blank_and_complete() -> None:
    report = report_of("comparison", scored(task="coco-split2"))
    assert [table.name for table in report.tables] == ["Table 1"]
    assert [table.name for table in report.blank] == ["Table 2", "Table 3"]
    second, third = report.blank
    assert [len(second.rows) - 8, len(third.rows) - 6] == [0, 0]
    assert {second.cell(row, second.blocks[0], "all").measured for row in second.rows} == {"–"}
    best = [row.title for row in second.rows if second.cell(row, second.blocks[0], "maj").paper_best]
    assert best == ["Ours"]


@pytest.mark.parametrize(
    ("seeds", "best"),
    [
        ({"soft-teacher": 3, "rfs": 3, "ours": 1}, {"rfs"}),  # ours is the highest, by one seed
        ({"soft-teacher": 2, "rfs": 2, "ours": 2}, {"ours"}),
        ({"soft-teacher": 1, "rfs": 1, "ours": 3}, set()),  # nothing to compare it with
    ],
)
def test_only_rows_with_the_most_training_seeds_are_the_best(seeds: dict[str, int], best: set[str]) -> None:
    aps = {"soft-teacher": 30.0, "rfs": 31.0, "ours": 32.0}
    runs = [scored(name, seed, (aps[name], 40.0, 10.0)) for name, n in seeds.items() for seed in range(n)]
    (table,) = report_of("comparison", *runs).tables
    column = table.blocks[0].columns[0]
    assert {row.method for row in table.rows if table.cell(row, table.blocks[0], column).best} == best
