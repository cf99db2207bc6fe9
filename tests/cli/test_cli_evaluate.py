"""The commands evaluate, report and methods as a user calls them: output, JSON, exit codes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cissod_bench.cli import entry
from cissod_bench.records.run_folder import read_record, run_folder, write_record
from cissod_bench.splitting.data_files import FILES
from cissod_bench.splitting.manifest import split_sha256

SCHEMA1 = Path(__file__).parents[1] / "data" / "run_schema1.json"
VAL = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "star"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"image_id": 2, "category_id": 2, "bbox": [5, 5, 20, 20]},
    ],
}
FOUND = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Return a function that runs ``cissod-bench`` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("CISSOD_DATA", "CISSOD_WORK"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["cissod-bench", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            entry()
        return Answer(int(caught.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Return a split folder of a task with data/val.json and work/found.json beside it."""
    (tmp_path / "data").mkdir()
    val = tmp_path / "data" / "val.json"
    val.write_text(json.dumps(VAL))
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    folder = tmp_path / "work" / "splits" / "mine" / "seed0"
    folder.mkdir(parents=True)
    files = dict.fromkeys(FILES, "ab" * 32)
    source = {"path": "val.json", "sha256": hashlib.sha256(val.read_bytes()).hexdigest()}
    manifest = {
        **{"schema": 1, "task": "mine", "title": "My task", "split_seed": 0, "cover": "uniform", "algorithm": 1},
        **{"labelled_percent": 10.0, "min_instances": 1, "minority": ["star"], "dm_minority": "drop"},
        **{"counts": {"labelled": 0, "unlabelled": 0}, "boxes": {"labelled": 0, "ignored": 0, "hidden": 0}},
        **{"groups": {"maj": ["disc"], "min": ["star"]}, "classes": ["disc", "star"], "per_group": {}},
        **{"per_class": {name: {"images": 0, "boxes": 0} for name in ("disc", "star")}, "box_policy": {}},
        **{"imbalance": 1.0, "below_minimum": ["star"], "images": {}, "metric": "coco", "max_dets": 100},
        **{"inputs": {"val": source}, "val": source, "files": files, "split_sha256": split_sha256(files)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_evaluate_prints_all_and_groups(call: Call, split: Path) -> None:
    answer = call("evaluate", "--predictions", "found.json", "--split", split)
    assert answer.code == 0
    for part in ("My task", "hotcoco 1.3.0", "all", "maj", "min", "50.0", "100.0", "0.0"):
        assert part in answer.out
    assert "disc" not in answer.out
    assert "disc" in call("evaluate", "--predictions", "found.json", "--split", split, "--per-class").out


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_evaluate_json_has_the_promised_keys(call: Call, split: Path, engine: str) -> None:
    answer = call("--json", "evaluate", "--predictions", "found.json", "--split", split, "--engine", engine)
    value = json.loads(answer.out)
    assert list(value) == ["all", "maj", "min", "per_class", "engine"]
    assert [value[key] for key in ("all", "maj", "min")] == pytest.approx([50, 100, 0])
    assert value["per_class"] == pytest.approx({"disc": 100, "star": 0})
    assert value["engine"].startswith(engine)


@pytest.fixture
def lvis_split(split: Path, tmp_path: Path) -> Path:
    """Return the same split as that of a federated task, with official groups beside its own."""
    images = [{"id": i, "neg_category_ids": [1, 2], "not_exhaustive_category_ids": []} for i in (1, 2)]
    val = tmp_path / "data" / "val.json"
    val.write_text(json.dumps(VAL | {"images": images}))
    manifest = json.loads((split / "manifest.json").read_text())
    source = {"path": "val.json", "sha256": hashlib.sha256(val.read_bytes()).hexdigest()}
    groups = {"groups": {"f": [], "c": ["disc"], "r": ["star"]}, "minority": [], "metric": "lvis", "naming": "coco_url"}
    views = {"official": {"f": ["star"], "c": ["disc"], "r": []}}
    manifest |= {**groups, "views": views, "inputs": {"val": source}, "val": source}
    (split / "manifest.json").write_text(json.dumps(manifest))
    return split


@pytest.mark.parametrize("engine", ["hotcoco", "lvis"])
def test_evaluate_scores_a_federated_split_by_its_own_or_the_official_groups(
    call: Call, lvis_split: Path, engine: str
) -> None:
    words = ("--json", "evaluate", "--predictions", "found.json", "--split", lvis_split, "--engine", engine)
    own, official = (json.loads(call(*words, "--groups", view).out) for view in ("split", "official"))
    assert list(own) == list(official) == ["all", "f", "c", "r", "per_class", "engine"]
    assert [own[key] for key in "fcr"] == [None, pytest.approx(100), 0]
    assert [official[key] for key in "fcr"] == [0, pytest.approx(100), None]
    assert own["all"] == official["all"] == pytest.approx(50)
    assert own["engine"].startswith(f"{engine} ")


def test_evaluate_prints_the_classes_by_the_groups_asked_for(call: Call, lvis_split: Path) -> None:
    words = ("evaluate", "--predictions", "found.json", "--split", lvis_split, "--per-class", "--groups", "official")
    out = call(*words).out
    assert "official groups" in out
    lines = [line.split() for line in out.splitlines()]
    assert next(line for line in lines if "star" in line)[3] == "f"


def test_evaluate_takes_the_number_and_floor_of_detections_from_the_split_or_the_caller(
    call: Call, lvis_split: Path, tmp_path: Path
) -> None:
    weak = FOUND[0] | {"score": 0.04}
    (tmp_path / "found.json").write_text(json.dumps([weak, weak | {"category_id": 2, "score": 0.045}]))
    words = ("--json", "evaluate", "--predictions", "found.json", "--split", lvis_split)
    file = lvis_split / "manifest.json"
    manifest = json.loads(file.read_text())

    def ap_of_discs(*more: str) -> float:
        value: float = json.loads(call(*words, *more).out)["c"]
        return value

    assert ap_of_discs() == pytest.approx(100)
    assert ap_of_discs("--max-dets", "1") == 0
    assert ap_of_discs("--score-floor", "0.05") == 0
    file.write_text(json.dumps(manifest | {"max_dets": 1}))
    assert ap_of_discs() == 0
    file.write_text(json.dumps(manifest | {"score_floor": 0.05}))
    assert ap_of_discs() == 0
    assert ap_of_discs("--max-dets", "300", "--score-floor", "0.0001") == pytest.approx(100)


def test_evaluate_takes_another_ground_truth(call: Call, split: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(VAL | {"annotations": VAL["annotations"][:1]}))
    value = json.loads(
        call("evaluate", "--json", "--predictions", "found.json", "--split", split, "--ground-truth", other).out
    )
    assert (value["all"], value["min"]) == (pytest.approx(100), None)


def test_evaluate_refuses_a_validation_file_the_split_was_not_drawn_for(
    call: Call, split: Path, tmp_path: Path
) -> None:
    (tmp_path / "data" / "val.json").write_text(json.dumps(VAL) + " ")
    answer = call("evaluate", "--predictions", "found.json", "--split", split)
    assert answer.code == 3
    assert "its sha256 differs" in answer.err
    assert "--ground-truth" in answer.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--predictions", "nowhere.json", "--split", "SPLIT"], 3, "nowhere.json: there is no such file"),
        (["--predictions", "found.json", "--split", "nowhere"], 3, "nowhere holds no split"),
        (
            ["--predictions", "found.json", "--split", "SPLIT", "--data-root", "empty"],
            3,
            "empty/val.json does not exist",
        ),
        (["--predictions", "found.json", "--split", "SPLIT", "--engine", "hotcoca"], 2, "Did you mean 'hotcoco'"),
        (["--predictions", "found.json", "--split", "SPLIT", "--max-dets", "0"], 2, "at least 1"),
        (["--predictions", "found.json", "--split", "SPLIT", "--score-floor", "nan"], 2, "a finite score"),
        (["--predictions", "found.json", "--split", "SPLIT", "--engine", "lvis"], 2, "the metric 'coco'"),
        (["--predictions", "found.json", "--split", "SPLIT", "--groups", "official"], 2, "has no class groups 'offi"),
        (["--predictions", "data/val.json", "--split", "SPLIT"], 3, "Expected `array`, got `object`"),
        (["--split", "SPLIT"], 2, "--predictions"),
    ],
)
def test_evaluate_names_what_is_wrong(call: Call, split: Path, words: list[str], code: int, message: str) -> None:
    answer = call("evaluate", *(str(split) if word == "SPLIT" else word for word in words))
    assert answer.code == code
    assert message in answer.err
    assert "Traceback" not in answer.err


