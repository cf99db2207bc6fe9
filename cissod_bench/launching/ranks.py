"""The ranks of a run as processes of this machine: the same command line once per rank, ended together when one dies.

torch's own launcher would do, but what a user is told is this project's business: which rank died and of what, with the
exit code that the run would have alone. It also kills ranks 30 seconds after it was asked to stop, checkpoint or not.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from cissod_bench.errors import BenchError, Interrupted, UsageFault
from cissod_bench.files.whole_files import remove_leftovers
from cissod_bench.launching.child import run_command
from cissod_bench.records import run_folder as runs
from cissod_bench.signals import CTRL_C, stop_requests

PATIENCE = 15.0  # seconds that ranks have to end after one of them has ended before its time
STOPPED = (Interrupted.exit_code, CTRL_C)  # exit codes of runs that were asked to stop
_POLL = 0.05  # seconds
_OWN = ("--gpus", "--launcher", "--nodes", "--partition", "--time", "--slurm")
_UNLOCKING = 2.0  # seconds that a dead rank's workers may hold the run's lock


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def rank_environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return the variables by which a rank finds the others, as torch's launcher sets them."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@dataclass(frozen=True)
class Ended:
    """A rank that has ended.

    Attributes:
        rank: its number.
        pid: of its process.
        code: its exit code, or minus the number of the signal that ended it.
        ours: the signal was sent from here.
    """

    rank: int
    pid: int
    code: int
    ours: bool = False

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and neither well nor because it was asked to or others were gone."""
        return not self.ours and self.code not in (0, *STOPPED)


