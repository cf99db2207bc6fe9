"""The rules by which the repository is arranged (CONTRIBUTING.md), read off syntax trees and fresh interpreters."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from core_only import trains
from import_graph import WINGS, circles, import_graph, upward

from cissod_bench import catalogue
from cissod_bench.cli import COMMANDS
from cissod_bench.errors import UsageFault

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("splits", "baselines", "method", "reports")
CATALOGUE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CORE = sorted((ROOT / "cissod_bench").rglob("*.py"))
CLI = sorted((ROOT / "cissod_bench" / "cli").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
HEAVY = ("torch", "mmdet", "mmcv", "mmengine", "pandas", "matplotlib")
CHEAP_COMMANDS = (["--help"], ["tasks"], ["methods"], ["make-splits", "--help"], ["report", "--help"])

# Compared with the text of every file of the project; written in pieces so that this file does not hold them.
WORKPLACE = ["/work/" + part for part in ("main", "shared", r"\.")] + ["/ro" + "ot/", "/opt/" + "(wheels|pypi)"]
SHARED = r"\.\./sha" + "red"  # .ci/run alone may name it
REGISTRIES = [
    "py" + r"pi\.(org|python)",
    "python" + "hosted",
    "pytorch" + r"\.org",
    "conda" + r"\.(org|anaconda)|ana" + r"conda\.(org|com)",
    "npm" + r"js\.",
    r"fi" + r"le:///",
    r"--(extra-)?index" + r"-url[ =]\S*:",
]
NOT_OURS = {".git", ".venv", "venv", "build", "dist", "work", "__pycache__", ".hypothesis", "LICENSE"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> Iterator[tuple[int, str, int]]:
    """Yield the relative level, the dotted name and the line of every import; ``from a import b`` is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"{node.module}." if node.module else ""
            yield from ((node.level, module + alias.name, node.lineno) for alias in node.names)


def foreign_imports(tree: ast.AST) -> list[str]:
    """What rule 1 forbids in a catalogue file: another folder of the catalogue, by whatever name."""
    found = []
    for level, module, line in imports(tree):
        by_name = level == 0 and module.split(".")[0] in (*FOLDERS, "tests")
        nested = level == 0 and re.match(rf"cissod_bench\.catalogue\.({'|'.join(FOLDERS)})\b", module)
        if by_name or nested or level > 1:
            found.append(f"line {line}: {'.' * level}{module}")
    return found


