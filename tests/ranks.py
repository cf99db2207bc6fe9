"""Two gloo processes on this machine, for tests of what ranks must agree on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def two_processes(code: str, folder: Path) -> list[dict[str, Any]]:
    """Run a script on two ranks (gloo) and return what each saved."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = code.format(tests=str(Path(__file__).parent), folder=str(folder))
    base = {
        **os.environ,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen([sys.executable, "-c", code], env={**base, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    return [torch.load(folder / f"rank{r}.pth", weights_only=True) for r in (0, 1)]
