"""The doctor names what is broken and the command that repairs it, also where torch and mmcv are missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_only import trains

from cissod_bench import doctor

ROOT = Path(__file__).resolve().parents[1]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes an import of the named modules, and of what is below them, fail."""

    def forget(*names: str) -> None:
        def load(name: str, package: str | None = None) -> Any:
            if name.split(".")[0] in names or name in names:
                raise ImportError(f"No module named {name!r}")
            return import_module(name, package)

        monkeypatch.setattr(doctor.importlib, "import_module", load)

    return forget


def fake_imports(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    known = {name.replace("__", "."): module for name, module in modules.items()}
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: known[name])


def fake_torch(cuda: bool) -> SimpleNamespace:
    gpus = SimpleNamespace(is_available=lambda: cuda, device_count=lambda: 2, get_device_name=lambda i: f"GPU {i}")
    return SimpleNamespace(__version__="2.13.0", cuda=gpus, tensor=lambda values, device: (values, device))


def test_missing_torch_fails_with_the_command_that_installs_it(missing: Any) -> None:
    missing("torch")
    check = doctor.check_torch()
    assert check.status == "FAIL"
    assert "torch" in check.detail
    assert check.fix == "make setup"


def test_outside_a_checkout_the_repair_is_a_pip_command(
    missing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing("torch")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.check_torch().fix == f"{sys.executable} -m pip install 'torch>=2.10'"


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_imports(monkeypatch, torch=fake_torch(cuda=False))
    monkeypatch.setattr(doctor, "_driver_shows_gpu", lambda: True)
    assert doctor.check_torch().status == "WARN"
    monkeypatch.setattr(doctor, "_driver_shows_gpu", lambda: False)
    assert doctor.check_torch().status == "PASS"


def test_the_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_imports(monkeypatch, torch=fake_torch(cuda=True))
    assert doctor.check_torch().detail == "2.13.0, 2 GPU: GPU 0, GPU 1"


def test_a_driver_that_does_not_answer_shows_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(doctor.subprocess, "run", answer)
    assert not doctor._driver_shows_gpu()


def test_mmcv_without_operators_fails_with_the_command_that_compiles_them(missing: Any) -> None:
    missing("mmcv._ext")
    check = doctor.check_mmcv_ops()
    assert check.status == "FAIL"
    assert check.fix.startswith("CFLAGS=-g0 MMCV_WITH_OPS=1 FORCE_CUDA=")
    assert check.fix.endswith("--no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv")


@pytest.mark.parametrize(
    ("kept", "cuda", "status"),
    [([0, 2], False, "PASS"), ([0, 1, 2], False, "FAIL"), ([0, 2], True, "PASS")],
    ids=["right on the CPU", "wrong boxes", "right on both"],
)
def test_the_operators_must_keep_the_right_boxes(
    kept: list[int], cuda: bool, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = SimpleNamespace(nms=lambda boxes, scores, threshold: (None, kept))
    mmcv = SimpleNamespace(__version__="2.3.6")
    fake_imports(monkeypatch, torch=fake_torch(cuda), mmcv=mmcv, mmcv__ops=ops, mmcv___ext=None)
    assert doctor.check_mmcv_ops().status == status


def test_operators_without_their_gpu_part_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def nms(boxes: tuple[Any, str], scores: Any, threshold: float) -> tuple[None, list[int]]:
        if boxes[1] == "cuda":
            raise RuntimeError("nms_impl: implementation for device cuda not found.\nmore")
        return None, [0, 2]

    mmcv = SimpleNamespace(__version__="2.3.6")
    fake_imports(monkeypatch, torch=fake_torch(True), mmcv=mmcv, mmcv__ops=SimpleNamespace(nms=nms), mmcv___ext=None)
    check = doctor.check_mmcv_ops()
    assert check.status == "WARN"
    assert "implementation for device cuda not found.)" in check.detail
    assert "FORCE_CUDA=1" in check.fix


@pytest.mark.parametrize(
    ("gone", "status"), [("hotcoco", "WARN"), ("pycocotools", "FAIL")], ids=["fast engine", "reference engine"]
)
def test_a_missing_scorer_is_named(gone: str, status: str, missing: Any) -> None:
    missing(gone)
    check = doctor.check_scorers()
    assert (check.status, gone in check.detail, gone in check.fix) == (status, True, True)


def packages(monkeypatch: pytest.MonkeyPatch, **stated: tuple[str, ...]) -> None:
    """Let these be installed and nothing else but what is: cissod-bench's and others' requirements."""
    real = {name: import_module("importlib.metadata").version(name) for name in ("click", "rich", "numpy", "packaging")}
    fakes = [SimpleNamespace(name=name, version=version, requires=None) for name, version in real.items()]
    for name, requires in {"cissod_bench": (), **stated}.items():
        fakes.append(SimpleNamespace(name=name, version="1.0", requires=list(requires)))
    monkeypatch.setattr(doctor, "distributions", lambda: fakes)


def test_a_version_outside_its_range_fails_and_says_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    packages(monkeypatch, cissod_bench=("click<1", "no-such-package>=2", "rich", "numpy<1; extra == 'other'"))
    check = doctor.check_versions(tmp_path / "constraints.txt")
    assert check.status == "FAIL"
    assert "(<1); no-such-package missing (>=2)" in check.detail
    assert check.fix.endswith("'click<1' 'no-such-package>=2'")


def test_versions_within_their_ranges_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages(monkeypatch, cissod_bench=("click>=8", "tomli; python_version < '3'", "pytest; extra == 'dev'"))
    check = doctor.check_versions(tmp_path / "constraints.txt")
    assert check == doctor.Check("versions", "PASS", "1 packages within their ranges")


def test_a_package_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-distribution")
    check = doctor.check_versions()
    assert check.status == "FAIL"
    assert "no-such-distribution" in check.detail


def test_a_version_that_departs_from_its_pin_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, cissod_bench=("click>=8",))
    pins = tmp_path / "constraints.txt"
    pins.write_text("# why\nclick==0.1\nno-such-package==1\nrich==0.1; python_version < '3'\n", encoding="utf-8")
    check = doctor.check_versions(pins)
    assert check.status == "WARN"
    assert check.detail.endswith("(==0.1)")
    assert check.fix.endswith("click==0.1")


def test_without_pins_nothing_departs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, cissod_bench=("click>=8",))
    assert doctor.check_versions(tmp_path / "constraints.txt").status == "PASS"