def mutable_state(tree: ast.Module) -> list[str]:
    """What rule 3 forbids in a catalogue file: a container at module level, a cache, ``global``, a registration."""
    containers = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    makers = {"list", "dict", "set", "defaultdict", "Counter", "OrderedDict", "deque"}
    found = []
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                continue
            maker = node.value.func if isinstance(node.value, ast.Call) else None
            if isinstance(node.value, containers) or (isinstance(maker, ast.Name) and maker.id in makers):
                found.append(f"line {node.lineno}: {ast.unparse(targets[0])} is a mutable container")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.append(f"line {node.lineno}: global {', '.join(node.names)}")
        if isinstance(node, ast.Attribute) and node.attr == "register_module":
            found.append(f"line {node.lineno}: register_module")
        if isinstance(node, ast.FunctionDef):
            names = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
            caches = {"cache", "lru_cache", "functools.cache", "functools.lru_cache"} & set(names)
            found += [f"line {node.lineno}: {node.name} is cached ({cache})" for cache in caches]
    return found


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions and classes at module level without a docstring; ruff looks after their methods."""
    found = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        if named and not node.name.startswith("_") and not ast.get_docstring(node):
            found.append(f"line {node.lineno}: {node.name}")
    return found


def ours(part: str) -> bool:
    return part not in NOT_OURS and not part.endswith("_cache")


def project_files() -> list[Path]:
    files: list[Path] = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if ours(name) and not Path(folder, name, "pyvenv.cfg").exists()]
        files += [path for inside in filter(ours, names) if (path := Path(folder, inside)).is_file()]
    return sorted(files)


def named_places(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    forbidden = [*WORKPLACE, *REGISTRIES, *([] if name(path) == ".ci/run" else [SHARED])]
    return [match.group(0) for pattern in forbidden for match in re.finditer(pattern, text)]


@pytest.mark.parametrize("path", CATALOGUE, ids=name)
def test_catalogue_files_import_the_core_and_their_siblings_only(path: Path) -> None:
    assert foreign_imports(parse(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import baselines.rfs",
        "from splits import toy",
        "from ..method import gbr",
        "from cissod_bench.catalogue.method import gbr",
        "from cissod_bench.catalogue import method",
        "import cissod_bench.catalogue.splits.toy",
    ],
)
def test_an_import_of_another_folder_is_noticed(line: str) -> None:
    assert len(foreign_imports(ast.parse(line))) == 1


@pytest.mark.parametrize(
    "line",
    ["from . import gbr", "from .gbr import matrix", "from cissod_bench.splitting.task import Task", "import torch"],
)
def test_an_import_of_a_sibling_or_the_core_is_allowed(line: str) -> None:
    assert foreign_imports(ast.parse(line)) == []


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_reaches_the_catalogue_through_its_loader_only(path: Path) -> None:
    tree = parse(path)
    assert foreign_imports(ast.Module([n for n in ast.walk(tree) if _absolute(n)], [])) == []
    if path.parent.name != "catalogue":
        nested = re.compile(rf"cissod_bench\.catalogue\.({'|'.join(FOLDERS)})\b")
        literals = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert [f"line {n.lineno}: {n.value}" for n in literals if nested.match(n.value)] == []


def _absolute(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.level == 0)


def test_functions_of_the_loader_do_not_share_a_folders_name() -> None:
    for folder in FOLDERS:
        assert not callable(getattr(catalogue, folder, None)), folder


@pytest.fixture(scope="module")
def graph() -> dict[str, dict[str, int]]:
    return import_graph(ROOT)


def test_wings_import_from_the_wings_before_them_alone(graph: dict[str, dict[str, int]]) -> None:
    assert upward(graph) == []


def test_no_modules_import_each_other_in_a_circle(graph: dict[str, dict[str, int]]) -> None:
    assert circles(graph) == []


@pytest.mark.parametrize(
    "line",
    [
        "from cissod_bench.cli import run",
        "import cissod_bench.cli.run",
        "if TYPE_CHECKING:\n    from cissod_bench.cli.run import run",
        "def late():\n    from cissod_bench.cli import run",
    ],
)
def test_an_import_that_runs_upward_or_in_a_circle_is_noticed(line: str, tmp_path: Path) -> None:
    core = tmp_path / "cissod_bench"
    for place, source in {"files/images": line, "cli/run": "import cissod_bench.files.images", "odd": ""}.items():
        path = core / f"{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{source}\n", encoding="utf-8")
    graph = import_graph(tmp_path)
    assert [text.partition(":")[0].partition(",")[0] for text in upward(graph)] == ["odd", "files.images"]
    assert circles(graph) == [["cli.run", "files.images"]]


def commands_imported(tree: ast.AST) -> list[str]:
    """Return what a module of the command line takes from the module of a command: what is shared has its own."""
    commands = {command.replace("-", "_") for command in COMMANDS}
    found = [re.match(r"cissod_bench\.cli\.(\w+)\.", module) for _, module, _ in imports(tree)]
    return [match[1] for match in found if match and match[1] in commands]


def test_commands_take_nothing_from_the_modules_of_other_commands() -> None:
    wrong = {name(path): found for path in CLI if (found := commands_imported(parse(path)))}
    assert wrong == {}, "move what is shared to a module of its own"


def test_an_import_from_the_module_of_a_command_is_noticed() -> None:
    assert commands_imported(ast.parse("def f():\n    from cissod_bench.cli.make_splits import summary")) == [
        "make_splits"
    ]
    assert commands_imported(ast.parse("from cissod_bench.cli.trained_run import loaded")) == []


def imports_of_tests(tree: ast.AST) -> list[str]:
    """Imports of a module of tests or of conftest, also inside functions and in the scripts that tests run."""
    scripts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    in_scripts = re.findall(r"^\s*(?:from|import) +(test_\w+|conftest|tests)\b", "\n".join(scripts), re.MULTILINE)
    named = [module.split(".")[0] for _, module, _ in imports(tree)]
    return [*(module for module in named if re.match(r"test_|conftest$|tests$", module)), *in_scripts]


def test_tests_share_what_lies_in_support_alone() -> None:
    wrong = {name(path): modules for path in TESTS if (modules := imports_of_tests(parse(path)))}
    assert wrong == {}, "move what is shared to a module of tests/support"


@pytest.mark.parametrize(
    "line",
    [
        line.replace("?", "test_")
        for line in ("from ?gbr import batch", "import ?gbr", "if 1:\n    import ?gbr", "A = 'import ?gbr'")
    ],
)
def test_an_import_of_a_module_of_tests_is_noticed(line: str) -> None:
    assert len(imports_of_tests(ast.parse(line))) == 1


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest imports them by these names, and a compiled file of one would be taken for the other."""
    names = Counter(path.name for path in TESTS if path.name.startswith("test_"))
    assert [name for name, number in names.items() if number > 1] == []