def write_runs(work: Path, **changes: Any) -> None:
    record = read_record(SCHEMA1)
    for key, value in changes.items():
        setattr(record, key, value)
    folder = run_folder(work, record.task, 0, record.method, record.variant, record.preset, record.profile, record.seed)
    write_record(folder, record)


def test_report_prints_the_table_and_writes_the_page(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "work")
    write_runs(tmp_path / "work", seed=2, status="interrupted")
    answer = call("report")
    assert answer.code == 0
    for part in (
        "12.5",
        "n/a",
        "preset smoke, profile default, split seed 0",
        "(interrupted)",
        "work/reports/report.html",
    ):
        assert part in answer.out
    page = (tmp_path / "work" / "reports" / "report.html").read_text()
    assert "12.5" in page
    assert "interrupted" in page


def test_report_writes_the_formats_asked_for_where_it_is_told(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "elsewhere")
    answer = call("report", "--runs", "elsewhere", "--format", "csv,md", "--out", "there")
    assert answer.code == 0
    names = {"comparison.csv", "comparison_figures.csv", "comparison.md", "runs.csv"}
    names |= {"looking.md"}  # says that the run keeps no predictions to look at
    assert {path.name for path in (tmp_path / "there").iterdir()} == names
    assert "12.5" not in answer.out


