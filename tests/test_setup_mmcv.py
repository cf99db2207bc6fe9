"""mmcv's operators are compiled once for each machine, by as many compilers as its memory holds."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from setup_mmcv import (
    GIB,
    Build,
    MmcvSetup,
    NoMmcv,
    cache_folder,
    compile_environment,
    free_memory,
    jobs,
    mend_opencv,
)
from setup_mmcv_sources import packed
from setup_packages import Installer

BUILD = Build("2.3.6", "2.13.0+cpu", "cpython-311", "", "c++ (Debian 12.2) 12.2.0", "Linux-x86_64-glibc-2.36")
WHEEL = "onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl"


@dataclass
class Checkout:
    """An environment that installs nothing: pip's wheels say what their operators do, and what was done is noted.

    Attributes:
        pip_makes: what the wheels are that pip hands out one after the other; "" does not compile.
        source: the files that mmcv's source has; with none it cannot be downloaded.
    """

    pip_makes: Iterator[str]
    source: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": ""})
    done: list[str] = field(default_factory=list)
    installed: str = ""

    def install(self, *arguments: str) -> bool:
        self.installed = Path(arguments[-1]).read_text(encoding="utf-8")
        self.done.append("install")
        return True

    by_pip = install

    def wheel(self, arguments: tuple[str, ...], environment: dict[str, str]) -> bool:
        self.done.append(f"compile {environment['MMCV_WITH_OPS']}")
        folder = Path(arguments[-1])
        self.done += sorted(path.name for path in folder.rglob("*.cpp") if path.parent.name != "apart")
        made = Path(arguments[arguments.index("-w") + 1])
        made.mkdir()
        content = next(self.pip_makes)
        if content:
            (made / WHEEL).write_text(content, encoding="utf-8")
        return bool(content)

    def download(self, *arguments: str) -> bool:
        if self.source:
            folder = Path(arguments[arguments.index("-d") + 1])
            with tarfile.open(folder / "onedl_mmcv-2.3.6.tar.gz", "w:gz") as archive:
                for name, text in self.source.items():
                    entry = tarfile.TarInfo(f"onedl_mmcv-2.3.6/{name}")
                    entry.size = len(text)
                    archive.addfile(entry, io.BytesIO(text.encode()))
        return bool(self.source)


def setup(checkout: Checkout, cache: Path, build: Build = BUILD) -> MmcvSetup:
    works = lambda: checkout.installed == "good"  # noqa: E731
    installer: Any = checkout
    return MmcvSetup(installer, cache / "pins", build, cache / build.key, works, say=lambda line: None)


def test_the_next_checkout_compiles_nothing(tmp_path: Path) -> None:
    first, second = Checkout(iter(["good"])), Checkout(iter([]))
    setup(first, tmp_path).install()
    setup(second, tmp_path).install()
    assert first.done == ["compile 1", "install"]
    assert second.done == ["install"]
    assert [path.name for path in (tmp_path / BUILD.key).iterdir()] == [WHEEL]


@pytest.mark.parametrize(
    "change",
    [
        {"mmcv": "2.3.7"},
        {"torch": "2.13.0+cu130"},
        {"python": "cpython-312"},
        {"cuda": "cuda13.0-V13.0.88-sm90"},
        {"compiler": "c++ (Debian 14.2) 14.2.0"},
        {"system": "Linux-aarch64-glibc-2.36"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_build_is_compiled_anew(change: dict[str, str], tmp_path: Path) -> None:
    setup(Checkout(iter(["good"])), tmp_path).install()
    other = Checkout(iter(["good"]))
    setup(other, tmp_path, replace(BUILD, **change)).install()
    assert "compile 1" in other.done


def test_a_wheel_of_pip_s_cache_without_operators_is_compiled_past_it_and_never_kept(tmp_path: Path) -> None:
    checkout = Checkout(iter(["no operators", "good"]))
    setup(checkout, tmp_path).install()
    assert checkout.done == ["compile 1", "install", "install", "compile 1", "install"]
    (kept,) = (tmp_path / BUILD.key).iterdir()
    assert kept.read_text(encoding="utf-8") == "good"


def test_a_kept_wheel_that_does_not_run_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / BUILD.key).mkdir()
    (tmp_path / BUILD.key / WHEEL).write_text("of a machine with other instructions", encoding="utf-8")
    setup(Checkout(iter(["good"])), tmp_path).install()
    assert (tmp_path / BUILD.key / WHEEL).read_text(encoding="utf-8") == "good"


def test_opencv_is_mended_before_operators_are_tried_so_that_a_good_wheel_is_not_thrown_away(tmp_path: Path) -> None:
    setup(Checkout(iter(["good"])), tmp_path).install()
    bare, mended = Checkout(iter([])), []
    works = lambda: bare.installed == "good" and bool(mended)  # noqa: E731
    replace(setup(bare, tmp_path), works=works, mend=lambda: mended.append("cv2")).install()
    assert (bare.done, mended) == (["install"], ["cv2"])


@pytest.mark.parametrize(("code", "asked"), [(0, 0), (1, 1)], ids=["imports", "does not"])
def test_opencv_is_replaced_only_where_it_cannot_be_imported(code: int, asked: int, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] && echo "$*" >>{tmp_path}/asked\nexit {code}\n', encoding="utf-8")
    python.chmod(0o755)
    mend_opencv(Installer(str(python), tmp_path / "log", {}), tmp_path / "pins")
    lines = (tmp_path / "asked").read_text(encoding="utf-8").splitlines() if asked else []
    assert [line.endswith("opencv-python-headless") for line in lines] == [True] * asked


SOURCE = {
    "mmcv/ops/csrc/pytorch/pybind.cpp": "PYBIND11_MODULE(a) {}\n",
    "mmcv/ops/csrc/pytorch/one.cpp": "void one(int a) {\n  other(a);\n}\n",
    "mmcv/ops/csrc/pytorch/two.cpp": "Tensor two(int a);\n",
    "mmcv/ops/csrc/pytorch/cpu/one.cpp": "template <typename T>\nT one(T a) {}\n",
}


def test_for_the_cpu_few_big_files_are_compiled_instead_of_many_small_ones(tmp_path: Path) -> None:
    checkout = Checkout(iter(["good"]), SOURCE)
    setup(checkout, tmp_path).install()
    assert checkout.done == ["compile 1", "one.cpp", "pybind.cpp", "together_0.cpp", "install"]


@pytest.mark.parametrize("together", ["", "bad"], ids=["does not compile", "does not run"])
def test_where_few_files_fail_the_many_are_compiled(together: str, tmp_path: Path) -> None:
    checkout = Checkout(iter([together, "good"]), SOURCE)
    setup(checkout, tmp_path).install()
    assert checkout.done[-2:] == ["compile 1", "install"]
    assert (checkout.installed, checkout.done.count("compile 1")) == ("good", 2)


def test_for_gpus_mmcv_s_own_files_are_compiled_as_they_are(tmp_path: Path) -> None:
    checkout = Checkout(iter(["good"]), SOURCE)
    setup(checkout, tmp_path, replace(BUILD, cuda="cuda13.0-V13.0.88-sm90")).install()
    assert checkout.done == ["compile 1", "install"]


def test_files_that_define_one_name_or_a_macro_are_not_compiled_together() -> None:
    texts = {
        "a.cpp": "struct Grid {\n};\nvoid area(int a) {\n  return;\n}\n",
        "b.cpp": "static inline float area(float a) {}\n",
        "c.cpp": "void sum(Grid grid) { area(1); }\n",
        "d.cpp": "template <typename scalar_t>\nvoid mean(scalar_t a) {}\n",
        "e.cpp": "#define max(a, b) a\nvoid most() {}\n",
        "pybind.cpp": "void other() {}\n",
        "f.cpp": "void mean(int a);\n",
    }
    assert packed(texts) == [["a.cpp", "c.cpp", "d.cpp"], ["b.cpp", "f.cpp"]]


def test_operators_that_never_run_are_a_fault_and_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NoMmcv, match="do not run"):
        setup(Checkout(iter(["bad", "bad"])), tmp_path).install()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("memory", "cores", "expected"),
    [(2 * GIB, 8, 1), (GIB // 2, 2, 1), (16 * GIB, 4, 4), (7 * GIB, 16, 4), (None, 3, 3)],
)
def test_no_more_compilers_run_than_the_memory_holds(memory: int | None, cores: int, expected: int) -> None:
    assert jobs(memory, cores) == expected


def test_the_memory_is_that_of_the_container_where_it_is_less(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n", encoding="ascii")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n", encoding="ascii")
    (group / "memory.current").write_text(f"{GIB}\n", encoding="ascii")
    assert free_memory(tmp_path) == 8 * GIB
    (group / "memory.max").write_text(f"{3 * GIB}\n", encoding="ascii")
    assert free_memory(tmp_path) == 2 * GIB


def test_ccache_stands_in_for_the_compilers_where_it_is_there(tmp_path: Path) -> None:
    programs, stand_ins = tmp_path / "programs", tmp_path / "stand-ins"
    programs.mkdir(), stand_ins.mkdir()
    without = compile_environment(BUILD, {"PATH": str(programs)}, stand_ins)
    assert without["PATH"] == str(programs)
    (programs / "ccache").write_text("#!/bin/sh\n", encoding="utf-8")
    (programs / "ccache").chmod(0o755)
    with_it = compile_environment(BUILD, {"PATH": str(programs), "MAX_JOBS": "7", "CFLAGS": "-O2"}, stand_ins)
    assert with_it["PATH"].split(os.pathsep) == [str(stand_ins), str(programs)]
    assert (stand_ins / "c++").readlink() == programs / "ccache"
    assert (with_it["MAX_JOBS"], with_it["CFLAGS"], with_it["FORCE_CUDA"]) == ("7", "-O2 -g0", "0")


def test_wheels_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder({}) == Path("/home/somebody/.cache/cissod-bench/wheels")
    assert cache_folder({"XDG_CACHE_HOME": "/scratch"}) == Path("/scratch/cissod-bench/wheels")
