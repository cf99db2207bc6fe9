"""A run in a process of its own, which ends when the sweep that started it does.

The child has its own session, so that Ctrl-C reaches the sweep alone, which then asks the child for a checkpoint. Its
standard input is a pipe that only the sweep holds open: when the sweep ends, kill -9 included, the pipe ends and the
child asks itself to stop. That works on every POSIX system.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cissod_bench.launching.launchers import alone
from cissod_bench.signals import FOLLOW_PARENT

_POLL = 0.25  # seconds


def start(command: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a child; all it prints goes to a file. It is no rank: several sweeps may be one srun's processes.

    Args:
        command: the words of the command line.
        output: the file; it is replaced.
        environment: added to this process's.
    """
    with output.open("wb") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **alone(os.environ), **environment},
            start_new_session=True,
        )


def run_command(words: Sequence[str]) -> list[str]:
    """Return the command line that runs ``cissod-bench`` with these words as a child of this process."""
    return [sys.executable, "-m", "cissod_bench", FOLLOW_PARENT, *words]


def wait(
    process: subprocess.Popen[bytes],
    asked: Sequence[int],
    *,
    tick: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> int:
    """Wait for a child and return its exit code (minus the signal's number if one ended it).

    The first stop request is passed on as SIGTERM, at which a run writes a checkpoint; a second Ctrl-C kills it.

    Args:
        process: from `start`.
        asked: from `stop_requests`.
        tick: called a few times per second.
        stopping: called when the stop request is passed on.
    """
    told = False
    while True:
        try:
            return process.wait(_POLL)
        except subprocess.TimeoutExpired:
            if asked and not told:
                process.terminate()
                stopping()
                told = True
            if list(asked).count(signal.SIGINT) > 1:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # with its loader workers, which would hold its lock
            tick()
