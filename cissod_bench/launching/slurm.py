"""Jobs of a Slurm cluster: what they ask for, how submitit hands them over, and which of them are alive.

Slurm does the distributing, submitit writes its scripts; what a job does is in `job.py`.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench.errors import EnvironmentFault, UsageFault

FOLDER = "slurm"
"""Below ``--work-dir``: scripts, logs and `JOBS`."""
JOBS = "jobs.jsonl"
"""A line per submitted job: its id, the run's folder, its log."""
_SIGNAL_DELAY = 120  # seconds before the end of its time at which a job is asked to stop
_OTHERS = 60  # seconds that the other ranks have to end after the first, which may have died
_TAKEN = {
    "nodes": "--nodes", "ntasks": "--gpus", "ntasks_per_node": "--gpus", "array": "--at-once", "output": "",
    "error": "", "open_mode": "", "signal": "--slurm signal_delay_s=SECONDS",
}  # fmt: skip
_SUBMITTING = "see `sbatch --help` for options, `sinfo` for partitions, and `sacctmgr show assoc` for accounts"


@dataclass(frozen=True)
class Wanted:
    """What a job asks the cluster for.

    Attributes:
        nodes: machines.
        gpus: processes on each, and GPUs where ``--slurm gpus_per_node`` says nothing else.
        partition: of the cluster; "" takes its default.
        time: the limit as sbatch reads it (``30``, ``8:00:00``, ``2-0``); "" takes the partition's.
        more: other options of sbatch, ``KEY=VALUE``.
    """

    nodes: int = 1
    gpus: int = 1
    partition: str = ""
    time: str = ""
    more: tuple[str, ...] = ()

    @property
    def processes(self) -> int:
        """How many ranks the run has."""
        return self.nodes * self.gpus

    def parameters(self, name: str, at_once: int | None = None) -> dict[str, Any]:
        """Return what submitit's executor takes.

        Args:
            name: of the job, as ``squeue`` lists it.
            at_once: of an array, how many of its jobs may run at a time.

        Raises:
            UsageFault: an option is no ``KEY=VALUE``, or another option of the command sets it.
        """
        options: dict[str, Any] = {"requeue": True, "gpus_per_node": self.gpus}
        options |= {key: value for key, value in (("partition", self.partition), ("time", self.time)) if value}
        options |= dict(_key_and_value(text) for text in self.more)
        if not options["gpus_per_node"]:
            del options["gpus_per_node"]  # a cluster that knows no GPUs refuses even none
        found: dict[str, Any] = {"nodes": self.nodes, "ntasks_per_node": self.gpus, "job_name": name}
        found |= {"stderr_to_stdout": True, "signal_delay_s": options.pop("signal_delay_s", _SIGNAL_DELAY)}
        found["srun_args"] = [f"--wait={_OTHERS}"]
        if "cpus_per_task" in options:  # srun does not take it over from sbatch
            found["srun_args"] += [f"--cpus-per-task={options['cpus_per_task']}"]
        if at_once is not None:
            found["array_parallelism"] = at_once
        return {**found, "additional_parameters": options}


def _key_and_value(text: str) -> tuple[str, Any]:
    """Return an option as submitit takes it: a number, True for a bare flag, or a text."""
    key, equals, value = text.partition("=")
    key = key.strip().lstrip("-").replace("-", "_")
    if not key or not equals or not value:
        raise UsageFault(
            f"--slurm must be KEY=VALUE. Got {text!r}.", remedy="write --slurm account=NAME, or --slurm exclusive=true"
        )
    if key in _TAKEN:
        instead = _TAKEN[key]
        raise UsageFault(
            f"--slurm {key} is set by this program.", remedy=f"use {instead}" if instead else "leave it out"
        )
    return key, True if value == "true" else int(value) if value.isdecimal() and value.isascii() else value


