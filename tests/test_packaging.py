"""The wheel: one top-level name, the catalogue nested in it, the same entries as the checkout."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from core_alone import CHAIN, core_alone, somebodys_data

from cissod_bench import __version__, catalogue

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("splits", "baselines", "method", "reports")
LISTING = """
import json
from cissod_bench import __version__, catalogue
names = {"tasks": list(catalogue.list_tasks()), "methods": list(catalogue.list_methods())}
modules = [entry.module for entry in (*catalogue.list_tasks().values(), *catalogue.list_methods().values())]
print(json.dumps([__version__, str(catalogue.FOLDERS), names, sorted(catalogue.list_reports()), modules]))
"""


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def inside(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def test_the_wheel_has_one_top_level_name(inside: set[str]) -> None:
    tops = {name.partition("/")[0] for name in inside}
    assert tops == {"cissod_bench", f"cissod_bench-{__version__}.dist-info"}


def test_the_wheel_nests_every_file_of_the_catalogue(inside: set[str]) -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert f"cissod_bench/catalogue/{path.relative_to(ROOT).as_posix()}" in inside


def test_the_wheel_carries_every_file_of_the_core(inside: set[str]) -> None:
    files = [p for p in (ROOT / "cissod_bench").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= inside
    assert "cissod_bench/py.typed" in inside
    assert "cissod_bench/rendering/report.html.j2" in inside


def test_the_wheel_carries_its_licence_and_no_tests(inside: set[str]) -> None:
    assert f"cissod_bench-{__version__}.dist-info/licenses/LICENSE" in inside
    assert [name for name in inside if "tests" in name.split("/")] == []


def test_an_installed_wheel_lists_what_the_checkout_lists(installed: Path, tmp_path: Path) -> None:
    printed = run(sys.executable, "-c", LISTING, cwd=tmp_path, PYTHONPATH=str(installed))
    version, folders, names, reports, modules = json.loads(printed)
    assert version == __version__
    assert Path(folders) == installed / "cissod_bench" / "catalogue"
    assert names == {"tasks": list(catalogue.list_tasks()), "methods": list(catalogue.list_methods())}
    assert reports == sorted(catalogue.list_reports())
    assert all(module.startswith("cissod_bench.catalogue.") for module in modules)


def test_an_installed_wheel_loads_its_tasks(installed: Path, tmp_path: Path) -> None:
    code = "from cissod_bench import catalogue as c; print(*[c.load_task(name).name for name in c.list_tasks()])"
    printed = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert printed.split() == list(catalogue.list_tasks())


def test_the_command_of_an_installed_wheel_runs(installed: Path, tmp_path: Path) -> None:
    command = (sys.executable, str(installed / "bin" / "cissod-bench"), "--version")
    assert __version__ in run(*command, cwd=tmp_path, PYTHONPATH=str(installed))


@pytest.fixture(scope="module")
def alone(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and the core's packages: no torch, mmcv, mmengine or mmdet."""
    return core_alone(tmp_path_factory.mktemp("alone") / "venv", installed)


def test_the_wheel_goes_from_the_draw_to_the_report_without_what_trains(alone: Path, tmp_path: Path) -> None:
    data, split = somebodys_data(tmp_path), "work/splits/tiny/seed0"
    work = ["--work-dir", "work"]
    places = ["--data-root", str(data), *work]
    words = [
        ["make-splits", "--task", str(data / "tiny.toml"), *places],
        ["data", "check", "--task", str(data / "tiny.toml"), *places, "--deep"],
        ["splits", "list", *work],
        ["splits", "verify", split],
        ["evaluate", "--predictions", "found.json", "--split", split, *places],
        ["report", "--runs", str(ROOT / "results/toy/split0/soft-teacher"), *work],
        ["methods"],
    ]
    program = (alone, "-X", "warn_default_encoding", "-c", CHAIN, json.dumps(words))
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    codes, heavy, seconds = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert codes == [[line[0], 0] for line in words], done.stderr
    assert heavy == []
    # In the same process, because it takes seconds: nothing that Windows or macOS lacks is used (core_alone.py), and no
    # file is read or written in whatever encoding a system prefers.
    assert [line for line in done.stderr.splitlines() if "EncodingWarning" in line and "/cissod_bench/" in line] == []
    assert seconds < 60
    assert "AP in points" in done.stdout
    assert "Written: work/reports/" in done.stdout


@pytest.mark.parametrize("words", ["run --task toy --method ours", "demo", "check-method ours"])
def test_what_trains_says_the_one_command_that_adds_it(words: str, alone: Path, tmp_path: Path) -> None:
    program = (alone, "-m", "cissod_bench", *words.split())
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    told, remedy = done.stderr.splitlines()
    assert told.startswith(f"Error: {words.split()[0]} needs torch, mmengine, mmcv, mmdet, not installed here.")
    assert "uv pip install" in remedy
    assert remedy.endswith("--no-build-isolation 'cissod-bench[train]'")
    assert list(tmp_path.iterdir()) == []


def test_without_what_trains_the_doctor_warns_and_says_how_to_add_it(alone: Path, tmp_path: Path) -> None:
    listed = json.loads(run(str(alone), "-m", "cissod_bench", "doctor", "--json", cwd=tmp_path))
    checks = {check["check"]: check for check in listed}
    assert checks["training"]["status"] == "WARN"
    assert checks["training"]["fix"].endswith("'cissod-bench[train]'")
    assert checks["versions"]["status"] == "PASS"
    assert not {"torch", "mmcv operators", "preset photo"} & checks.keys()


def test_every_stated_requirement_is_pinned() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [requirements.Requirement(line) for line in lines if line and not line.startswith("#")]
    for text in [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]:
        stated = requirements.Requirement(text)
        versions = [next(iter(pin.specifier)).version for pin in pins if pin.name == stated.name]
        assert versions, f"{text} is not pinned"
        assert all(stated.specifier.contains(version) for version in versions), text


def test_no_requirement_lets_opencv_5_in_with_which_training_breaks() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    stated = {one.name: one.specifier for one in map(requirements.Requirement, lines) if "opencv" in one.name}
    assert stated.keys() == {"opencv-python", "opencv-python-headless"}  # mmcv asks for the former in any version
    assert not any(specifier.contains("5.0.0.93") for specifier in stated.values())


def test_every_imported_package_is_a_stated_requirement() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["train"], *extras["lvis"]]
    stated = {requirements.Requirement(text).name for text in texts}
    named = {"PIL": "pillow", "cv2": "opencv-python-headless", "mmcv": "onedl-mmcv", "mmdet": "onedl-mmdetection"}
    named |= {"mmengine": "onedl-mmengine", "yaml": "pyyaml"}
    files = [path for folder in ("cissod_bench", *FOLDERS) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_bytes()))]
    modules = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"cissod_bench", *FOLDERS}
    assert {"msgspec", "PIL"} <= tops
    assert {named.get(top, top) for top in tops} - stated - {"tomllib"} == set()


def test_a_cpu_machine_is_pinned_to_no_cuda_package() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith(("nvidia", "cuda", "triton", "torchvision"))] == []
