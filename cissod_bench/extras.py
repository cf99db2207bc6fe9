"""What is installed of the part that trains, and the one command that adds it.

Splits, scores and reports need the core's packages alone. torch, mmcv and mmdet are the extra ``train``.
"""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from cissod_bench.errors import EnvironmentFault

TRAINING = ("torch", "mmengine", "mmcv", "mmdet")
"""What `import` calls the packages without which nothing trains."""

ROOT = Path(__file__).resolve().parents[1]


def missing() -> list[str]:
    """Return those of `TRAINING` that are not installed; none of them is imported."""
    return [name for name in TRAINING if find_spec(name) is None]


def command_for_training() -> str:
    """Return the one command line that adds what training needs to this environment.

    uv takes the build of torch that fits the machine: for the CPU without a card, else for the driver. mmcv comes as
    source, and its operators are compiled against that torch, so torch has to be there before.
    """
    if (ROOT / "Makefile").is_file():
        return "make setup"
    python = shlex.quote(sys.executable)
    uv = f"{python} -m uv pip install --python {python}"
    torch = f"{uv} --torch-backend auto torch 'setuptools<82' wheel ninja"
    rest = f"CFLAGS=-g0 MMCV_WITH_OPS=1 {uv} --no-build-isolation 'cissod-bench[train]'"
    return f"{python} -m pip install uv && {torch} && {rest}"


def require_training(what: str) -> None:
    """Refuse what trains or holds a detector where its packages are not installed.

    Args:
        what: how the user names it, e.g. "run".

    Raises:
        EnvironmentFault: at least one of them is missing; its remedy is the command that adds all.
    """
    if gone := missing():
        raise EnvironmentFault(
            f"{what} needs {', '.join(gone)}, not installed here. Splits, scores and reports do without.",
            remedy=command_for_training(),
        )
