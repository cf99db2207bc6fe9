"""Processes of a test's own: two gloo ranks for what ranks must agree on, or one for what takes much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cissod_bench.launching.ranks import free_port, rank_environment

HERE = Path(__file__).parent
PATIENCE = 240  # seconds until ranks that wait for each other say where they wait and are ended
HEAD = "import faulthandler\nfaulthandler.dump_traceback_later({patience}, exit=True)\n"


@cache
def nursery() -> subprocess.Popen[str]:
    """Start the process whose forks the ranks are; it ends when its stdin is closed, thus with this process."""
    places = os.pathsep.join([os.getcwd(), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    words = [sys.executable, str(HERE / "nursery.py")]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def run_processes(code: str, folder: Path, environments: list[dict[str, str]], patience: int = PATIENCE) -> None:
    """Run a script in one process for each of the environments; all must end well."""
    log, shared = folder / "ranks.txt", {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [{**shared, **environment} for environment in environments]
    process = nursery()
    assert process.stdin is not None
    assert process.stdout is not None
    job = {"code": HEAD.format(patience=patience) + code, "log": str(log), "ranks": ranks}
    print(json.dumps(job), file=process.stdin, flush=True)
    assert json.loads(process.stdout.readline()) == [0] * len(ranks), log.read_text(encoding="utf-8")


def two_processes(code: str, folder: Path, **values: Any) -> list[dict[str, Any]]:
    """Run a script on two ranks (gloo) and return what each saved; if one fails, the other is ended, too.

    The script may import what lies in this folder; ``{folder!r}`` in it and the names of ``values`` are filled in.
    """
    port = free_port()
    run_processes(
        code.format(folder=str(folder), **values), folder, [rank_environment(rank, 2, port) for rank in (0, 1)]
    )
    return [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)]
