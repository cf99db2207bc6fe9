"""Every fault that the code can raise ends with a remedy, and what remedies name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cissod_bench import errors
from cissod_bench.cli import COMMANDS
from cissod_bench.errors import BenchError, UsageFault, unknown_name

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("cissod_bench", "splits", "baselines", "method", "reports")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
KINDS = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, BenchError)}
# Mistakes of ours, what is caught where it is raised, verdicts of the exam, and click's own, which name --help.
OURS = {"ValueError", "TypeError", "AssertionError", "OSError", "DecodeError", "ValidationError", "BrokenRecordError"}
OURS |= {"Broken", "SystemExit", "BadParameter", "Exit"}
GROUPS = {"splits", "data", "runs"}


@cache
def trees() -> dict[Path, ast.Module]:
    """The syntax tree of every file, which only the process of pytest that runs these tests needs."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def name_of(call: ast.expr) -> str:
    """The last part of what is called: "fault" for ``self.file.fault``."""
    return call.id if isinstance(call, ast.Name) else call.attr if isinstance(call, ast.Attribute) else ""


@cache
def makers() -> dict[str, bool]:
    """Functions that return a fault -> whether each call of it must give a remedy."""
    found = {}
    for tree in trees().values():
        for one in ast.walk(tree):
            if isinstance(one, ast.FunctionDef) and isinstance(one.returns, ast.Name) and one.returns.id in KINDS:
                names = [arg.arg for arg in one.args.kwonlyargs]
                needed = "remedy" in names and one.args.kw_defaults[names.index("remedy")] is None
                found[one.name] = needed
    return found


def remedies(path: Path) -> Iterator[tuple[int, str, ast.expr | None]]:
    """Yield line, kind and remedy of every fault that a file makes, None where there is no remedy."""
    needs = {**makers(), **dict.fromkeys(KINDS, True)}
    raised = {one.exc for one in ast.walk(trees()[path]) if isinstance(one, ast.Raise)}
    for one in ast.walk(trees()[path]):
        if not isinstance(one, ast.Call):
            continue
        by_type = one in raised and isinstance(one.func, ast.Call) and name_of(one.func.func) == "type"
        name = "type(...)" if by_type else name_of(one.func)
        given = next((word.value for word in one.keywords if word.arg == "remedy"), None)
        if name in needs or (by_type and one.args):
            silent = one.args and isinstance(one.args[0], ast.Constant) and one.args[0].value == ""
            if given is not None or (needs.get(name, True) and not silent):
                yield one.lineno, name, given