def submit(
    work: Sequence[Callable[[], None]], wanted: Wanted, folder: Path, *, name: str, at_once: int | None = None
) -> list[str]:
    """Hand work over to Slurm, as one job or as one array of jobs, and return the ids of its jobs.

    Args:
        work: what each job does on each of its ranks; it is pickled.
        wanted: what each job asks for.
        folder: takes scripts and logs; every machine of the cluster must see it.
        name: of the job.
        at_once: how many jobs may run at a time; None leaves it to the cluster.

    Raises:
        EnvironmentFault: submitit or Slurm is not here, or Slurm refuses the job.
    """
    submitit = _submitit()
    parameters = wanted.parameters(name, at_once)
    folder.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()  # submitit prints Slurm's words, which the fault repeats
    with outside_of_jobs(), redirect_stderr(said):
        try:
            executor = submitit.SlurmExecutor(folder=folder)
            executor.update_parameters(**parameters)
            return [str(job.job_id) for job in executor.submit_array(list(work))]
        except submitit.core.utils.FailedJobError as error:
            words = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).strip().splitlines()]
            raise EnvironmentFault(
                f"Slurm refuses the job: {'; '.join(words) or 'it does not say why'}", remedy=_SUBMITTING
            ) from None


def _submitit() -> Any:
    """Return the package, which is an extra."""
    try:
        submitit = importlib.import_module("submitit")
    except ImportError:
        raise EnvironmentFault(
            "--launcher slurm needs the package submitit.", remedy="pip install 'submitit>=1.5'"
        ) from None
    for program in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
        if shutil.which(program) is None:
            raise EnvironmentFault(
                f"This machine has no {program}: it is not one of a Slurm cluster.",
                remedy="repeat the command on a machine from which jobs are submitted, or without --launcher slurm",
            )
    return submitit


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Take out of the environment what a job or a launcher has put there: a new job would inherit it.

    What a user or an administrator may have set stays: SLURM_CONF, and outside of jobs everything of Slurm's.
    """
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    if "SLURM_JOB_ID" in os.environ:
        names |= {name for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_"))}
    taken = {name: os.environ.pop(name) for name in names - {"SLURM_CONF"} if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


@dataclass(frozen=True)
class Job:
    """A job that was submitted.

    Attributes:
        id: as Slurm's commands take it, ``17`` or ``17_2``.
        log: what its first process says.
        state: "queued", "running", another of Slurm's words, or "" where Slurm lists it no more.
        reason: why it is queued, in Slurm's words.
    """

    id: str
    log: str
    state: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"job {self.id}" + (f" ({self.reason})" if self.reason else "")


def log_of(work_dir: Path, job: str) -> Path:
    """Return the log of a job's first process."""
    return work_dir.resolve() / FOLDER / f"{job}_0_log.out"


def note(work_dir: Path, folders: Sequence[Path], jobs: Sequence[str]) -> None:
    """Note which job works on which run's folder."""
    lines = [
        json.dumps({"job": job, "run": str(folder.resolve()), "log": str(log_of(work_dir, job))})
        for folder, job in zip(folders, jobs, strict=True)
    ]
    with (work_dir / FOLDER / JOBS).open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


def alive(work_dir: Path) -> dict[Path, Job]:
    """Return run folder -> job of the jobs submitted for a work folder that Slurm still lists; empty without Slurm."""
    noted: dict[Path, Job] = {}
    with suppress(OSError):
        for line in (work_dir / FOLDER / JOBS).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                one = json.loads(line)
                noted[Path(one["run"])] = Job(str(one["job"]), str(one["log"]))
    states = _states() if noted else {}
    return {folder: Job(job.id, job.log, *states[job.id]) for folder, job in noted.items() if job.id in states}


def _states() -> Mapping[str, tuple[str, str]]:
    """Return the jobs of this user: id -> state and, where it is queued, the reason."""
    words = ["squeue", "--noheader", "--array", "--format=%i|%T|%r", "--me"]
    try:
        listed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [line.split("|", 2) for line in listed.splitlines() if line.count("|") >= 2]
    return {job: ("queued", reason) if state == "PENDING" else (state.lower(), "") for job, state, reason in rows}


def cancel(jobs: Sequence[Job]) -> None:
    """Cancel jobs; those that run write a checkpoint first, if the cluster leaves them the time.

    Raises:
        EnvironmentFault: Slurm does not.
    """
    _submitit()
    done = subprocess.run(["scancel", *(job.id for job in jobs)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFault(f"Slurm does not cancel: {done.stderr.strip()}", remedy="see `squeue`")
