"""What a Slurm job does on each of its ranks: the run, asked to stop before the job's time ends, and queued again.

submitit's own handlers of signals act at once, within the signal. Here a signal is noted, the run writes its checkpoint
and ends, and then the job is put back into the queue, under its number, until the run is done.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cissod_bench.launching import child
from cissod_bench.launching.ranks import STOPPED
from cissod_bench.records.run_folder import CHECKPOINT

TRIES = 4
"""How often a job is queued again without a new checkpoint, e.g. because its time is too short for one."""
_ENDED = (*STOPPED, -signal.SIGTERM)  # codes of a run that was asked to stop, the last before it could listen
_ONLY_ONCE = ("--restart", "--yes")  # words that would delete what an earlier start of the job has done


@dataclass
class Work:
    """One job's run.

    Attributes:
        command: the words of its command line.
        folder: of the run.
        environment: added to the job's.
    """

    command: list[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self) -> None:
        """Do the run, or what is left of it.

        Raises:
            SystemExit: the run has not come to its end.
        """
        warned: list[int] = []
        ended: list[int] = []
        signal.signal(signal.SIGUSR2, lambda number, frame: warned.append(number))
        signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))  # the run has it from Slurm, too
        code = self._run(warned)
        if os.environ.get("SLURM_PROCID", "0") != "0":  # the first rank decides what becomes of the job
            sys.exit(0 if code in _ENDED else _as_shells_say(code))
        if code in _ENDED and (warned or ended):
            self._queue_again()
        else:
            self.conclude(code)
        if code:
            sys.exit(_as_shells_say(code))

    def conclude(self, code: int) -> None:
        """Take note of how the run has ended, on the first rank, where nobody has asked it to; here nothing."""

    def _run(self, warned: list[int]) -> int:
        """Run the command to its end, which comes soon after a warning, and return its exit code."""
        again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        words = [word for word in self.command if not (again and word in _ONLY_ONCE)]
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            env={**os.environ, **self.environment},
            # Slurm sends the signal to every process of the job, also to those that would die of it.
            preexec_fn=_ignore_the_warning,
        )
        return child.wait(process, warned, stopping=lambda: print("The job is asked to stop.", flush=True))

    def _queue_again(self) -> None:
        """Put this job back into the queue, unless it was cancelled, Slurm has done so, or it gets no further."""
        job = os.environ["SLURM_JOB_ID"]
        state = job_state(job)
        if state != "RUNNING":
            print(f"The job is not queued again: Slurm calls it {state}.", flush=True)
        elif self._tries() > TRIES:
            print(f"Error: the job was stopped {TRIES + 1} times without a new checkpoint. Is its time too short?")
            print("  -> repeat the command with a longer --time", flush=True)
        else:
            print("The job is queued again.", flush=True)
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"Error: Slurm does not queue the job again: {done.stderr.strip()}")
                print("  -> repeat the command that has submitted it", flush=True)

    def _tries(self) -> int:
        """Count this start among those since the last new checkpoint."""
        try:
            reached = str((self.folder / CHECKPOINT).stat().st_mtime_ns)
        except OSError:
            reached = "none"
        stops = Path(os.environ["SUBMITIT_FOLDER"]) / f"{os.environ['SLURM_JOB_ID']}_stops"
        with stops.open("a+", encoding="utf-8") as file:
            file.write(f"{reached}\n")
            file.seek(0)
            before = file.read().splitlines()
        return next((n for n, line in enumerate(reversed(before)) if line != reached), len(before))


def _as_shells_say(code: int) -> int:
    """Return an exit code, or 128 and the number of the signal that ended a process."""
    return code if code >= 0 else 128 - code


def _ignore_the_warning(number: int = signal.SIGUSR2, frame: FrameType | None = None) -> None:
    signal.signal(number, signal.SIG_IGN)


def job_state(job: str) -> str:
    """Return Slurm's word for the state of a job, or "unknown"."""
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=False)
    state = re.search(r"\bJobState=(\w+)", shown.stdout)
    return state[1] if state else "unknown"
