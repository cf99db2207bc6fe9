"""Processes of a test's own: two gloo ranks for what ranks must agree on, or one for what takes much memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from forks import Fork

from cissod_bench.launching.ranks import free_port, rank_environment

PATIENCE = 240  # seconds until ranks that wait for each other say where they wait and are ended
HEAD = "import faulthandler\nfaulthandler.dump_traceback_later({patience}, exit=True)\n"


def run_processes(code: str, folder: Path, environments: list[dict[str, str]], patience: int = PATIENCE) -> None:
    """Run a script in one process for each of the environments; all must end well, one that does not ends the others.

    The script may import what lies in this folder.
    """
    log, shared = folder / "ranks.txt", {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", HEAD.format(patience=patience) + code]
    with log.open("ab") as stream:
        ranks = [
            Fork(words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**shared, **environment})
            for environment in environments
        ]
    while None in (codes := [rank.poll() for rank in ranks]):
        if any(codes):
            for rank in ranks:
                rank.kill()
        time.sleep(0.02)
    assert codes == [0] * len(ranks), log.read_text(encoding="utf-8")


def two_processes(code: str, folder: Path, **values: Any) -> list[dict[str, Any]]:
    """Run a script on two ranks (gloo) and return what each saved.

    ``{folder!r}`` in it and the names of ``values`` are filled in.
    """
    port = free_port()
    run_processes(
        code.format(folder=str(folder), **values), folder, [rank_environment(rank, 2, port) for rank in (0, 1)]
    )
    return [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)]