def test_a_range_counts_before_a_pin_and_both_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    packages(monkeypatch, cissod_bench=("click<1",))
    pins = tmp_path / "constraints.txt"
    pins.write_text("rich==0.1\n", encoding="utf-8")
    check = doctor.check_versions(pins)
    assert check.status == "FAIL"
    assert "(<1); rich " in check.detail
    assert check.fix.endswith("'click<1'")


@pytest.mark.parametrize(
    ("needed", "status", "words"),
    [
        ("opencv-python>=4", "PASS", "1 packages within their ranges"),
        ("OpenCV_Python<4.13", "FAIL", "OpenCV_Python 5.0 (<4.13 for imaug)"),
        ("opencv-python<4.13; python_version < '3'", "PASS", ""),
        ("a line that is no requirement", "PASS", ""),
    ],
    ids=["agree", "disagree", "not here", "cannot be read"],
)
def test_packages_are_asked_whether_they_agree(
    needed: str, status: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(monkeypatch, imaug=(needed,))
    opencv = SimpleNamespace(name="opencv_python", version="5.0", requires=None)
    left_over = SimpleNamespace(name=None, version=None, requires=None)  # by an interrupted installation
    everything = [*doctor.distributions(), opencv, left_over]
    monkeypatch.setattr(doctor, "distributions", lambda: everything)
    check = doctor.check_versions(tmp_path / "constraints.txt")
    assert check.status == status
    assert words in check.detail


def test_versions_are_checked_where_there_is_no_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(*_: Any, **__: Any) -> Any:
        raise AssertionError("no pip here")

    monkeypatch.setattr(doctor.subprocess, "run", start)
    packages(monkeypatch, cissod_bench=("click<1",))
    assert doctor.check_versions(tmp_path / "constraints.txt").status == "FAIL"


def test_the_versions_here_are_judged_as_pip_judges_them() -> None:
    pip = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if "No module named pip" in pip.stderr:
        pytest.skip("this environment has no pip")
    # timm is installed without all that it asks for, which pip holds against it (`doctor.ALONE`).
    alone = tuple(f"{name} " for name in doctor.ALONE)
    wrong = [line for line in pip.stdout.splitlines() if " requires " in line and not line.startswith(alone)]
    broken = bool(wrong) or (pip.returncode != 0 and " requires " not in pip.stdout)
    assert (doctor.check_versions().status == "FAIL") is broken, pip.stdout


def test_little_shared_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(2**26, 0, 2**26))
    assert doctor.check_shared_memory(tmp_path).status == "WARN"
    assert doctor.check_shared_memory(tmp_path / "none").status == "PASS"


@pytest.mark.parametrize(("free", "status"), [(100, "PASS"), (1, "WARN"), (0.1, "FAIL")], ids=str)
def test_a_full_disk_fails_before_it_is_written_to(
    free: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(0, 0, int(free * doctor.GIB)))
    assert doctor.check_disk(tmp_path / "not" / "made" / "yet").status == status


