"""Whether this checkout can be released: builds it and looks at what would be published. Nothing is published here.

    python scripts/release_check.py [TAG]

Builds sdist and wheel into dist/, has twine check them, looks into the wheel, compares the version's places, and writes
dist/licences.md and dist/sbom.json (CycloneDX) of everything that the core and the extra "train" need here. A tag must
be v and the version, and then CHANGELOG.md must have that version's section, which is written to dist/notes.md. Exit
code 1: something is wrong.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "cissod-bench"
EXTRAS = ("", "train")
COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
"""Licences that would bind the whole; the Lesser GPL does not match."""
WHEEL_LIMIT = 40_000_000
"""Bytes that a wheel may have: the weights that it brings are most of it."""


def version_here(root: Path = ROOT) -> str:
    """Return the version from its one place, ``cissod_bench/__init__.py``."""
    text = (root / "cissod_bench" / "__init__.py").read_text(encoding="utf-8")
    return "".join(re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE))


def wheel_faults(names: Iterable[str], version: str, size: int) -> list[str]:
    """Return what is wrong with a wheel.

    Args:
        names: of the files in it.
        version: that it must have.
        size: bytes.
    """
    names = set(names)
    info = f"cissod_bench-{version}.dist-info"
    faults = [
        f"the wheel has {name}" for name in sorted({name.split("/")[0] for name in names} - {"cissod_bench", info})
    ]
    needed = ("cissod_bench/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt")
    faults += [f"the wheel lacks {name}" for name in needed if name not in names]
    faults += [f"the wheel has {name}" for name in sorted(names) if "tests" in name.split("/") or name.endswith(".pyc")]
    return faults + ([f"the wheel has {size:,} bytes"] if size > WHEEL_LIMIT else [])


def citation_faults(text: str, version: str) -> list[str]:
    """Return what CITATION.cff lacks of what its format demands, or states otherwise than the project."""
    content = yaml.safe_load(text)
    faults = [
        f"CITATION.cff lacks {key}" for key in ("cff-version", "message", "title", "authors") if not content.get(key)
    ]
    wanted = {"version": version, "license": "Apache-2.0", "type": "software"}
    stated = {key: str(content.get(key)) for key in wanted}
    return faults + [
        f"CITATION.cff: {key} {stated[key]}, not {wanted[key]}" for key in wanted if stated[key] != wanted[key]
    ]


def tag_faults(tag: str, version: str, changelog: str) -> list[str]:
    """Return what a tag and the changelog say otherwise than the version."""
    faults = [] if tag == f"v{version}" else [f"the tag is {tag}, the version {version}: tag v{version}"]
    section = re.search(rf"^## \[{re.escape(version)}\]", changelog, re.MULTILINE)
    return faults + ([] if section else [f"CHANGELOG.md has no section [{version}]: give Unreleased that name"])


def notes(changelog: str, version: str) -> str:
    """Return what a changelog says of a version, without its heading; "" where it says nothing."""
    section = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    return section.group(1).strip() if section else ""


def needed_here(name: str, extras: Sequence[str] = EXTRAS) -> dict[str, Distribution]:
    """Return what a project and those of its extras need on this machine, by normal name, itself left out.

    What is required and not installed is left out, too: then the check is run in an environment that lacks it.
    """
    found: dict[str, Distribution] = {}
    waiting = [(name, tuple(extras))]
    while waiting:
        project, wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", project).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(project)
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, found[key].requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (wanted or ("",))):
                waiting.append((requirement.name, ("", *requirement.extras)))
    found.pop(name)
    return dict(sorted(found.items()))


def licence_of(package: Distribution) -> str:
    """Return a package's licence as it states it: an SPDX expression, else its classifiers, else its first line."""
    data = package.metadata
    if data["License-Expression"]:
        return str(data["License-Expression"])
    classes = [line.rpartition(" :: ")[2] for line in data.get_all("Classifier", []) if line.startswith("License ::")]
    classes = [name for name in classes if name != "OSI Approved"]
    return "; ".join(classes) or str(data["License"] or "").strip().partition("\n")[0] or "not stated"


def licence_faults(licences: dict[str, str]) -> list[str]:
    """Return which licences would bind the whole; a choice (``A OR B``) binds only if all of it does."""
    binding = [name for name, text in licences.items() if all(COPYLEFT.search(one) for one in text.split(" OR "))]
    return [f"{name} is under {licences[name]}" for name in binding]


def bill(version: str, packages: dict[str, Distribution], licences: dict[str, str]) -> dict[str, Any]:
    """Return the software bill of materials as CycloneDX 1.6 has it."""

    def component(kind: str, name: str, number: str, licence: str) -> dict[str, Any]:
        stated = [{"license": {"name": licence}}]
        return {"type": kind, "name": name, "version": number, "purl": f"pkg:pypi/{name}@{number}", "licenses": stated}

    parts = [component("library", name, one.version, licences[name]) for name, one in packages.items()]
    ours = component("application", PROJECT, version, "Apache-2.0")
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": ours}, "components": parts}


def _build(dist: Path) -> Path:
    """Build sdist and wheel, have twine check both, and return the wheel."""
    shutil.rmtree(dist, ignore_errors=True)
    subprocess.run((sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(ROOT)), check=True)
    files = [str(path) for path in dist.iterdir()]
    subprocess.run((sys.executable, "-m", "twine", "check", "--strict", *files), check=True)
    (wheel,) = dist.glob("*.whl")
    return wheel


def main(tag: str) -> int:
    """Check everything, write licences and bill, print the faults and return the exit code."""
    version, dist = version_here(), ROOT / "dist"
    wheel = _build(dist)
    with zipfile.ZipFile(wheel) as archive:
        faults = wheel_faults(archive.namelist(), version, wheel.stat().st_size)
    faults += citation_faults((ROOT / "CITATION.cff").read_text(encoding="utf-8"), version)
    if tag:
        changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        faults += tag_faults(tag, version, changelog)
        (dist / "notes.md").write_text(notes(changelog, version) + "\n", encoding="utf-8")
    packages = needed_here(PROJECT)
    licences = {name: licence_of(package) for name, package in packages.items()}
    faults += licence_faults(licences)
    rows = [f"| {name} | {packages[name].version} | {licence} |" for name, licence in licences.items()]
    text = "\n".join(["| package | version | licence |", "|---|---|---|", *rows, ""])
    (dist / "licences.md").write_text(text, encoding="utf-8")
    (dist / "sbom.json").write_text(json.dumps(bill(version, packages, licences), indent=2) + "\n", encoding="utf-8")
    print(*(f"Error: {fault}" for fault in faults), sep="\n", end="\n" if faults else "", file=sys.stderr)
    print(
        f"{PROJECT} {version}: {len(faults)} faults, {len(packages)} packages in licences.md and sbom.json below {dist}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main("".join(sys.argv[1:])))
