"""The pages hold to the code: paths, names and links exist, examples run, numbers are the records', the site builds."""

from __future__ import annotations

import html
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import click
import pytest

import cissod_bench
from cissod_bench.catalogue import load_method
from cissod_bench.cli import main
from cissod_bench.contract.settings import SETTINGS
from cissod_bench.records.run_folder import find_runs
from cissod_bench.reporting.paper_tables import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
FOLDERS = "cissod_bench|splits|baselines|method|reports|tests|benchmarks|docs|scripts|examples|results"
INVENTED = re.compile(r"(.*/)?(my_\w+|mean_scores)\.(py|toml)$")  # what a reader would write
PER = re.compile(
    r"\b(images|boxes|instances|detections|copies|pseudo labels|iterations|runs|features|candidates|scores?|"
    r"times|once|process(es)?) an? "
    r"(class|image|iteration|generation|rank|run|group|GPU|folder|stage|source|batch|step|core|cell|line)\b"
)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def script(name: str) -> ModuleType:
    """A file of scripts/, which is no package's."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", TEXT[page], flags=re.DOTALL | re.MULTILINE)


def quoted(page: Path) -> Iterator[str]:
    """What stands between backticks."""
    yield from re.findall(r"`([^`\n]+)`", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    paths = set()
    for words in quoted(page):
        path = words.split("::")[0]
        if re.fullmatch(rf"({FOLDERS})/[\w./-]*|[\w./-]+\.(py|sh)", path) and not INVENTED.match(path):
            paths.add(path)
    named = {path.name for folder in FOLDERS.split("|") for path in (ROOT / folder).rglob("*.py")}
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and path not in named] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_names_behind_a_path_stand_in_that_file(page: Path) -> None:
    """As in "`method/gbr.py`: `gradient_matrix`, `jacobi_targets`"."""
    missing = []
    for path, names in re.findall(r"`([\w./]+\.py)`: ((?:`\w+`(?:, | and )?)+)", prose(page)):
        text = (ROOT / path).read_text(encoding="utf-8")
        missing += [f"{path}: {name}" for name in re.findall(r"\w+", names.replace(" and ", " ")) if name not in text]
    assert missing == []


def test_tests_that_pages_name_exist() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)", code))
    named = {
        name for page in PAGES for name in re.findall(r"`(?:tests/[\w/]+\.py::)?(test_\w+?)(?:\.\.\.)?`", prose(page))
    }
    assert named
    assert [name for name in sorted(named) if not any(one.startswith(name) for one in defined)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"https?:|#|mailto:", link)]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words, groups within groups included."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield (*words, name), command
            if isinstance(command, click.Group):
                yield from commands(command, (*words, name))


def test_pages_and_help_say_per_class_and_not_a_class() -> None:
    """ "Per" is the word that readers of English as a second language know."""
    texts = {page_name(page): TEXT[page] for page in PAGES}
    for words, command in commands(main):
        with click.Context(command) as context:
            texts[" ".join(words)] = command.get_help(context)
    squeezed = {where: " ".join(text.split()) for where, text in texts.items()}
    assert {where: told for where, text in squeezed.items() if (told := [m[0] for m in PER.finditer(text)])} == {}


def examples() -> list[tuple[str, str]]:
    """The blocks of docs/api.md: code and what it prints."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", text, re.DOTALL)


def test_the_api_page_has_three_examples_with_their_output() -> None:
    assert len(examples()) == 3


@pytest.mark.parametrize("number", range(3))
def test_an_example_of_the_api_page_prints_what_the_page_says(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown = examples()[number]
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, f"docs/api.md, example {number + 1}", "exec"), {"__name__": "__main__"})
    assert printed.getvalue().splitlines() == shown.splitlines()


def rows_below(heading: str) -> dict[str, list[str]]:
    """Title -> cells of the table below a heading of docs/paper.md."""
    section = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8").split(f"### {heading}:")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize(
    ("heading", "tasks", "columns"),
    [
        ("Table 1", ("coco-split1", "coco-split2"), ("all", "maj", "min")),
        ("Table 2", ("coco-o365",), ("all", "maj", "min")),
        ("Table 3", ("lvis",), ("all", "f", "c", "r")),
    ],
)
def test_the_papers_tables_are_those_of_the_catalogue(
    heading: str, tasks: tuple[str, ...], columns: tuple[str, ...]
) -> None:
    rows = rows_below(heading)
    assert list(rows) == list(METHODS.values())
    for name, title in METHODS.items():
        reported = load_method(name).reported
        numbers = [reported.get(task, {}).get(column) for task in tasks for column in columns]
        assert rows[title] == ["–" if number is None else f"{number:.1f}" for number in numbers], title


@pytest.mark.parametrize("heading", ["Table 4", "Table 5"])
def test_the_papers_ablations_are_those_of_the_catalogue(heading: str) -> None:
    ours = load_method("ours")
    known = [reported["coco-split1"] for reported in (ours.reported, *ours.reported_variants.values())]
    printed = [[f"{row[column]:.1f}" for column in ("all", "maj", "min")] for row in known]
    rows = rows_below(heading)
    assert len(rows) == {"Table 4": 9, "Table 5": 6}[heading]
    assert [title for title, cells in rows.items() if cells[-3:] not in printed] == []


