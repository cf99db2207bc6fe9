"""Runs and sweeps as jobs of a real Slurm, started for these tests: run, queued again, cancelled and refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from commands import Called
from fake_runs import fake_cells, fake_sweep, starts
from short_runs import TINY_FOLDER, run_words
from slurm_cluster import missing, shown, slurm_cluster, wait_until

from cissod_bench.errors import EnvironmentFault, UsageFault
from cissod_bench.launching import slurm
from cissod_bench.launching.slurm import Job, Wanted
from cissod_bench.records import run_folder as runs
from cissod_bench.sweeping.cells import Cell, Folders
from cissod_bench.sweeping.cluster import Array, with_jobs

CPUS = ("gpus_per_node=0",)  # the cluster of these tests has none
SHORT = ("--set", "iterations=2", "--set", "generations=1", "--set", "log_every=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    if reason := missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(slurm_cluster())
        except (AssertionError, OSError) as fault:  # a container may forbid its daemons
            pytest.skip(f"Slurm is installed and does not start here: {fault}")
        yield folder


@pytest.fixture(scope="module")
def timed(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cell, Job]:
    """A job of one minute, begun: Slurm looks at times every 30 s and warns when less than 58 s are left."""
    work, (cell,) = tmp_path_factory.mktemp("timed"), fake_cells(7)
    return work, cell, submitted(work, cell, time="1", more=("signal_delay_s=58",))


def array_of(work: Path, *, time: str = "", more: tuple[str, ...] = (), seconds: float = 0.0) -> Array:
    command = fake_sweep(work, [], seconds=seconds).command
    return Array(Folders(work), Wanted(time=time, more=(*CPUS, *more)), 2, command=command)


def looked(work: Path, cells: list[Cell]) -> list[str]:
    folders = Folders(work)
    return [one.state for one in with_jobs(folders, {cell: folders.look(cell) for cell in cells}).values()]


def submitted(work: Path, cell: Cell, **wanted: Any) -> Job:
    """A cell's job whose run has begun."""
    (job,) = array_of(work, **wanted).submit([cell]).values()
    wait_until((work / "runs" / cell.place / runs.RECORD).exists)
    return job


def until_done(work: Path, cell: Cell, job: Job) -> str:
    """The job's log, once its run is done."""
    wait_until(lambda: Folders(work).recorded(cell).state == "done", 120)
    wait_until(lambda: not shown("squeue", "--noheader", f"--jobs={job.id}"))
    return Path(job.log).read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("timed")  # which works meanwhile
def test_a_cancelled_job_writes_a_checkpoint_and_is_not_queued_again(
    cluster: Path, tmp_path: Path, call: Callable[..., Called]
) -> None:
    (cell,) = fake_cells(3)
    job = submitted(tmp_path, cell)
    words = ["sweep", "--method", "soft-teacher", "--task", "toy", "--preset", "smoke", "--seed", 3]
    done = call(*words, "--work-dir", tmp_path, "--cancel", "--json")
    assert (done.code, json.loads(done.out)) == (0, [job.id])
    wait_until(lambda: not slurm.alive(tmp_path))
    assert runs.read_record(tmp_path / "runs" / cell.place).status == "interrupted"
    assert "JobState=CANCELLED" in shown("scontrol", "show", "job", job.id)
    assert "The job is not queued again: Slurm calls it C" in Path(job.log).read_text()  # CANCELLED or COMPLETING
    assert len(starts(tmp_path, cell)) == 1


@pytest.mark.slow
def test_a_job_that_others_need_the_machine_of_is_queued_again(cluster: Path, tmp_path: Path) -> None:
    (cell,) = fake_cells(7)
    job = submitted(tmp_path, cell)
    shown("scancel", "--signal=TERM", job.id)  # as a pre-emption begins
    assert "The job is queued again.\n" in until_done(tmp_path, cell, job)
    assert len(starts(tmp_path, cell)) == 2


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_the_cluster_refuses_is_one_message(
    cluster: Path, tmp_path: Path, tiny_coco: Path, call: Callable[..., Called], command: str
) -> None:
    task = ("--task", tiny_coco / "tiny.toml", "--method", "supervised", "--preset", "smoke")
    wanted = ("--launcher", "slurm", "--partition", "nowhere", "--slurm", CPUS[0])
    done = call(command, *task, "--data-root", tiny_coco, "--work-dir", tmp_path, *wanted)
    assert done.code == 4
    assert done.err.startswith("Error: Slurm refuses the job: invalid partition specified: nowhere"), done.err
    assert "-> see `sbatch --help`" in done.err
    assert slurm.alive(tmp_path) == {}


@pytest.mark.slow
def test_a_job_whose_time_is_over_is_queued_again_and_continued(timed: tuple[Path, Cell, Job]) -> None:
    log = until_done(*timed)
    assert len(starts(*timed[:2])) == 2
    assert "The job is asked to stop.\nThe job is queued again.\n" in log


@pytest.mark.slow
def test_a_job_whose_machine_goes_down_is_continued(cluster: Path, tmp_path: Path) -> None:
    (cell,) = fake_cells(7)
    job = submitted(tmp_path, cell)
    shown("scontrol", "update", "nodename=here", "state=down", "reason=test")
    try:
        wait_until(lambda: looked(tmp_path, [cell]) == ["queued"])
    finally:
        shown("scontrol", "update", "nodename=here", "state=resume")
    until_done(tmp_path, cell, job)
    assert len(starts(tmp_path, cell)) == 2


