"""The kept runs below results/: sound, and what the pages say of them is what the report makes of them."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType

import pytest
from click.testing import CliRunner

from cissod_bench.catalogue import list_methods
from cissod_bench.cli import main
from cissod_bench.records.run_folder import Run, find_runs

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/league.md", "docs/methods.md")
KEPT = {"run.json", "pseudo_labels.jsonl"}


@cache
def script() -> ModuleType:
    """scripts/tables.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("tables_script", ROOT / "scripts" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def kept_runs() -> list[Run]:
    return find_runs(ROOT / "results")


@cache
def kept_tables() -> Mapping[str, str]:
    return MappingProxyType(script().tables_of(kept_runs()))


def test_every_kept_run_is_finished_and_small() -> None:
    found = find_runs(ROOT / "results")
    assert found
    for folder, record in ((run.folder, run.record) for run in found):
        assert (record.status, record.profile) == ("done", "default"), folder
        assert record.preset == ("photo" if record.task.startswith("voc") else "mini"), folder
        assert "/" not in record.backbone.get("file", ""), folder  # of the machine that it ran on
        files = {path.name: path.stat().st_size for path in folder.iterdir()}
        assert set(files) <= KEPT, folder
        assert sum(files.values()) < 200_000, folder


def test_kept_runs_of_a_task_and_split_seed_share_their_split_and_settings() -> None:
    seen: dict[tuple[str, int], set[str]] = {}
    settings: dict[str, set[str]] = {}
    for record in (run.record for run in kept_runs()):
        seen.setdefault((record.task, record.split_seed), set()).add(record.split_sha256)
        kept = {name: value for name, value in record.settings.items() if name != "workers"}
        settings.setdefault(record.task, set()).add(json.dumps(kept, sort_keys=True))
    assert all(len(shas) == 1 for shas in seen.values())
    assert all(len(own) == 1 for own in settings.values())


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_the_pages_are_those_of_the_kept_runs(page: str) -> None:
    """`make tables` writes them; here nothing may be left to write."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(re.findall(r"<!-- table: ", text)) == len(re.findall(r"<!-- end -->", text)) > 0
    assert script().filled(text, kept_tables()) == text


def test_every_method_has_a_card() -> None:
    """With a heading that its line in the table links to; the paper's AP stands in it, and ours."""
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- table: card of (\S+) -->", page)) == set(list_methods())
    assert {f"(#{name})" for name in list_methods()} <= set(re.findall(r"\(#\S+\)", page))
    card = kept_tables()["card of c2am"]
    row = next(line for line in kept_tables()["VOC animals"].splitlines() if line.startswith("| C2AM |"))
    _, _, every, majority, minority, seeds, _ = (cell.strip(" *") for cell in row.split("|"))
    assert "| paper, LVIS | 8.6 | 22.1 | 12.3 | 3.7 |" in card
    assert f"| here, VOC animals ({seeds} seeds) | {every} | {majority} | – | {minority} |" in card
    assert "* no code was released" in card


def test_a_table_may_stand_beside_the_papers_numbers_of_a_task() -> None:
    lines = script().beside_paper(
        "|  | all |\n| --- | ---: |\n| Ours | **1.0** |\n| *Oracle (x)* (reference) | 2.0 |", "lvis"
    )
    assert lines.splitlines() == [
        "|  | all | paper: all | paper: f | paper: c | paper: r |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| Ours | **1.0** | **8.9** | 21.7 | 12.3 | **4.2** |",
        "| *Oracle (x)* (reference) | 2.0 | – | – | – | – |",
    ]


def test_the_readmes_output_of_report_is_what_the_command_prints(tmp_path: Path) -> None:
    """Line by line; "..." stands for lines left out."""
    command = "cissod-bench report --runs results"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split(f"$ {command}\n")[1].split("```")[0].splitlines()
    words = [*command.split()[1:3], str(ROOT / "results"), "--work-dir", str(tmp_path / "work")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    printed = [line.rstrip().replace(str(tmp_path / "work"), "work") for line in done.stdout.splitlines()]
    assert len(shown) > 5
    assert [line for line in shown if line != "..." and line not in printed] == []


def test_the_pictures_of_the_pages_are_those_of_the_kept_runs() -> None:
    """Byte for byte: the same numbers give the same drawing."""
    for picture, data in script().pictures_of(kept_runs()).items():
        assert (ROOT / picture).read_bytes() == data, picture
        assert any(Path(picture).name in (ROOT / page).read_text(encoding="utf-8") for page in PAGES), picture


def test_pseudo_labels_of_a_method_are_those_of_its_last_two_generations() -> None:
    """Recomputed from the files: ours on the toy task, minority, 10 generations."""
    files = (ROOT / "results" / "toy" / "split0" / "ours").glob("*/seed*/pseudo_labels.jsonl")
    lines = [json.loads(text) for file in files for text in file.read_text(encoding="utf-8").splitlines()]
    own = [line for line in lines if line["group"] == "min" and line["generation"] in {9, 10}]
    detected, correct, boxes = (sum(line[name] for line in own) for name in ("detected", "correct", "boxes"))
    theta, w = (sum(line[name] for line in own) / len(own) for name in ("theta", "w"))
    table = kept_tables()["pseudo labels of Toy shapes"].splitlines()
    row = next(at for at, text in enumerate(table) if text.startswith("| Ours |")) + 1
    cells = [cell.strip() for cell in table[row].split("|")][2:7]
    assert cells == [
        "minority", f"{100 * correct / detected:.1f}", f"{100 * correct / boxes:.1f}", f"{theta:.2f}", f"{w:.2f}",
    ]  # fmt: skip


def test_runs_on_other_splits_are_in_the_spread_over_splits_alone() -> None:
    """Split seed 1 is made of the kept runs on split seed 0, with other scores."""
    tables = script()
    first = [run for run in kept_runs() if run.record.split_seed == 0]
    other = [
        Run(
            run.folder,
            replace(record, split_seed=1, split_sha256="1" * 64, ap={"teacher": dict.fromkeys(record.groups, 1.0)}),
        )
        for run, record in ((run, run.record) for run in first)
        if (record.task, record.method, record.variant, record.seed) == ("toy", "ours", "", 0)
    ]
    before = kept_tables() if first == kept_runs() else tables.tables_of(first)
    after = tables.tables_of([*first, *other])
    assert len(other) == 1
    assert {title: table for title, table in after.items() if "Spread over splits" not in title} == {
        title: table for title, table in before.items() if "Spread over splits" not in title
    }
    assert "Spread over splits: Toy shapes" in after
    assert "Spread over splits: Toy shapes" not in before


def test_a_number_that_is_changed_by_hand_is_noticed() -> None:
    tables = script()
    made = kept_tables()
    page = f"before\n<!-- table: Toy shapes -->\n{made['Toy shapes']}\n<!-- end -->\nafter\n"
    assert tables.filled(page, made) == page
    digit = re.search(r"\d\d\.\d", page)
    assert digit is not None
    assert tables.filled(page.replace(digit[0], "99.9", 1), made) == page


def test_a_marker_of_a_table_that_is_not_there_is_refused() -> None:
    tables = script()
    with pytest.raises(KeyError, match="no table 'Toy shape'"):
        tables.filled("<!-- table: Toy shape -->\n<!-- end -->", {"Toy shapes": ""})