@dataclass
class Ranks:
    """The processes of a run.

    Attributes:
        command: the same for all.
        processes: how many.
        environment: added to this process's, for all.
        patience: as `PATIENCE`.
        output: takes what they say; None shows it.
        result: takes what rank 0 writes to standard output where ``output`` does not.
        ended: in the order in which they ended.
    """

    command: Sequence[str]
    processes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = PATIENCE
    output: IO[bytes] | None = None
    result: IO[str] | None = None
    ended: list[Ended] = field(default_factory=list, init=False)
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)
    _sent: set[int] = field(default_factory=set, init=False)

    def start(self) -> None:
        """Start all ranks.

        Each has a session of its own, so that Ctrl-C reaches this process alone, and a standard input that ends with
        this process, for `signals.follow_parent`.
        """
        port = free_port()
        for rank in range(self.processes):
            of_rank = rank_environment(rank, self.processes, port)
            self._running[rank] = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=self.output or (self.result if rank == 0 else None),
                stderr=self.output,
                env={**os.environ, **self.environment, **of_rank},
                start_new_session=True,
            )

    def wait(self, asked: Sequence[int] = ()) -> list[Ended]:
        """Wait until all ranks have ended; once one ends before its time, the others are ended, too.

        Args:
            asked: grows by the signals that come; at the first the ranks are asked to stop, at a second Ctrl-C they
                are killed.
        """
        deadline = None
        while self._running:
            self._collect()
            if asked:
                self._send(signal.SIGTERM)
            if deadline is None and any(rank.code for rank in self.ended):
                self._send(signal.SIGTERM)
                deadline = time.monotonic() + self.patience
            late = deadline is not None and time.monotonic() > deadline
            if late or list(asked).count(signal.SIGINT) > 1:
                self._send(signal.SIGKILL)
            if self._running:
                time.sleep(_POLL)
        return self.ended

    def _collect(self) -> None:
        """Note the ranks that have ended since the last look, those that were killed first."""
        ended = []
        for rank, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[rank]
                ended.append(Ended(rank, process.pid, code, ours=-code in self._sent))
                if code:
                    self._signal(process, signal.SIGKILL)  # its loader workers would hold the run's lock for seconds
                if process.stdin:
                    process.stdin.close()
        self.ended += sorted(ended, key=lambda rank: rank.code)

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the ranks that run, once."""
        if number in self._sent:
            return
        self._sent.add(number)
        for process in self._running.values():
            self._signal(process, number)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)  # with its loader workers
            else:
                process.send_signal(number)


def verdict(ended: Sequence[Ended]) -> BenchError | None:
    """Return the fault of a run whose ranks have ended, or None where all ended well.

    A rank that failed with a message has given it; what is returned then repeats its exit code only, with no words.

    Args:
        ended: all ranks in the order in which they ended.
    """
    failed = [rank for rank in ended if rank.failed]
    killed = next((rank for rank in failed if rank.code < 0), None)
    if killed is not None:
        others = len(ended) - 1
        rest = f" The other {'process' if others == 1 else f'{others} processes'} ended with it." if others else ""
        memory = " Did memory run out?" if killed.code == -signal.SIGKILL else ""
        name = signal.Signals(-killed.code).name
        return BenchError(
            f"Rank {killed.rank} (process {killed.pid}) was killed by {name}.{memory}{rest}",
            remedy="repeat the same command to continue from the last checkpoint",
        )
    if failed:
        fault = BenchError("")
        fault.exit_code = failed[0].code
        return fault
    if any(rank.code in STOPPED for rank in ended):
        fault = Interrupted("")
        fault.exit_code = max(rank.code for rank in ended if rank.code in STOPPED)
        return fault
    if any(rank.code for rank in ended):
        return Interrupted(
            "The run was stopped before it had begun to train.", remedy="repeat the same command to continue"
        )
    return None


def process_count(gpus: str) -> int:
    """Return how many processes ``--gpus`` asks for: a number, or "auto" for every GPU there is, at least one.

    Raises:
        UsageFault: neither "auto" nor an integer >= 1.
    """
    if gpus == "auto":
        import torch

        return max(torch.cuda.device_count(), 1)
    if not gpus.isdigit() or int(gpus) < 1:
        message = f"--gpus must be 'auto' or an integer >= 1. Got {gpus!r} instead."
        raise UsageFault(message, remedy="--gpus auto takes every GPU of this machine")
    return int(gpus)


def without_own_options(words: Sequence[str]) -> list[str]:
    """Return a command line without the options that say where and by whom its processes are started."""
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


def launch(
    processes: int,
    words: Sequence[str],
    folder: Path | None = None,
    *,
    output: IO[bytes] | None = None,
    result: IO[str] | None = None,
) -> None:
    """Run ``cissod-bench`` with these words in several processes on this machine and wait for them.

    Args:
        processes: how many.
        words: the command line behind the program's name.
        folder: of the run, if it is one; its record is closed where its writer could not do it.
        output: takes what the processes say; None shows it.
        result: takes rank 0's standard output, which with --json holds the result alone; None leaves it where it is.

    Raises:
        BenchError: a rank was killed; names it.
        KeyboardInterrupt: Ctrl-C; the ranks have written a checkpoint.
        SystemExit: the ranks have failed or were stopped, and have said so.
    """
    # Threads are shared among the ranks.
    threads = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    ranks = Ranks(
        run_command(without_own_options(words)), processes, {"OMP_NUM_THREADS": threads}, output=output, result=result
    )
    with stop_requests() as asked:
        ranks.start()
        fault = verdict(ranks.wait(asked))
    if fault is None:
        return
    if folder is not None:
        close_record(folder)
    if signal.SIGINT in asked:
        raise KeyboardInterrupt
    if not fault.message:
        raise SystemExit(fault.exit_code)
    raise fault


def close_record(folder: Path) -> None:
    """Let the record of a run that nobody works on any more say "interrupted" where it says "running".

    What its writers had begun when they were killed is removed.
    """
    lock = folder / runs.RUN_LOCK
    if not lock.exists():
        return
    with suppress(BenchError, Timeout, OSError), FileLock(lock, timeout=_UNLOCKING):
        remove_leftovers(folder)
        record = runs.read_record(folder)
        if record.status == "running":
            record.status = "interrupted"
            runs.write_record(folder, record)
