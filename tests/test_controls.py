"""Names from files cannot steer the terminal: no control character of theirs reaches it."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from cissod_bench.cli.common import Output
from cissod_bench.controls import has_control, json_shown, shown, shown_name
from cissod_bench.errors import DataFault
from cissod_bench.files.images import broken_name_rule
from cissod_bench.terminal import Console, Text

BAD = {
    "carriage return": "car\r",
    "escape": "\x1b[31mcar\x1b[0m",
    "line end": "car\nboat",
    "tab": "car\tboat",
    "backspace": "car\b\b\b",
    "bell": "car\x07",
    "delete": "car\x7f",
    "eight-bit escape": "\x9b31mcar",
    "next line": "car\x85",
    "right to left": "car\u202egnp",
    "isolate": "\u2066car\u2069",
    "line separator": "car\u2028boat",
}
STEERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_a_name_is_written_out(name: str) -> None:
    assert has_control(name)
    assert not has_control(shown_name(name))
    assert shown_name(name).encode().decode("unicode_escape") == name
    assert not STEERS.search(shown(f"a\n{name}\nb"))
    assert json.loads(json_shown(json.dumps([name], ensure_ascii=False))) == [name]
    assert not STEERS.search(json_shown(json.dumps([name], ensure_ascii=False)))


@pytest.mark.parametrize("name", ["car", "é ü", "日本", "a\u202fb", "a\u00a0b", "👩\u200d👧", "\ue000", "\U0001fae9"])
def test_other_characters_stay_and_may_stand_in_file_names(name: str) -> None:
    """Odd spaces, joiners, private letters, and letters that an older Python does not know."""
    assert shown(name) == shown_name(name) == json_shown(name) == name
    assert broken_name_rule(f"{name}.jpg") is None


@pytest.mark.parametrize("name", [*BAD.values(), "a\0b"], ids=[*BAD, "NUL"])
def test_a_control_character_in_a_file_name_is_refused(name: str) -> None:
    assert broken_name_rule(f"{name}.jpg") == "must be a printable name without control characters"


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
@pytest.mark.parametrize("terminal", [True, False])
def test_no_table_hands_a_control_character_on(name: str, terminal: bool) -> None:
    stream = io.StringIO()
    table = Table("name", name.replace("[", "\\["))
    table.add_row(Text(name, "bold"), Text.assemble("a", (name, "red")))
    appended = Text("x")
    appended.append(name)
    console = Console(file=stream, force_terminal=terminal, width=60)
    console.print(table)
    console.print(appended, soft_wrap=True)
    console.print("plain " + name.replace("[", "\\["))
    text = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue()) if terminal else stream.getvalue()
    assert not STEERS.search(text)
    assert ("\x1b[31m" in stream.getvalue()) == terminal  # red, from rich: the cell's own style


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
@pytest.mark.parametrize("verbosity", [0, 1])
def test_no_message_hands_a_control_character_on(name: str, verbosity: int, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(verbosity=verbosity)
    output.say(name)
    output.warn(name)
    try:
        raise DataFault(f"no class {name}", remedy=name)
    except DataFault as fault:
        output.fault(fault)
        output.unexpected(fault)
    Output(json=True).result({name: [name]})
    told = capsys.readouterr()
    assert not STEERS.search(told.out + told.err)
    assert "Error: no class " in told.err


@pytest.fixture
def strange(tiny_coco: Path) -> Callable[[str], Path]:
    """Return a function that renames every class of the tiny data set and its task, {} for the name it had."""

    def rename(pattern: str) -> Path:
        for role in ("train", "val"):
            path = tiny_coco / f"tiny/annotations/{role}.json"
            content = json.loads(path.read_bytes())
            for one in content["categories"]:
                one["name"] = pattern.format(one["name"])
            path.write_text(json.dumps(content), encoding="utf-8")
        minority = json.dumps([pattern.format(name) for name in ("heart", "arrow")], ensure_ascii=True)
        task = (tiny_coco / "tiny.toml").read_text(encoding="utf-8").replace('["heart", "arrow"]', minority)
        (tiny_coco / "tiny.toml").write_text(task, encoding="utf-8")
        return tiny_coco

    return rename


@pytest.mark.parametrize("pattern", ["{}\r", "\x1b[31m{}\x1b[0m\r", "{}\n2", "\x9b1m{}\u202e"])
def test_no_command_hands_a_class_name_on_as_it_is(
    pattern: str, strange: Callable[[str], Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    root, work = strange(pattern), tmp_path / "work"
    places = ("--data-root", root, "--work-dir", work)
    drawn = call("make-splits", "--task", root / "tiny.toml", *places, "--min-instances", 2)
    assert drawn.code == 0, drawn.err
    (tmp_path / "predictions.json").write_text("[]", encoding="utf-8")
    (tmp_path / "names.txt").write_text("heart\n", encoding="utf-8")
    split = work / "splits/tiny/seed0"
    others = [
        call("tasks", root / "tiny.toml"),
        call("splits", "show", split, "--work-dir", work),
        call("splits", "list", "--work-dir", work),
        call("splits", "verify", split, "--work-dir", work),
        call("evaluate", "--split", split, "--predictions", tmp_path / "predictions.json", "--per-class", *places),
        call("data", "check", "--task", root / "tiny.toml", *places),
        call("splits", "show", split, "--work-dir", work, "--json"),
        call("make-splits", "--task", root / "tiny.toml", "--minority", tmp_path / "names.txt", "--force", *places),
        call(
            "make-splits", "--task", root / "tiny.toml", "--minority", tmp_path / "names.txt", "--force", "-v", *places
        ),
    ]
    assert [one.code for one in others] == [0, 0, 0, 0, 0, 0, 0, 2, 2]
    for one in (drawn, *others):
        assert not STEERS.search(one.out + one.err), (one.out, one.err)
    manifest = json.loads(others[6].out)
    assert pattern.format("heart") in manifest["classes"]  # escaped for the eye, not changed
    assert shown_name(pattern.format("heart")) in others[7].err


def test_nothing_is_printed_with_richs_own_text_and_console() -> None:
    package = Path(sys.modules["cissod_bench"].__file__ or "").parent
    direct = re.compile(r"from rich\.(?:text|console) import|rich\.print")
    users = [path.name for path in package.rglob("*.py") if direct.search(path.read_text(encoding="utf-8"))]
    assert users == []
