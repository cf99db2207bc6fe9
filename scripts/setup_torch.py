"""Installs the torch that fits this machine: without CUDA where there is no card.

pip knows one torch, which on Linux brings gigabytes of CUDA. uv knows PyTorch's builds (``--torch-backend``). So pip is
asked first what it would bring; uv installs where that does not fit, and where nothing fits the ways out are told.
Standard library only.

Usage: setup_torch.py CONSTRAINTS LOG [REQUIREMENT]. Exit code 4: no torch was installed, and standard error says why.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from setup_packages import Installer

WAYS_OUT = (
    "PyTorch's own site offers CPU wheels: download the one for your Python, then"
    " make TORCH=/path/to/torch-....whl setup",
    "or name PyTorch's CPU index in pip's settings (PIP_EXTRA_INDEX_URL), then make setup",
    "or keep a torch you have: make PYTHON=/path/to/its/python VENV_FLAGS=--system-site-packages setup",
    "or build for GPUs all the same: make FORCE_CUDA=1 setup",
)


class NoTorch(Exception):
    """No torch could be installed that this machine can use; the arguments are what to do about it."""

    def __init__(self, message: str, *ways_out: str) -> None:
        super().__init__(message)
        self.ways_out = ways_out


def _print_now(line: str) -> None:
    print(line, flush=True)


def shows_gpu() -> bool:
    """Return whether the driver shows an NVIDIA card."""
    try:
        shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return shown.returncode == 0 and "GPU" in shown.stdout


@dataclass(frozen=True)
class TorchSetup:
    """One installation of torch.

    Attributes:
        installer: of the environment.
        pins: the constraints file.
        requirement: "torch", or a version or wheel file of it.
        gpu: whether the machine shows a card.
        cuda_wanted: the CUDA build is wanted on a machine that shows no card (FORCE_CUDA=1).
        say: prints one line at once.
    """

    installer: Installer
    pins: Path
    requirement: str
    gpu: bool
    cuda_wanted: bool = False
    say: Callable[[str], None] = _print_now

    def install(self) -> None:
        """Install torch.

        Raises:
            NoTorch: neither uv nor pip has one that fits.
        """
        if self.gpu and not _is_file(self.requirement) and self._by_uv("auto", "the build for this driver"):
            return
        requirement = self.requirement
        if not self.gpu and not self.cuda_wanted:
            self.say("== No NVIDIA GPU here: asking what torch would bring")
            requirement, brought = self._asked()
            if brought:
                self._without_cuda(brought)
                return
        self.say(f"== {requirement}")
        if not self.installer.install("-c", str(self.pins), requirement):
            raise NoTorch("torch could not be installed.", f"see the end of {self.installer.log}")

    def _by_uv(self, backend: str, what: str) -> bool:
        if self.installer.uv() is None:
            return False
        self.say(f"== torch, {what}, by uv")
        return self.installer.by_uv("--torch-backend", backend, "-c", str(self.pins), self.requirement)

    def _without_cuda(self, brought: list[str]) -> None:
        self.say(f"   pip would bring {len(brought)} packages of CUDA")
        if not _is_file(self.requirement) and self._by_uv("cpu", "the CPU build"):
            return
        raise NoTorch(
            "This machine shows no NVIDIA GPU, but pip would install gigabytes of CUDA packages with torch"
            f" ({' '.join(brought)}), and uv has not brought the CPU build (see {self.installer.log}).",
            *WAYS_OUT,
        )

    def _asked(self) -> tuple[str, list[str]]:
        """Return the very torch that pip would install, and its CUDA packages; no wheel of an index is downloaded."""
        report = self.installer.ask(
            "install", "--dry-run", "--quiet", "--report", "-", "-c", str(self.pins), self.requirement
        )
        if report is None:
            raise NoTorch("pip finds no torch to install.", f"see the end of {self.installer.log}")
        versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report)["install"]}
        exact = (
            f"torch=={versions['torch']}"
            if "torch" in versions and not _is_file(self.requirement)
            else self.requirement
        )
        return exact, sorted(name for name in versions if re.match(r"(nvidia|cuda|triton)\b", name))


def _is_file(requirement: str) -> bool:
    return requirement.endswith(".whl")


def main(pins: Path, log: Path, requirement: str, cuda: str) -> int:
    """Install torch for the interpreter that runs this, and return the exit code."""
    setup = TorchSetup(Installer(sys.executable, log), pins, requirement, shows_gpu(), cuda == "1")
    try:
        setup.install()
    except NoTorch as fault:
        print(f"Error: {fault}", *(f"  -> {way}" for way in fault.ways_out), sep="\n", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(
        main(Path(sys.argv[1]), Path(sys.argv[2]), "".join(sys.argv[3:]) or "torch", os.environ.get("FORCE_CUDA", ""))
    )
