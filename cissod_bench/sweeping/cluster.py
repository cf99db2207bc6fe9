"""A sweep as one array of Slurm jobs: a job a cell, each of which is queued again until its run is done."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cissod_bench.launching import child, slurm
from cissod_bench.launching.job import Work
from cissod_bench.launching.slurm import Job, Wanted
from cissod_bench.sweeping.cells import Cell, Folders, Seen
from cissod_bench.sweeping.sweep import Sweep

JOB_NAME = "cissod-bench sweep"


@dataclass(kw_only=True)
class CellWork(Work):
    """A cell's run as a job; what a sweep notes of a run at its end is noted by the job.

    Attributes:
        cell, folders: which cell of which sweep.
    """

    cell: Cell
    folders: Folders

    def conclude(self, code: int) -> None:
        """Note a failure, and keep the record of a run that is done."""
        log = importlib.import_module("submitit").JobEnvironment().paths.stdout
        Sweep([self.cell], self.folders, say=_say).conclude(self.cell, code, log)


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass
class Array:
    """Cells to be run as one array of jobs.

    Attributes:
        folders: where runs and kept records lie.
        wanted: what each job asks for.
        at_once: how many jobs may run at a time.
        environment: of the runs, added to the jobs'.
        command: returns the command line of a cell.
    """

    folders: Folders
    wanted: Wanted
    at_once: int
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Callable[[Cell], list[str]] = lambda cell: child.run_command(cell.words())

    def submit(self, cells: Sequence[Cell]) -> dict[Cell, Job]:
        """Submit what is not done, queued or at work; return the cells' new jobs.

        Args:
            cells: in the order in which they are run.

        Raises:
            EnvironmentFault: there is no Slurm, or it refuses the jobs.
            UsageFault: what is wanted makes no sense.
        """
        seen = with_jobs(self.folders, {cell: self.folders.look(cell) for cell in cells})
        left = [cell for cell, one in seen.items() if one.state not in ("done", "running", "queued") and not one.final]
        if not left:
            return {}
        work_dir, runs = self.folders.work_dir, [self.folders.run(cell) for cell in left]
        work = [self._work(cell) for cell in left]
        jobs = slurm.submit(work, self.wanted, work_dir / slurm.FOLDER, name=JOB_NAME, at_once=self.at_once)
        slurm.note(work_dir, runs, jobs)
        return {
            cell: Job(job, str(slurm.log_of(work_dir, job)), "queued") for cell, job in zip(left, jobs, strict=True)
        }

    def _work(self, cell: Cell) -> CellWork:
        results = self.folders.results
        folders = Folders(self.folders.work_dir.resolve(), None if results is None else results.resolve())
        return CellWork(self.command(cell), folders.run(cell), self.environment, cell=cell, folders=folders)


def with_jobs(folders: Folders, seen: Mapping[Cell, Seen]) -> dict[Cell, Seen]:
    """Return what is known of cells, with the jobs that Slurm has queued or runs for them."""
    jobs = slurm.alive(folders.work_dir)
    return {cell: _with_job(one, jobs.get(folders.run(cell).resolve())) for cell, one in seen.items()}


def _with_job(seen: Seen, job: Job | None) -> Seen:
    if job is None or seen.state == "done":
        return seen
    state: Literal["queued", "running"] = "queued" if job.state == "queued" else "running"
    how_far = seen.note if seen.state in ("running", "interrupted") else ""
    return replace(seen, state=state, job=job, note=how_far, final=False)