def test_folders_of_tests_are_named_as_the_wings() -> None:
    wings = {path.name for path in (ROOT / "cissod_bench").iterdir() if (path / "__init__.py").exists()}
    assert wings <= set(WINGS)
    assert {path.relative_to(ROOT / "tests").parts[0] for path in TESTS if path.parent.name != "tests"} <= {
        *wings, "methods", "support",
    }  # fmt: skip


@pytest.mark.parametrize("path", CATALOGUE, ids=name)
def test_catalogue_files_keep_no_state_and_register_nothing(path: Path) -> None:
    assert mutable_state(parse(path)) == [], "take a tuple, a frozenset or a MappingProxyType; pass objects, not names"


@pytest.mark.parametrize(
    "source",
    [
        "SEEN = []",
        "SEEN: dict[str, int] = {}",
        "SEEN = defaultdict(int)",
        "def f():\n    global SEEN",
        "@MODELS.register_module()\nclass Head: ...",
        "@functools.lru_cache(maxsize=None)\ndef f(): ...",
    ],
)
def test_state_at_module_level_is_noticed(source: str) -> None:
    assert len(mutable_state(ast.parse(source))) == 1


@trains
def test_a_catalogue_file_can_be_imported_under_both_of_its_names() -> None:
    names = ("baselines.soft_teacher", "cissod_bench.catalogue.baselines.soft_teacher")
    code = f"import sys, {', '.join(names)}; assert len({{id(sys.modules[name]) for name in {names}}}) == 2"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", CHEAP_COMMANDS, ids=" ".join)
def test_cheap_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from cissod_bench.cli import entry
sys.argv = ["cissod-bench", *{arguments!r}]
try:
    entry()
except SystemExit as end:
    print(sorted(set({HEAVY!r}) & set(sys.modules)), end.code or 0, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[] 0", done.stderr
    assert done.stdout


@pytest.mark.parametrize("group", ["methods", "tasks"])
def test_third_parties_add_entries_through_entry_points(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, real = group[:-1], {"methods": "soft-teacher", "tasks": "toy"}[group]
    module = f"lab_with_{group}"  # a module of its own: the interpreter keeps what it has imported
    (tmp_path / f"{module}.py").write_text(
        f"from cissod_bench import catalogue\nENTRY = catalogue.load_{kind}({real!r})\n", encoding="utf-8"
    )
    about = tmp_path / "other_lab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-lab\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[cissod_bench.{group}]\nnew_idea = {module}:ENTRY\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert "new-idea" in getattr(catalogue, f"list_{group}")()
    loaded = getattr(catalogue, f"load_{kind}")("new_idea")
    assert loaded.name == "new-idea"
    assert loaded.title == getattr(catalogue, f"load_{kind}")(real).title


def test_an_unknown_name_is_answered_with_near_matches() -> None:
    with pytest.raises(UsageFault, match="'soft-teacher'"):
        catalogue.load_method("soft-techer")


@pytest.mark.parametrize("path", [*CORE, *CATALOGUE, *TESTS], ids=name)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", [*CORE, *CATALOGUE], ids=name)
def test_everything_public_is_documented(path: Path) -> None:
    assert undocumented(parse(path)) == []


def test_no_file_names_a_workplace_or_a_registry() -> None:
    found = {name(path): places for path in project_files() if (places := named_places(path))}
    assert found == {}


def test_no_environment_is_part_of_the_project_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for folder, file in (
        (".venv-core", "pyvenv.cfg"),
        (".venv-core/lib", "a.py"),
        ("env3.12", "pyvenv.cfg"),
        ("a", "b"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    assert project_files() == [tmp_path / "a/b"]


def test_a_named_registry_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "README.md"
    for place in (
        "https://py" + "pi.org/simple",
        "--index" + "-url https://x",
        "../sha" + "red/data",
        "/work/" + "main/x",
    ):
        file.write_text(f"see {place}\n", encoding="utf-8")
        assert len(named_places(file)) == 1, place