def may_be_none(remedy: ast.expr | None) -> bool:
    """Whether a remedy is missing, or None in one of its cases."""
    if isinstance(remedy, ast.IfExp):
        return may_be_none(remedy.body) or may_be_none(remedy.orelse)
    return remedy is None or (isinstance(remedy, ast.Constant) and not remedy.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_fault_that_a_file_makes_has_a_remedy(path: Path) -> None:
    # A fault without words (processes.py) repeats the exit code of one that was told.
    assert [f"{line} {kind}" for line, kind, remedy in remedies(path) if may_be_none(remedy)] == []


def test_nothing_else_is_raised_than_faults_and_mistakes_of_ours() -> None:
    known = {*KINDS, *makers(), *OURS}
    odd = [
        f"{path.relative_to(ROOT)}:{one.lineno}: {ast.unparse(one.exc)[:60]}"
        for path, tree in trees().items()
        for one in ast.walk(tree)
        if isinstance(one, ast.Raise)
        and isinstance(one.exc, ast.Call)
        and name_of(one.exc.func) not in known
        and not isinstance(one.exc.func, ast.Call)
    ]
    assert not odd, "\n".join(odd)


def text_of(node: ast.AST) -> str | None:
    """A string or f-string as text, with "{}" for what is filled in; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(part, ast.FormattedValue) else str(text_of(part)) for part in node.values)
    return None


def texts(node: ast.AST) -> Iterator[str]:
    """The strings below a node, an f-string as one."""
    if (text := text_of(node)) is not None:
        yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


@cache
def remedy_texts() -> tuple[tuple[str, str], ...]:
    """File and text of every string in a remedy, also of the names that remedies are made of."""
    names: set[str] = set()
    found: list[tuple[str, str]] = []
    for path, tree in trees().items():
        for word in (word for one in ast.walk(tree) if isinstance(one, ast.Call) for word in one.keywords):
            if word.arg == "remedy":
                found += [(path.name, text) for text in texts(word.value)]
                names |= {one.id for one in ast.walk(word.value) if isinstance(one, ast.Name)}
    for path, tree in trees().items():
        for one in ast.walk(tree):
            if isinstance(one, ast.Assign) and any(isinstance(to, ast.Name) and to.id in names for to in one.targets):
                found += [(path.name, text) for text in texts(one.value)]
            if isinstance(one, ast.FunctionDef) and one.name in names:
                found += [(path.name, text) for text in texts(one)]
    return tuple(found)


def commands_in(text: str) -> Iterator[list[str]]:
    """The command lines of this tool in a text, each as its words up to the end of the clause."""
    for rest in re.findall(r"cissod-bench ((?:[^;,.:()`\n]|\.(?=\w))*)", text):
        yield rest.split()


@pytest.fixture(scope="module")
def helps() -> dict[tuple[str, ...], str]:
    """The --help of every command."""
    from click.testing import CliRunner

    from cissod_bench.cli import main

    shown: dict[tuple[str, ...], str] = {}
    for words in [(name,) for name in COMMANDS]:
        names = [words]
        if words[0] in GROUPS:
            names += [(*words, sub) for sub in main.get_command(None, words[0]).commands]  # type: ignore[arg-type,union-attr]
        for one in names:
            result = CliRunner().invoke(main, [*one, "--help"])
            assert result.exit_code == 0, result.output
            shown[one] = result.output
    return shown


def fault_of(words: list[str], helps: dict[tuple[str, ...], str]) -> str:
    """What is wrong with the words behind "cissod-bench", "" if nothing is."""
    if not words or words[0].startswith(("-", "{")):
        return ""
    if words[0] not in COMMANDS:
        return f"no command {words[0]}"
    command: tuple[str, ...] = (words[0],)
    if words[0] in GROUPS and words[1:] and not words[1].startswith("-"):
        command = (words[0], words[1])
        if command not in helps:
            return f"no command {' '.join(command)}"
    options = [word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)]
    return ", ".join(f"{' '.join(command)} has no {one}" for one in options if not has(helps[command], one))


def has(shown: str, option: str) -> bool:
    """Whether a help names an option."""
    return re.search(rf"(?<![\w-]){option}(?![\w-])", shown) is not None


def test_every_command_that_a_text_of_the_code_names_exists(helps: dict[tuple[str, ...], str]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {fault}: {text[:90]!r}"
        for path, tree in trees().items()
        for text in texts(tree)
        for words in commands_in(text)
        if (fault := fault_of(words, helps))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_option_and_setting_that_a_remedy_names_exists(helps: dict[tuple[str, ...], str]) -> None:
    from dataclasses import fields

    from cissod_bench.contract.settings import Settings

    others = ["--no-deps", "--no-build-isolation", "--python", "--torch-backend"]  # pip's and uv's
    everywhere = "\n".join([*helps.values(), *others])
    settings = {one.name for one in fields(Settings)} | {"key", "{}"}
    wrong = [
        f"{file}: {word}: {text[:90]!r}"
        for file, text in remedy_texts()
        for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
        if not has(everywhere, word)
    ]
    wrong += [
        f"{file}: --set {key}: {text[:90]!r}"
        for file, text in remedy_texts()
        for key in re.findall(r"--set ([\w{}]+)=", text)
        if key not in settings
    ]
    assert not wrong, "\n".join(wrong)


def test_every_make_target_that_a_remedy_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for file, text in remedy_texts():
        for target in re.findall(r"(?:^|[:;,]) ?make ([a-z]+)$", text):
            assert target in targets, (file, text)


def test_the_checks_find_what_is_wrong(helps: dict[tuple[str, ...], str]) -> None:
    for text in (
        "cissod-bench drwa",
        "cissod-bench run --restrat",
        "see: cissod-bench splits ls",
        "cissod-bench make-splits --set a=1",
    ):
        assert any(fault_of(words, helps) for words in commands_in(text)), text
    for text in (
        "cissod-bench splits list",
        "cissod-bench run --restart, or",
        "cissod-bench tasks lists",
        "cissod-bench --help",
    ):
        assert not any(fault_of(words, helps) for words in commands_in(text)), text
    assert may_be_none(ast.parse("'x' if a else None", mode="eval").body)
    assert may_be_none(ast.parse("''", mode="eval").body)
    assert not may_be_none(ast.parse("'x'", mode="eval").body)


@pytest.mark.parametrize(("name", "near"), [("cira", "write 'circle'"), ("zzz", "write one of the known names")])
def test_an_unknown_name_has_a_remedy_by_itself(name: str, near: str) -> None:
    fault = unknown_name("class", name, ["circle", "square"])
    assert near in str(fault.remedy)
    assert unknown_name("class", name, ["circle"], remedy="here").remedy == "here"
    assert isinstance(fault, UsageFault)
