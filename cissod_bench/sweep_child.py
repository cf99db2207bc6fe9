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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cissod_bench.launchers import alone

GRACE = 600.0  # seconds an orphan has for its checkpoint, or for the end of its scoring
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
    return [sys.executable, "-m", "cissod_bench.sweep_child", *words]


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Yield a list that SIGTERM and Ctrl-C are added to instead of ending the process."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: nothing to catch
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        tick: called a few times a second.
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


def follow_parent() -> None:
    """Let this process end with the one that started it: watch standard input, a pipe from `start`, in a thread."""
    parent = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # for whatever reads standard input later
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_stop_after, args=(parent,), name="follow", daemon=True).start()


def _stop_after(parent: int) -> None:
    """Stop this process, gently and then not, once the pipe from its parent ends."""
    while os.read(parent, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run ``cissod-bench`` with this process's words for as long as its parent lives."""
    from cissod_bench.cli import entry

    follow_parent()
    sys.argv[0] = "cissod-bench"  # as the run's record shall name it
    entry()


if __name__ == "__main__":
    main()