def test_the_hours_of_the_toy_league_are_those_of_the_kept_runs() -> None:
    text = " ".join((ROOT / "docs" / "costs.md").read_text(encoding="utf-8").split())
    found: dict[str, list[float]] = {}
    for run in find_runs(ROOT / "results"):
        seconds = sum(run.record.timings.get(phase, 0) for phase in ("train", "predict", "evaluate"))
        if run.record.preset == "mini":
            found.setdefault(run.record.task, []).append(seconds)
    for task, seconds in found.items():
        assert f"| `mini`, {task} |" in text
        assert f"{len(seconds)} runs took {sum(seconds) / 3600:.1f} hours" in text
    assert f"All {sum(map(len, found.values()))} of them" in text


def speed_row(words: str) -> list[str]:
    """The cells of a row of docs/speed.md, without what is bold about them."""
    (line,) = [line for line in TEXT[ROOT / "docs" / "speed.md"].splitlines() if line.startswith(f"| {words} |")]
    return [cell.strip().strip("*") for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("`mini`, 8 + 4 of 76 x 128, 1", "mini-cpu-1t-2026-11-29"),
        ("`mini`, 2 threads", "mini-cpu-2t-2026-11-29"),
        ("`photo` (2026-11-30), fp32, 8 + 8 of 204 x 340, 1", "photo-cpu-1t-2026-11-30"),
        ("`photo`, fp32, 2 threads", "photo-cpu-2t-2026-11-30"),
        ("`photo` as it is, in bf16, 1", "photo-cpu-1t-ours-2026-11-30"),
        ("`photo`, bf16, 2 threads", "photo-cpu-2t-ours-2026-11-30"),
        ("`full`, 1 + 1 of 799 x 1333, 1, fp32", "full-cpu-1t-2026-11-29"),
    ],
)
def test_a_row_of_the_speed_page_is_what_its_record_says(words: str, file: str) -> None:
    record = json.loads((ROOT / "benchmarks" / "records" / f"step-time-{file}.json").read_text(encoding="utf-8"))
    step, *ratios, ours = speed_row(words)
    (here,) = [side for side in record["sides"] if side["name"] == "soft-teacher"]
    full = record["preset"] == "full"  # its steps are of processor time, in seconds
    assert step == (f"{(here['user'] + here['system']) / 1000:.0f} s" if full else f"{here['wall']:,.0f} ms")
    if "mmdet" in record["ratios"]:
        names = ("times as fast", "times the processor time", "our memory")
        assert ratios == [f"{record['ratios']['mmdet'][name]['median']:.2f}" for name in names]
    assert ours == (f"{record['ratios']['ours']['wall']['median']:.2f}" if "ours" in record["ratios"] else "not run")


def test_the_seconds_of_scoring_are_those_of_the_kept_runs() -> None:
    """On toy: those of scoring and of the whole run, means."""
    records = [run.record for run in find_runs(ROOT / "results")]
    timings = [record.timings for record in records if record.task == "toy"]
    scoring, whole = (
        sum(sum(own.get(phase, 0) for phase in phases) for own in timings) / len(timings)
        for phases in (("predict", "evaluate"), ("train", "predict", "evaluate"))
    )
    costs, decisions = (" ".join(TEXT[ROOT / "docs" / page].split()) for page in ("costs.md", "decisions.md"))
    assert f"{scoring:.0f} of the {whole:.0f} seconds of `mini` on toy (mean of {len(timings)} kept runs)" in costs
    assert f"{scoring:.1f} seconds of {whole:.0f} (mean of {len(timings)} kept runs)" in decisions


def test_the_wings_of_contributing_are_those_of_the_import_graph() -> None:
    table = TEXT[ROOT / "CONTRIBUTING.md"].split("| wing |")[1].split("\n\n")[0]
    named = [word.removesuffix("/").removesuffix(".py") for word in re.findall(r"`([\w./]+)`", table)]
    wings = script("import_graph").WINGS
    folders = [wing for wing in wings if (ROOT / "cissod_bench" / wing).is_dir()]
    assert [wing for wing in named if wing in folders] == folders
    assert [wing for wing in named if wing not in wings] == []


def test_how_to_cite_names_this_version() -> None:
    assert f"version = {{{cissod_bench.__version__}}}" in TEXT[ROOT / "README.md"]
    assert f"version: {cissod_bench.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_a_marker_may_take_some_rows_of_a_table() -> None:
    tables = script("tables")
    table = "|  | all |\n| --- | ---: |\n| RFS | 1.0 |\n| Ours | **2.0** |\n| *Oracle (D\\_u)* (reference) | 3.0 |"
    page = "<!-- table: Toy | rows: Ours, Oracle -->\nold\n<!-- end -->"
    made = tables.filled(page, {"Toy": table})
    assert made.splitlines()[1:-1] == [*table.splitlines()[:2], *table.splitlines()[3:]]
    assert tables.filled(made, {"Toy": table}) == made
    with pytest.raises(KeyError, match="no row 'DASO'"):
        tables.filled(page.replace("Ours", "DASO"), {"Toy": table})


def fetched(site: Path) -> list[str]:
    """What a browser would fetch from outside when it shows the site."""
    found = []
    for file in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", file.read_text(encoding="utf-8"))
        found += [tag for tag in tags if re.search(r"(?:src|href)=\"?(?:https?:)?//", tag) and "canonical" not in tag]
    for file in site.rglob("*.css"):
        found += re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"']+", file.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; `make docs` installs it")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "reference" / "scoring.html").stat().st_size > 10_000
    settings = html.unescape((tmp_path / "site" / "reference" / "contract.html").read_text(encoding="utf-8"))
    assert [field.name for field in SETTINGS.values() if field.document not in settings] == []
    assert fetched(tmp_path / "site") == []