def test_report_writes_latex_and_the_papers_tables_that_nothing_ran_for(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "work")
    assert call("report", "--format", "latex").code == 0
    text = (tmp_path / "work" / "reports" / "comparison.tex").read_text()
    assert "12.5" in text
    assert "Table 2" not in text
    answer = call("report", "--format", "latex,rich", "--all-tables")
    text = (tmp_path / "work" / "reports" / "comparison.tex").read_text()
    for part in ("Table 1: ", "Table 2: ", "Table 3: "):
        assert part in text
        assert part in answer.out


def test_report_json_lists_cells_and_unfinished_runs(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "work")
    write_runs(tmp_path / "work", seed=2, status="failed")
    value = json.loads(call("--json", "report").out)
    cells = {cell["column"]: cell["mean"] for cell in value["reports"]["comparison"] if cell["n"]}
    assert cells == {"all": 12.5, "maj": 20.0, "min": None}
    assert [run["status"] for run in value["unfinished"]] == ["failed"]
    assert value["files"] == ["work/reports/report.html"]


def test_report_without_runs_says_what_to_run(call: Call, tmp_path: Path) -> None:
    answer = call("report")
    assert answer.code == 3
    assert "there is no run to report on" in answer.err
    assert "cissod-bench run --method soft-teacher --task toy" in answer.err
    assert not (tmp_path / "work").exists()


def test_report_passes_over_a_broken_record_with_a_warning(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "work")
    broken = tmp_path / "work" / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    answer = call("report")
    assert answer.code == 0
    assert "broken/run.json: not a run record" in answer.err


def test_report_answers_an_unknown_format_with_those_there_are(call: Call) -> None:
    answer = call("report", "--format", "rich,htm")
    assert answer.code == 2
    assert "Did you mean 'html'" in answer.err


def test_methods_lists_name_title_source_and_what_each_does(call: Call) -> None:
    rows = json.loads(call("methods", "--json").out)
    rfs = next(row for row in rows if row["name"] == "rfs")
    assert (rfs["title"], rfs["source"]) == ("RFS", "Sec. 4.3, Tables 1-3")
    assert rfs["summary"] == "draws images of D_l with rare classes more often"
    assert all(row["summary"] for row in rows)
    assert all(set(row) == {"name", "title", "source", "summary"} for row in rows)
    assert "Soft Teacher" in call("methods").out


def test_methods_shows_one_with_its_citation_and_the_papers_numbers(call: Call) -> None:
    answer = call("methods", "soft_teacher")
    assert answer.code == 0
    for part in ("End-to-End Semi-Supervised", "coco-split1", "23.6", "D_l with boxes"):
        assert part in answer.out
    facts = json.loads(call("--json", "methods", "soft-teacher").out)
    assert facts["reported"]["coco-split1"]["min"] == 1.5
    assert "no competitor" in call("methods", "oracle").out


def test_methods_answers_an_unknown_name_with_near_ones(call: Call) -> None:
    answer = call("methods", "soft-techer")
    assert answer.code == 2
    assert "Did you mean 'soft-teacher'" in answer.err


def test_help_and_listing_load_nothing_heavy() -> None:
    probe = (
        "import sys\n"
        "from cissod_bench.cli import main\n"
        "for words in (['evaluate', '--help'], ['report', '--help'], ['methods', '--json']):\n"
        "    main.main(words, standalone_mode=False)\n"
        "heavy = {'torch', 'mmdet', 'mmcv', 'mmengine', 'pandas', 'matplotlib', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(repr(sorted(heavy)) if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def test_report_shows_methods_that_ran_and_all_of_them_where_that_is_asked_for(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "work")
    shown, every = call("report").out, call("report", "--all").out
    title = "Soft Teacher"  # the method of the record
    assert title in shown
    assert "DeFRCN" not in shown
    assert all(name in every for name in (title, "DeFRCN", "EQLv2"))


def test_runs_of_two_names_stand_in_rows_of_their_own_and_in_the_list(call: Call, tmp_path: Path) -> None:
    write_runs(tmp_path / "work")
    record = read_record(SCHEMA1)
    names = (record.task, 0, record.method, record.variant, record.preset, record.profile, record.seed)
    for name in ("lr=0.02", "wide"):
        write_record(run_folder(tmp_path / "work", *names, name), replace(record, name=name))
    out = call("report").out
    assert "[lr=0.02]" in out
    assert "[wide]" in out
    listed = {run["name"]: run["dir"] for run in json.loads(call("--json", "runs", "list").out)}
    assert set(listed) == {"", "lr=0.02", "wide"}
    assert listed["wide"].endswith("/smoke-default+wide/seed1")
