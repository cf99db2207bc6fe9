"""Installs mmcv with its compiled operators: once for each machine, not once for each checkout.

mmcv comes as source, and its operators take minutes to compile, so those for the CPU are compiled in few big files
instead of many small ones. The wheel is kept in the user's cache under all that it
depends on (mmcv, torch, Python, CUDA, compiler, C library) and is found there by the next checkout. Whether operators
work is seen by running one. Standard library only.

Usage: setup_mmcv.py CONSTRAINTS LOG. Exit code 4: mmcv was not installed, and standard error says why.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import setup_mmcv_sources
from setup_packages import Installer

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "onedl-mmcv"
GIB = 2**30
A_COMPILER = 1.6 * GIB
"""Memory of one compiler process: torch's headers alone take 1.5 GiB with g++ 12 (measured); nvcc takes more."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return where compiled wheels are kept, by the rules of the XDG base directories."""
    base = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "cissod-bench" / "wheels"


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that new processes may take, the container's limit included; None where nothing tells."""
    found = []
    with suppress(OSError, AttributeError, ValueError):
        text = (root / "proc/meminfo").read_text(encoding="ascii")
        found.append(1024 * int(re.search(r"MemAvailable: +(\d+)", text).group(1)))  # type: ignore[union-attr]
    group = root / "sys/fs/cgroup"
    with suppress(OSError, ValueError):  # "max" is no number
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found) if found else None


def jobs(memory: int | None, cores: int) -> int:
    """Return how many files are compiled at once: as many as cores and memory allow."""
    fitting = cores if memory is None else int(memory // A_COMPILER)
    return max(1, min(cores, fitting))


@dataclass(frozen=True)
class Build:
    """What compiled operators depend on. Each is text; "" where there is none.

    Attributes:
        mmcv: version that the constraints pin.
        torch: its version, with the build (2.13.0+cpu).
        python: its ABI, cp311.
        cuda: what the GPU part is compiled with and for; "" for the CPU alone.
        compiler: name and version.
        system: system, processor and C library.
    """

    mmcv: str
    torch: str
    python: str
    cuda: str
    compiler: str
    system: str

    @property
    def key(self) -> str:
        """The name of its folder in the cache."""
        parts = [
            f"mmcv-{self.mmcv}",
            f"torch-{self.torch}",
            self.python,
            self.cuda or "cpu",
            self.compiler,
            self.system,
        ]
        return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)


def _told(*command: str) -> str:
    """Return the first line that a program prints, "" where it cannot."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
    return ""


_TORCH = """
import torch
cards = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
print(torch.__version__, torch.version.cuda or "", *sorted(f"sm{a}{b}" for a, b in cards), sep="|")
"""


def build_here(python: str, pins: Path, environment: Mapping[str, str]) -> Build:
    """Return what operators compiled here and now depend on.

    The GPU part is compiled where FORCE_CUDA says so, or where torch is of CUDA and nvcc is on the PATH.
    """
    torch, cuda_of_torch, *cards = (_told(python, "-c", _TORCH) or "none|").split("|")
    wanted = environment.get("FORCE_CUDA") or ("1" if cuda_of_torch and shutil.which("nvcc") else "0")
    built_for = environment.get("TORCH_CUDA_ARCH_LIST") or "-".join(cards)
    release = re.search(r"V[\d.]+", subprocess.getoutput("nvcc --version")) if wanted == "1" else None
    compiler = environment.get("CXX") or "c++"
    return Build(
        mmcv="".join(re.findall(rf"^{PROJECT}==(\S+)", pins.read_text(encoding="utf-8"), re.MULTILINE)),
        torch=torch,
        python=sys.implementation.cache_tag,
        cuda=f"cuda{cuda_of_torch}-{release.group() if release else 'unknown'}-{built_for}" if wanted == "1" else "",
        compiler=_told(compiler, "--version") or "no-compiler",
        system=f"{platform.system()}-{platform.machine()}-{'-'.join(platform.libc_ver())}",
    )


def compile_environment(build: Build, environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the variables under which mmcv is compiled; ccache stands in for the compilers where there is one.

    Args:
        build: what is compiled.
        environment: the variables as they are.
        folder: an empty folder for the stand-ins.
    """
    settings = {"MMCV_WITH_OPS": "1", "FORCE_CUDA": "1" if build.cuda else "0"}
    settings["CFLAGS"] = f"{environment.get('CFLAGS', '')} -g0".strip()  # half the time without debug symbols
    settings["MAX_JOBS"] = environment.get("MAX_JOBS") or str(jobs(free_memory(), _cores()))
    ccache = shutil.which("ccache", path=environment.get("PATH"))
    if ccache and "CXX" not in environment:
        for name in ("c++", "g++", "cc", "gcc"):
            (folder / name).symlink_to(ccache)
        settings["PATH"] = f"{folder}{os.pathsep}{environment.get('PATH', '')}"
    return {**environment, **settings}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class NoMmcv(Exception):
    """mmcv is not installed with operators that work."""


