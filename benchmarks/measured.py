"""What the benchmarks leave behind: paired ratios, and records of them as JSON in ``benchmarks/records/``."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "records"
PACKAGES = ("torch", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine", "numpy", "opencv-python")


class Machine(msgspec.Struct, forbid_unknown_fields=True):
    """Where it was measured.

    Attributes:
        processor: its name.
        cores: those this process may use.
        memory_gib: of the machine.
        system: name and release.
        load: processes that waited for a core when the measurement began and ended, mean of a minute; on an idle
            machine the first is next to 0.
    """

    processor: str
    cores: int
    memory_gib: float
    system: str
    load: tuple[float, float]


class Ratio(msgspec.Struct, forbid_unknown_fields=True):
    """The ratios of pairs.

    Attributes:
        median, low, high: and the quartiles.
        pairs: how many.
        wanted: the goal, None where there is none.
        met: whether the median meets it.
    """

    median: float
    low: float
    high: float
    pairs: int
    wanted: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        goal = f", wanted {self.wanted}: {'met' if self.met else 'NOT met'}" if self.wanted else ""
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}, {self.pairs} pairs{goal})"


class Header(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every record begins with.

    Attributes:
        schema: version of the layout.
        created: UTC, ISO 8601.
        commit: of this tree, "+" behind it where files were changed since; "" outside a checkout.
        machine: where.
        versions: package -> version.
    """

    schema: int = 1
    created: str
    commit: str
    machine: Machine
    versions: dict[str, str]


def ratio(
    above: Sequence[float], below: Sequence[float], *, at_least: float | None = None, at_most: float | None = None
) -> Ratio:
    """Return the ratios of pairs of numbers, against a goal if there is one."""
    low, median, high = (float(x) for x in np.percentile(np.asarray(above) / np.asarray(below), (25, 50, 75)))
    if at_least is not None:
        return Ratio(median, low, high, len(above), f">= {at_least:g}", median >= at_least)
    if at_most is not None:
        return Ratio(median, low, high, len(above), f"<= {at_most:g}", median <= at_most)
    return Ratio(median, low, high, len(above))


def load() -> float:
    """Return the mean number of processes that wanted a core in the last minute; 0 where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def commit_of(folder: Path) -> str:
    """Return the short hash of a checkout's commit, "+" behind it where files differ from it; "" elsewhere."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        return git("rev-parse", "--short=8", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
    return ""


def machine(load_before: float) -> Machine:
    """Return the machine, with how busy it was before and is now."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(name, cores, round(memory, 1), f"{platform.system()} {platform.release()}", (load_before, load()))


def versions() -> dict[str, str]:
    """Return package -> installed version."""
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            known[package] = metadata.version(package)
    return known


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_record(folder: Path, name: str, record: Header) -> Path:
    """Write a record as ``NAME-DATE.json`` and return its path; an older one of that day is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{record.created[:10]}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return path