@pytest.mark.slow
def test_a_run_as_a_job_of_two_processes(
    cluster: Path, tmp_path: Path, tiny_coco: Path, call: Callable[..., Called]
) -> None:
    words = run_words(tmp_path, tiny_coco, *SHORT, "--launcher", "slurm", "--gpus", "2", "--slurm", CPUS[0])
    done = call(*words, "--json")
    assert done.code == 0, done.err
    (said,) = json.loads(done.out)
    assert Path(said["dir"]) == tmp_path / TINY_FOLDER
    again = call(*words)
    assert (again.code, f"Job {said['job']} is" in again.err) == (2, True), again.err
    wait_until(lambda: not slurm.alive(tmp_path), 240)
    record = runs.read_record(tmp_path / TINY_FOLDER)
    log = Path(said["log"]).read_text()
    assert (record.status, record.hardware["world_size"]) == ("done", 2), log
    assert json.loads(log[log.index("[\n") : log.index("\n]") + 2])[0]["dir"] == said["dir"], "the first rank's result"
    assert "--launcher" not in record.command


@pytest.mark.slow
def test_a_sweep_of_four_cells_two_at_a_time(cluster: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    cells = fake_cells(0, 4, 8, 1)
    array = array_of(tmp_path, seconds=1.5)
    jobs = array.submit(cells)
    assert [job.id for job in jobs.values()] == [f"{jobs[cells[0]].id[:-2]}_{number}" for number in range(4)]
    assert "ArrayTaskThrottle=2" in shown("scontrol", "show", "job", jobs[cells[3]].id)
    assert array.submit(cells) == {}, "what is queued is not submitted again"

    words = ["sweep", "--method", "soft-teacher", "--task", "toy", "--preset", "smoke", "--work-dir", tmp_path]
    words += [f"--seed={cell.seed}" for cell in cells]
    wait_until(lambda: looked(tmp_path, cells).count("running") == 2)
    seen = json.loads(call(*words, "--status", "--json").out)
    assert [one["state"] for one in seen] == ["running", "running", "queued", "queued"]
    assert [one["job"] for one in seen] == [job.id for job in jobs.values()]
    text = call(*words, "--status").out
    assert f"job {jobs[cells[3]].id} (JobArrayTaskLimit), queued; its log: {jobs[cells[3]].log}" in text

    wait_until(lambda: not slurm.alive(tmp_path))
    assert looked(tmp_path, cells) == ["done", "done", "done", "failed"]
    assert [len(starts(tmp_path, cell)) for cell in cells] == [1] * 4
    assert Folders(tmp_path).look(cells[3]).note == "exit code 1: the box is too large\n  -> draw the split again"
    assert list(array.submit(cells)) == [cells[3]], "only what is not done is submitted again"
    wait_until(lambda: not slurm.alive(tmp_path))


def test_without_slurm_one_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(EnvironmentFault, match="no sbatch: it is not one of a Slurm cluster"):
        array_of(tmp_path).submit(fake_cells(0))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("account", "must be KEY=VALUE"),
        ("=3", "must be KEY=VALUE"),
        ("ntasks-per-node=3", "use --gpus"),
        ("output=a", "leave it out"),
    ],
)
def test_options_of_slurm_that_make_no_sense(option: str, words: str) -> None:
    with pytest.raises(UsageFault) as fault:
        Wanted(more=(option,)).parameters("a")
    assert words in str(fault.value)


def test_options_of_slurm_are_handed_on() -> None:
    wanted = Wanted(2, 8, "long", "2-0", ("cpus-per-task=4", "exclusive=true", "account=me", "signal_delay_s=60"))
    found = wanted.parameters("a", 3)
    options = found.pop("additional_parameters")
    assert options == {
        "requeue": True, "gpus_per_node": 8, "partition": "long", "time": "2-0", "cpus_per_task": 4, "exclusive": True,
        "account": "me",
    }  # fmt: skip
    assert (wanted.processes, found["nodes"], found["ntasks_per_node"], found["array_parallelism"]) == (16, 2, 8, 3)
    assert (found["signal_delay_s"], found["srun_args"]) == (60, ["--wait=60", "--cpus-per-task=4"])
    assert "gpus_per_node" not in Wanted(more=CPUS).parameters("a")["additional_parameters"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nodes", "2"), "--nodes is an option of a Slurm job"),
        (("--partition", "a"), "--partition is an option of a Slurm job"),
        (("--launcher", "slurm", "--gpus", "auto"), "--gpus auto counts the GPUs of this machine"),
    ],
)
def test_options_of_slurm_need_slurm(
    tmp_path: Path, call: Callable[..., Called], words: tuple[str, ...], message: str
) -> None:
    for command in ("run", "sweep"):
        done = call(command, "--task", "toy", "--method", "supervised", "--work-dir", tmp_path, *words)
        assert (done.code, message in done.err) == (2, True), done.err


def test_a_job_that_gets_no_further_is_not_queued_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cissod_bench.launching.job import Work

    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    work = Work([], tmp_path)
    assert [work._tries() for _ in range(3)] == [1, 2, 3]
    (tmp_path / runs.CHECKPOINT).touch()
    assert [work._tries() for _ in range(2)] == [1, 2]
