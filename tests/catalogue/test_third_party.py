"""Tasks and methods of other packages: found by entry point, listed unimported, and harmless where they are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import exam_files as files
import pytest
from commands import Called

from cissod_bench import catalogue
from cissod_bench.catalogue.entry_points import BrokenEntry
from cissod_bench.errors import UsageFault

TASK = """
from dataclasses import replace

from cissod_bench.catalogue import load_task
from cissod_bench.splitting.task import Task

TASK: Task = replace(load_task("toy"), title="Lab's shapes")
"""


class Lab:
    """A folder with installed packages, as an installer leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = 0

    def install(self, modules: dict[str, str], *, methods: str = "", tasks: str = "", version: str = "1.0") -> None:
        """Write modules and a dist-info with entry points, a line each."""
        self.packages += 1
        for name, text in modules.items():
            path = self.folder / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        about = self.folder / f"lab{self.packages}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: lab{self.packages}\nVersion: {version}\n", encoding="utf-8"
        )
        (about / "entry_points.txt").write_text(
            f"[cissod_bench.methods]\n{methods}\n[cissod_bench.tasks]\n{tasks}\n", encoding="utf-8"
        )


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.startswith("lab_")]:
        monkeypatch.delitem(sys.modules, name)
    return Lab(folder)


def method(folder: Path, body: str = "") -> str:
    return files.written(folder, "text", body).read_text(encoding="utf-8")


def test_a_package_adds_a_method_and_a_task(lab: Lab, tmp_path: Path) -> None:
    modules = {"lab_one.idea": method(tmp_path), "lab_one.shapes": TASK}
    lab.install(modules, methods="new_idea = lab_one.idea:METHOD", tasks="lab_shapes = lab_one.shapes:TASK")
    listed = catalogue.list_methods()
    assert (listed["new-idea"].title, listed["new-idea"].source) == ("Own", "a test")
    assert list(listed)[-1] == "new-idea"
    assert catalogue.load_method("new_idea").title == "Own"
    assert catalogue.load_method("new-idea").name == "new-idea"
    assert "lab-shapes" in catalogue.list_tasks()
    assert catalogue.load_task("lab-shapes").title == "Lab's shapes"


def test_listing_imports_no_package(lab: Lab, tmp_path: Path) -> None:
    text = "raise RuntimeError('imported')\n" + method(tmp_path)
    lab.install({"lab_two.__init__": "1 / 0\n", "lab_two.idea": text}, methods="idle = lab_two.idea:METHOD")
    assert catalogue.list_methods()["idle"].title == "Own"
    assert not [name for name in sys.modules if name.startswith("lab_two")]


def test_a_method_that_is_made_elsewhere_is_listed_by_its_name(lab: Lab, tmp_path: Path) -> None:
    modules = {"lab_three.a": method(tmp_path), "lab_three.b": "from lab_three.a import METHOD\n"}
    lab.install(modules, methods="again = lab_three.b:METHOD")
    assert catalogue.list_methods()["again"].title == "again"
    assert catalogue.load_method("again").title == "Own"


@pytest.mark.parametrize(
    ("module", "text", "point", "reason"),
    [
        ("lab_four", "", "lab_gone:METHOD", "there is no module 'lab_gone'"),
        ("lab_four", "", "lab_four.inner:METHOD", "there is no module 'lab_four.inner'"),
        ("lab_four", "METHOD_1 = 2\n", "lab_four:METHOD", "lab_four.py has no METHOD"),
        ("lab_four", "METHOD = 2\n", "lab_four", "names no object; an entry point is written MODULE:OBJECT"),
        ("lab_four", "x = 1\ndef f(:\n", "lab_four:METHOD", "lab_four.py, line 2: invalid syntax"),
    ],
)
def test_a_broken_entry_is_named_and_the_others_are_listed(
    lab: Lab, tmp_path: Path, module: str, text: str, point: str, reason: str
) -> None:
    lab.install({module: text}, methods=f"broken = {point}", version="3.1")
    lab.install({"lab_five": method(tmp_path)}, methods="fine = lab_five:METHOD")
    with pytest.warns(BrokenEntry) as told:
        listed = catalogue.list_methods()
    assert "broken" not in listed
    assert {"fine", "soft-teacher", "ours"} <= listed.keys()
    (warning,) = told
    assert str(warning.message).startswith("methods: the entry 'broken' of lab1 3.1 is left out: ")
    assert reason in str(warning.message)


def test_an_entry_replaces_no_method_of_the_catalogue(lab: Lab, tmp_path: Path) -> None:
    lab.install({"lab_six": method(tmp_path)}, methods="soft_teacher = lab_six:METHOD")
    with pytest.warns(BrokenEntry, match="'soft-teacher' of lab1 1.0 is left out: the catalogue has an entry of that"):
        assert catalogue.list_methods()["soft-teacher"].title == "Soft Teacher"
    assert catalogue.load_method("soft-teacher").title == "Soft Teacher"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import json\n\nMETHOD = json.loads('')\n",
            "The method 'late' of lab1 1.0 cannot be loaded: .*JSONDecodeError",
        ),
        ("METHOD = 3\n", "The method 'late' of lab1 1.0 must be a Method. Got int."),
    ],
)
def test_what_only_an_import_tells_is_told_when_the_method_is_named(
    lab: Lab, text: str, message: str, recwarn: pytest.WarningsRecorder
) -> None:
    lab.install({"lab_seven": text}, methods="late = lab_seven:METHOD")
    assert "late" in catalogue.list_methods()
    with pytest.raises(UsageFault, match=message):
        catalogue.load_method("late")
    assert [one for one in recwarn if issubclass(one.category, BrokenEntry)] == []


def test_the_command_line_lists_the_others_and_warns_in_a_line_of_its_own(
    lab: Lab, tmp_path: Path, call: Callable[..., Called]
) -> None:
    lab.install({"lab_eight": method(tmp_path)}, methods="fine = lab_eight:METHOD\nbroken = lab_nine:METHOD")
    done = call("methods", "--json")
    assert done.code == 0
    assert {"fine", "ours"} <= {row["name"] for row in json.loads(done.out)}
    assert done.err == (
        "Warning: methods: the entry 'broken' of lab1 1.0 is left out: there is no module 'lab_nine'.\n"
    )


def test_another_process_finds_the_package_on_its_path(lab: Lab, tmp_path: Path) -> None:
    lab.install({"lab_ten": method(tmp_path)}, methods="fine = lab_ten:METHOD")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(lab.folder), str(root)])}
    words = [sys.executable, "-m", "cissod_bench", "methods", "fine", "--json"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["citation"] == "nobody"


def test_without_packages_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "toy" in catalogue.list_tasks()
        assert "ours" in catalogue.list_methods()