def test_the_work_folder_is_tried_and_not_made(tmp_path: Path) -> None:
    work = tmp_path / "a" / "work"
    assert doctor.check_work_dir(work).detail == f"{work} can be made"
    assert list(tmp_path.iterdir()) == []
    work.mkdir(parents=True)
    assert doctor.check_work_dir(work).detail == f"{work} can be written"
    assert list(work.iterdir()) == []


@trains
def test_the_weights_that_full_needs_have_an_address_a_place_and_a_way_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    check = doctor.check_pretrained()
    place = tmp_path / "hub/checkpoints/resnet50_msra-5891d200.pth"
    assert check.status == "WARN"
    assert "preset full needs open-mmlab://detectron2/resnet50_caffe, from https://" in check.detail
    assert f"not at {place} yet" in check.detail
    assert check.fix.startswith(f"curl -L --create-dirs -o {place} https://")
    assert f"copy it to {place}" in check.fix
    assert "--set pretrained=FILE" in check.fix


@pytest.mark.parametrize(
    ("kind", "depth", "status", "detail"),
    [
        ("caffe", 50, "PASS", "ResNet-50, caffe"),
        ("torchvision", 50, "WARN", "cannot be told"),
        ("caffe", 34, "WARN", "is a ResNet-34"),
        ("", 50, "WARN", "cannot be read as weights"),
    ],
)
def test_the_weights_that_full_needs_are_looked_into(
    kind: str, depth: int, status: str, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from weights import MAKERS

    from cissod_bench.contract import settings

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(settings, "FULL", replace(settings.FULL, base_channels=8))
    place = tmp_path / "hub/checkpoints/resnet50_msra-5891d200.pth"
    place.parent.mkdir(parents=True)
    if kind:
        torch.save(MAKERS[kind](depth), place)
    else:
        place.write_bytes(b"PK\x03\x04 cut off")
    check = doctor.check_pretrained()
    assert check.status == status
    assert detail in check.detail
    assert str(place) in check.detail
    assert bool(check.fix) is (status == "WARN")


@trains
def test_without_mmengine_the_line_on_pretrained_weights_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mmengine.runner", None)
    check = doctor.check_pretrained()
    assert check.status == "WARN"
    assert "mmengine.runner" in check.detail
    assert check.fix == "make setup"


def test_a_work_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("", encoding="utf-8")
    check = doctor.check_work_dir(tmp_path / "work" / "deeper")
    assert check.status == "FAIL"
    assert "--work-dir" in check.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_work_folder_without_write_access_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert doctor.check_work_dir(tmp_path / "work").status == "FAIL"


def test_a_taken_master_port_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        assert doctor.check_port().status == "WARN"
    monkeypatch.setenv("MASTER_PORT", "many")
    assert doctor.check_port().status == "WARN"
    monkeypatch.delenv("MASTER_PORT")
    assert doctor.check_port().status == "PASS"


def test_more_threads_than_the_container_may_use_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(doctor, "_cpu_quota", lambda: 2.0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert doctor.check_cores().fix == "export OMP_NUM_THREADS=2"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert doctor.check_cores().status == "PASS"
    monkeypatch.setattr(doctor, "_cpu_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert doctor.check_cores().fix == "export OMP_NUM_THREADS=16"


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None)], ids=["none", "1.5", "odd"]
)
def test_the_containers_share_of_the_cores_is_read(text: str, cores: float | None, tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text, encoding="ascii")
    assert doctor._cpu_quota(file) == cores
    assert doctor._cpu_quota(tmp_path / "none") is None


def test_a_python_newer_than_tried_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 12, 9))
    assert doctor.check_python().status == "PASS"
    monkeypatch.setattr(doctor.sys, "version_info", (3, 99, 0))
    assert doctor.check_python().status == "WARN"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "cissod_bench", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@trains
def test_json_is_a_list_of_checks_with_four_keys(tmp_path: Path) -> None:
    done = command("doctor", "--json", "--work-dir", str(tmp_path))
    checks = json.loads(done.stdout)
    assert all(set(check) == {"check", "status", "detail", "fix"} for check in checks)
    assert done.returncode == (4 if any(check["status"] == "FAIL" for check in checks) else 0)
    assert {"torch", "mmcv operators", "versions"} <= {check["check"] for check in checks}


def test_without_torch_and_mmcv_the_doctor_explains_and_ends_with_4(tmp_path: Path) -> None:
    for name in ("torch", "mmcv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('no {name} here')\n", encoding="utf-8")
    done = command("doctor", PYTHONPATH=str(tmp_path), COLUMNS="200", CISSOD_WORK=str(tmp_path / "work"))
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "ImportError: no torch here" in done.stdout
    assert "ImportError: no mmcv here" in done.stdout
    assert "make setup" in done.stdout
    assert "torch, mmcv operators" in done.stderr
