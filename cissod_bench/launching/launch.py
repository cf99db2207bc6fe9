"""Start a run in several processes: the same command line once a rank."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from cissod_bench.errors import BenchError, UsageFault

_OWN = ("--gpus", "--launcher")
_UNLOCKING = 2.0  # seconds that a dead rank's workers may hold the run's lock


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
    from cissod_bench.launching.child import run_command
    from cissod_bench.launching.ranks import Ranks, verdict
    from cissod_bench.signals import stop_requests

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
    from filelock import FileLock, Timeout

    from cissod_bench.files.whole_files import remove_leftovers
    from cissod_bench.records import run_folder as runs
    from cissod_bench.records.run_folder import RUN_LOCK

    if not (folder / RUN_LOCK).exists():
        return
    with suppress(BenchError, Timeout, OSError), FileLock(folder / RUN_LOCK, timeout=_UNLOCKING):
        remove_leftovers(folder)
        record = runs.read_record(folder)
        if record.status == "running":
            record.status = "interrupted"
            runs.write_record(folder, record)
