"""A method in a file of its own: wherever a name is taken, with one clear fault for everything that can be wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exam_files as files
import pytest
from commands import Called
from core_only import trains

from cissod_bench.catalogue.method_files import find_entry, find_method, split_variant
from cissod_bench.cli.common import Output
from cissod_bench.errors import UsageFault
from cissod_bench.sweeping.cells import cells_of

VARIANTS = ', variants={"bold": {"scale": 2}}'


def test_the_method_is_called_as_its_file_is(tmp_path: Path) -> None:
    file = files.written(tmp_path, "my_idea")
    method = find_method(str(file))
    assert (method.name, method.title, method.citation) == ("my-idea", "Own", "nobody")
    assert find_method("soft_teacher").name == "soft-teacher"


def test_a_file_is_read_anew_each_time_and_two_of_one_name_are_two(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = files.written(tmp_path / "a", "idea"), files.written(tmp_path / "b", "idea")
    other.write_text(other.read_text().replace('title="Own"', 'title="Other"'))
    first, second = find_method(str(one)), find_method(str(other))
    assert (first.title, second.title) == ("Own", "Other")
    assert first.parts is not second.parts
    one.write_text(one.read_text().replace('title="Own"', 'title="New"'))
    assert find_method(str(one)).title == "New"


def test_a_change_of_equal_length_in_the_same_second_is_seen_where_python_keeps_compiled_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = files.written(tmp_path, "idea")
    for title in ("Own", "New"):
        file.write_text(file.read_text().replace('title="Own"', f'title="{title}"'))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert find_method(str(file)).title == title


def test_classes_of_the_file_can_be_looked_up_by_their_module(tmp_path: Path) -> None:
    method = find_method(str(files.written(tmp_path, "idea")))
    module = sys.modules[method.parts.__module__]
    assert module.Own is method.parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "mine.py declares no method: it has no top-level METHOD = Method(...)."),
        ("METHOD = 3\n", "mine.py: METHOD must be a Method (cissod_bench/contract/method.py). Got int."),
        ("x = 1\nMETHOD = = 3\n", "mine.py, line 2: SyntaxError: invalid syntax"),
        ("import os\nimport no_such_module\nMETHOD = 1\n", "mine.py, line 2: ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\n\n\nMETHOD = f()\n", "mine.py, line 2: ZeroDivisionError: division by zero."),
        ("import json\n\nMETHOD = json.loads('')\n", "mine.py, line 3: JSONDecodeError: Expecting value"),
        (
            "from cissod_bench.contract.method import Method\n\nMETHOD = Method(title='T')\n",
            "mine.py, line 3: TypeError: ",
        ),
        ("import sys\n\nsys.exit(0)\nMETHOD = 1\n", "mine.py, line 3: SystemExit: 0."),
        ("METHOD = 1\nx = '\0'\n", "mine.py: SyntaxError: source code string cannot contain null bytes."),
    ],
)
def test_a_fault_of_the_file_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageFault) as fault:
        find_method(str(file))
    assert f"{tmp_path}/{message}" in fault.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    raise ValueError('no licence')", "line 4, in parts: ValueError: no licence"),
        ("    return facts.clases", "line 4, in parts: AttributeError: 'dict' object has no attribute 'clases'"),
        ("    import json\n    return json.loads('')", "line 5, in parts: JSONDecodeError: Expecting value"),
    ],
)
def test_an_error_in_a_files_function_names_its_line(
    tmp_path: Path, body: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    made = "METHOD = Method(title='T', source='s', citation='c', parts=parts)"
    file.write_text(f"from cissod_bench.contract.method import Method\n\ndef parts(facts):\n{body}\n\n\n{made}\n")
    parts: Any = find_method(str(file)).parts
    try:
        parts({})
    except Exception as error:
        Output().unexpected(error)
    told = capsys.readouterr().err
    assert told.startswith(f"Error: {file}, {words}")
    assert told.endswith(f"  -> mend {file}, or repeat the command with -v for the details\n")


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "import sys; sys.exit()", "quit()"])
def test_a_files_function_does_not_end_the_program_without_a_word(
    tmp_path: Path, ending: str, tiny_coco: Path, call: Callable[..., Called]
) -> None:
    file = tmp_path / "mine.py"
    made = "METHOD = Method(title='T', source='s', citation='c', parts=parts)"
    file.write_text(f"from cissod_bench.contract.method import Method\n\ndef parts(facts):\n    {ending}\n\n\n{made}\n")
    places = ["--data-root", tiny_coco, "--work-dir", tmp_path / "work", "--task", tiny_coco / "tiny.toml"]
    done = call("run", "--method", file, "--preset", "smoke", "--dry-run", *places)
    assert done.code == 1
    assert f"Error: {file}, line 4, in parts: SystemExit" in done.err


def test_an_error_of_our_own_names_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        Output().unexpected(error)
    assert capsys.readouterr().err == "Error: KeyError: 'x'\n  -> repeat the command with -v for the details\n"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"There is no file .*gone\.py\."):
        find_method(str(tmp_path / "gone.py"))


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"METHOD = '\xff'\n")
    with pytest.raises(UsageFault, match=r"mine\.py: UnicodeDecodeError: 'utf-8' codec"):
        find_method(str(tmp_path / "mine.py"))


@pytest.mark.parametrize("stem", ["soft_teacher", "soft-teacher", "ours"])
def test_the_name_of_a_catalogue_method_is_taken(tmp_path: Path, stem: str) -> None:
    file = files.written(tmp_path, stem)
    with pytest.raises(UsageFault, match=r"is the name of a catalogue method\.") as fault:
        find_method(str(file))
    assert fault.value.remedy == "give the file another name"


def test_a_name_that_is_unfit_for_a_folder_is_refused(tmp_path: Path) -> None:
    file = files.written(tmp_path, "a+b")
    with pytest.raises(UsageFault, match=r"the file's name is the method's and becomes a folder\..*Got 'a\+b'\."):
        find_method(str(file))


def test_a_variant_stands_behind_the_files_ending() -> None:
    assert split_variant("ours") == ("ours", "")
    assert split_variant("ours+gbr+gbt") == ("ours", "gbr+gbt")
    assert split_variant("lab+1/idea.py") == ("lab+1/idea.py", "")
    assert split_variant("lab+1/idea.py+a+b") == ("lab+1/idea.py", "a+b")


def test_listing_a_file_runs_none_of_it(tmp_path: Path) -> None:
    file = files.written(tmp_path, "idea", more=VARIANTS)
    file.write_text("raise SystemExit\n" + file.read_text())
    entry = find_entry(str(file))
    assert (entry.name, entry.title, entry.source) == ("idea", "Own", "a test")
    assert entry.literals["variants"] == {"bold": {"scale": 2}}


@trains
def test_a_sweep_hands_the_file_to_its_runs(tmp_path: Path) -> None:
    file = str(files.written(tmp_path, "my_idea", more=VARIANTS))
    own, bold, other = cells_of([file, f"{file}+bold", "soft-teacher"], ["toy"], preset_name="smoke")
    assert (own.method, own.variant, own.words()[:3]) == ("my-idea", "", ["run", "--method", file])
    assert own.place == Path("toy/split0/my-idea/smoke-default/seed0")
    assert bold.place == Path("toy/split0/my-idea+bold/smoke-default/seed0")
    assert "--variant bold" in " ".join(bold.words())
    assert other.words()[:3] == ["run", "--method", "soft-teacher"]
    with pytest.raises(UsageFault, match=r"There is no variant of my-idea 'bald'\. Did you mean 'bold'"):
        cells_of([f"{file}+bald"], ["toy"], preset_name="smoke")


def test_methods_shows_a_file(tmp_path: Path, call: Callable[..., Called]) -> None:
    file = files.written(tmp_path, "my_idea")
    done = call("methods", file, "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert (shown["name"], shown["title"], shown["citation"]) == ("my-idea", "Own", "nobody")


def test_run_takes_a_file(tiny_coco: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    file = files.written(tmp_path, "my_idea")
    words = ("--task", tiny_coco / "tiny.toml", "--data-root", tiny_coco, "--work-dir", tmp_path / "work")
    done = call("run", "--method", file, *words, "--preset", "smoke", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["dir"].endswith("runs/tiny/split0/my-idea/smoke-default/seed0")
    done = call("run", "--method", tmp_path / "gone.py", *words, "--dry-run")
    assert done.code == 2
    assert "There is no file" in done.err
