"""Start a run in several processes: the same command line once a rank, through torch's own launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import IO

from cissod_bench.errors import BenchError, Interrupted, UsageFault

_OWN = ("--gpus", "--launcher")
FAILED_RANK = "one of the processes failed; its message stands above"


def process_count(gpus: str) -> int:
    """Return how many processes ``--gpus`` asks for: a number, or "auto" for every GPU there is, at least one.

    Raises:
        UsageFault: neither "auto" nor an integer >= 1.
    """
    if gpus == "auto":
        import torch

        return max(torch.cuda.device_count(), 1)
    if not gpus.isdigit() or int(gpus) < 1:
        raise UsageFault(f"--gpus must be 'auto' or an integer >= 1. Got {gpus!r} instead.")
    return int(gpus)


def without_own_options(words: Sequence[str]) -> list[str]:
    """Return a command line without --gpus and --launcher and their values."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _OWN:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in _OWN)):
            kept.append(word)
    return kept


def launch(processes: int, words: Sequence[str], *, output: IO[bytes] | None = None) -> None:
    """Run ``cissod-bench`` with these words in several processes on this machine and wait for them.

    Args:
        processes: how many.
        words: the command line behind the program's name.
        output: takes what the processes say; None shows it.

    Raises:
        Interrupted: the run was stopped and can be continued.
        BenchError: a process failed.
    """
    # A free port on this machine is chosen by the launcher; threads are shared among the ranks.
    threads = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
        "-m", "cissod_bench", *without_own_options(words),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    stopped: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped and code:
        raise Interrupted("The run was stopped.", remedy="repeat the same command to continue from its last checkpoint")
    if code:
        raise BenchError(f"The run ended with exit code {code}: {FAILED_RANK}.")
