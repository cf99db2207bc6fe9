"""What `presets` and `methods` say of presets, profiles and methods: their settings, and where they depart."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import tiny_plan

from cissod_bench.catalogue import list_methods, load_method
from cissod_bench.cli import main
from cissod_bench.cli.run import describe
from cissod_bench.contract import fidelity
from cissod_bench.contract.presets import preset
from cissod_bench.errors import UsageFault
from cissod_bench.records.run_folder import find_runs

ROOT = Path(__file__).resolve().parents[2]


def call(*words: str) -> Result:
    return CliRunner().invoke(main, [*words], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_official_says_what_it_leaves_out() -> None:
    shown = squeezed(call("presets", "official").stdout)
    assert all(squeezed(words) in shown for words in fidelity.NOT_REPRODUCED.values())
    row = json.loads(call("presets", "official", "--json").stdout)
    assert row["differs"] == dict(fidelity.NOT_REPRODUCED)
    assert "last annotation" in row["differs"]["RFS on LVIS"]
    assert "probability 1/5" in row["differs"]["batches"]


def test_paper_says_what_the_text_leaves_open_and_default_leaves_nothing_out() -> None:
    assert "Nie et al." in squeezed(call("presets", "paper").stdout)
    assert json.loads(call("presets", "default", "--json").stdout)["differs"] == {}


@pytest.mark.parametrize("name", ["full", "fine-tune", "photo", "mini", "smoke"])
def test_a_preset_says_where_every_run_differs_from_soft_teachers_release(name: str) -> None:
    shown = squeezed(call("presets", name).stdout)
    assert all(squeezed(words) in shown for words in fidelity.NOT_SOFT_TEACHERS.values())
    used = json.loads(call("presets", name, "--json").stdout)
    assert used == json.loads(json.dumps(asdict(preset(name, task_iterations=180_000))))


def test_the_list_counts_the_points_of_each() -> None:
    rows = {row["name"]: row for row in json.loads(call("presets", "--json").stdout)}
    assert list(rows) == ["full", "fine-tune", "photo", "mini", "smoke", "default", "paper", "official"]
    assert "nothing else" not in json.dumps(rows)
    assert len(rows["official"]["differs"]) == len(fidelity.NOT_REPRODUCED)
    assert f"{len(fidelity.NOT_REPRODUCED)} points" in call("presets").stdout


@pytest.mark.parametrize(("processes", "words"), [(1, "5 where the paper has 40: 12.5% of its images"), (8, "")])
def test_a_run_of_full_says_which_share_of_the_papers_images_it_sees(
    tmp_path: Path, processes: int, words: str
) -> None:
    plan = tiny_plan(tmp_path, "soft-teacher", "unlabelled_per_gpu=4", preset_name="full")
    (batch,) = (line for line in describe(plan, processes) if line.startswith("  batch "))
    assert ("where the paper" in batch) == bool(words)
    assert words in batch
    small = describe(tiny_plan(tmp_path), processes)
    assert not any("where the paper" in line for line in small)


def test_an_unknown_name_is_answered_with_presets_and_profiles() -> None:
    fault = call("presets", "offical").exception
    assert isinstance(fault, UsageFault)
    assert "Did you mean 'official'" in str(fault)
    assert fault.remedy == "cissod-bench presets"


@pytest.mark.parametrize("name", list_methods())
def test_every_method_is_shown_with_what_it_trains_on(name: str) -> None:
    done = call("methods", name)
    assert done.exit_code == 0, done.exception
    assert "trains on" in done.stdout


@pytest.mark.parametrize("name", ["c2am", "crest", "daso", "defrcn", "eqlv2"])
def test_a_baseline_says_where_it_is_not_as_in_its_own_paper(name: str) -> None:
    method = load_method(name)
    assert method.departures
    assert list_methods()[name].literals["departures"] == method.departures  # listed without an import
    shown = squeezed(call("methods", name).stdout)
    assert all(squeezed(words) in shown for words in method.departures)
    assert json.loads(call("methods", name, "--json").stdout)["departures"] == list(method.departures)


@pytest.mark.parametrize("name", ["c2am", "crest", "daso", "defrcn", "eqlv2"])
def test_a_departure_names_variants_that_exist(name: str) -> None:
    method = load_method(name)
    named = {v for words in method.departures for v in re.findall(r"\(variant ([\w.+-]+)", words)}
    assert named <= method.variants.keys()


def test_the_readme_names_the_methods_below_soft_teacher_on_the_minority_and_no_others() -> None:
    found: dict[tuple[str, str], list[float]] = {}
    for record in (run.record for run in find_runs(ROOT / "results")):
        if record.preset == "mini" and record.split_seed == 0 and not record.variant:
            rarest = record.ap["teacher"]["min" if record.task == "toy" else "r"]
            found.setdefault((record.task, record.method), []).append(rarest or 0.0)
    means = {key: sum(values) / len(values) for key, values in found.items()}
    titles = {entry.name: entry.title for entry in list_methods().values()}
    below = {titles[m] for (task, m), mean in means.items() if task == "toy" and mean < means["toy", "soft-teacher"]}
    text = squeezed((ROOT / "README.md").read_text(encoding="utf-8"))
    said = re.search(r"(?<=\. The means of )([^.]*) are below Soft Teacher's on the toy's minority", text)
    assert said is not None
    assert set(re.split(r", | and ", said.group(1))) == below
    tail = {m for (task, m), mean in means.items() if task == "toy-longtail" and m in {"eqlv2", "daso"}}
    assert all(means["toy-longtail", m] > means["toy-longtail", "soft-teacher"] for m in tail)
    paper = {name: load_method(name).reported["coco-split1"]["min"] for name in ("eqlv2", "crest", "daso", "defrcn")}
    base = load_method("soft-teacher").reported["coco-split1"]["min"]
    assert base is not None
    assert [name for name, value in paper.items() if value is not None and value < base] == ["crest"]