@dataclass(frozen=True)
class MmcvSetup:
    """One installation of mmcv.

    Attributes:
        installer: of the environment.
        pins: the constraints file.
        build: what its operators depend on.
        kept: the folder of this build's wheel.
        works: whether the operators of what is installed run.
        say: prints one line at once.
        mend: mends what mmcv has brought, before its operators are tried.
    """

    installer: Installer
    pins: Path
    build: Build
    kept: Path
    works: Callable[[], bool]
    say: Callable[[str], None]
    mend: Callable[[], None] = lambda: None

    def install(self) -> None:
        """Install the kept wheel, or compile one and keep it.

        Raises:
            NoMmcv: it was compiled, but its operators do not run, or the compiler failed.
        """
        if self.works() or self._from_cache():
            return
        # pip may have kept a wheel of its own, of another torch or without operators: the last time goes past it.
        for few_files, *more in ((True,), (False,), (False, "--no-cache-dir")):
            with tempfile.TemporaryDirectory(prefix="cissod-mmcv-") as scratch:
                source = self._few_files(Path(scratch)) if few_files else PROJECT
                if source is None:
                    continue
                wheel = self._compile(Path(scratch), source, more)
                if wheel is None and not few_files:
                    raise NoMmcv("mmcv could not be compiled.")
                if wheel is not None and self._put(wheel):
                    self._keep(wheel)
                    return
        raise NoMmcv("mmcv was compiled, but its operators do not run.")

    def _few_files(self, scratch: Path) -> str | None:
        """Return a folder with mmcv's source in few files; None for GPUs, or where the source is not to be had."""
        words = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-c", str(self.pins)]
        if self.build.cuda or not self.installer.download(*words, "-d", str(scratch), PROJECT):
            return None
        shutil.unpack_archive(next(scratch.glob("*.tar.gz")), scratch / "source")
        (source,) = (scratch / "source").iterdir()
        return str(source) if setup_mmcv_sources.pack(source) else None

    def _from_cache(self) -> bool:
        for wheel in sorted(self.kept.glob("*.whl")):
            self.say(f"== mmcv, as compiled before: {wheel}")
            if self._put(wheel):
                return True
            wheel.unlink()  # of no use to anybody
        return False

    def _put(self, wheel: Path) -> bool:
        installed = self.installer.install("-c", str(self.pins), str(wheel))
        if installed:
            self.mend()
        if installed and self.works():
            return True
        return self.installer.by_pip("--force-reinstall", "--no-deps", str(wheel)) and self.works()

    def _compile(self, scratch: Path, source: str, more: Sequence[str]) -> Path | None:
        """Return the compiled wheel, None where it does not compile."""
        stand_ins, made = scratch / "bin", scratch / "made"
        stand_ins.mkdir()
        variables = compile_environment(self.build, self.installer.environment, stand_ins)
        self.say(f"== mmcv, compiled once for this machine: {variables['MAX_JOBS']} files at once (minutes)")
        words = ("-v", "--no-deps", "--no-build-isolation", "-c", str(self.pins), "-w", str(made), *more, source)
        return next(made.glob("*.whl"), None) if self.installer.wheel(words, variables) else None

    def _keep(self, wheel: Path) -> None:
        with suppress(OSError):  # a home that cannot be written
            self.kept.mkdir(parents=True, exist_ok=True)
            half = self.kept / f".{wheel.name}.{os.getpid()}"
            shutil.copyfile(wheel, half)
            half.replace(self.kept / wheel.name)


def mend_opencv(installer: Installer, pins: Path) -> None:
    """Put OpenCV's headless twin over the one that mmcv brings, where that cannot be imported.

    It needs libGL, which a bare machine or a container has not; the other fills the same folder and needs nothing.
    """
    if subprocess.call((installer.python, "-c", "import cv2"), stderr=subprocess.DEVNULL):
        installer.by_pip("--force-reinstall", "--no-deps", "-c", str(pins), "opencv-python-headless")


def main(pins: Path, log: Path) -> int:
    """Install mmcv for the interpreter that runs this, and return the exit code."""
    build = build_here(sys.executable, pins, os.environ)
    bad = ("FAIL", "WARN") if build.cuda else ("FAIL",)  # WARN: on the CPU, but not on the GPU that is there
    check = f"from cissod_bench.doctor import check_mmcv_ops as c; raise SystemExit(c().status in {bad!r})"

    def works() -> bool:
        return not subprocess.call((sys.executable, "-c", check), cwd=ROOT, stderr=subprocess.DEVNULL)

    def say(line: str) -> None:
        print(line, flush=True)

    kept, installer = cache_folder(os.environ) / build.key, Installer(sys.executable, log)
    try:
        MmcvSetup(installer, pins, build, kept, works, say, lambda: mend_opencv(installer, pins)).install()
    except NoMmcv as fault:
        print(f"Error: {fault}\n  -> see {log}; for the CPU only: make FORCE_CUDA=0 setup", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
