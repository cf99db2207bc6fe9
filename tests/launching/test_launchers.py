"""Ranks by the variables of torch's launcher, of Slurm and of Open MPI; a process that is alone stays so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from commands import Called
from tiny import CHANGES

from cissod_bench import distributed
from cissod_bench.errors import EnvironmentFault, UsageFault
from cissod_bench.launching.launchers import alone, first_machine, rank_variables
from cissod_bench.launching.ranks import free_port
from cissod_bench.records import run_folder as runs

STEP = {
    "SLURM_PROCID": "9", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2",
    "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu[07,11-12]",
}  # fmt: skip


def test_under_srun_ranks_and_the_first_ones_machine_come_from_slurms_variables() -> None:
    found = rank_variables(STEP)
    port = int(found.pop("MASTER_PORT"))
    assert found == {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07"}
    assert 1024 < port < 32768
    assert rank_variables({**STEP, "SLURM_PROCID": "3"})["MASTER_PORT"] == str(port)
    for other in ({"SLURM_JOB_ID": "4712"}, {"SLURM_STEP_ID": "3"}):
        assert rank_variables({**STEP, **other})["MASTER_PORT"] != str(port)
    given = {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}
    assert given.items() <= rank_variables({**STEP, **given}).items()
    assert rank_variables({**STEP, "SLURM_NNODES": "1"})["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("environment", "rank", "world"),
    [
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "1", "2"),
        ({**STEP, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, "1", "4"),  # the step's, not the whole job's
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "1", "2"),
    ],
)
def test_other_starts_of_several_processes(environment: dict[str, str], rank: str, world: str) -> None:
    found = rank_variables(environment)
    assert (found["RANK"], found["WORLD_SIZE"]) == (rank, world)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "8"},  # a shell of salloc
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_GTIDS": "0", "SLURM_JOB_ID": "1"},  # the script of sbatch
        {**STEP, "RANK": "0", "WORLD_SIZE": "1"},
        {**STEP, "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},  # srun torchrun
        {**STEP, **alone(STEP)},  # a run of a sweep that is one of srun's processes
    ],
    ids=str,
)
def test_where_torchs_launcher_has_spoken_or_nobody_has_slurm_says_nothing(environment: dict[str, str]) -> None:
    assert rank_variables(environment) == {}


@pytest.mark.parametrize(
    ("machines", "name"),
    [
        ("a1", "a1"), ("a1,b2", "a1"), ("gpu[003-007,9],x", "gpu003"), ("r[1,2]n[04-06]", "r1n04"),
        ("node-[1-3].cluster", "node-1.cluster"),
    ],
)  # fmt: skip
def test_the_first_machine_of_slurms_list(machines: str, name: str) -> None:
    assert first_machine(machines) == name


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({**STEP, "SLURM_PROCID": "16"}, "SLURM_PROCID must be an integer >= 0 and < 16. Got '16'"),
        ({**STEP, "SLURM_NTASKS": "many"}, "SLURM_NTASKS must be an integer >= 1. Got 'many'"),
        ({**STEP, "SLURM_JOB_NODELIST": ""}, "Slurm's variables do not say on which machine rank 0 runs"),
        ({**STEP, "SLURM_JOB_NODELIST": "[3-4"}, "names none"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "Open MPI's"),
        ({"WORLD_SIZE": "2"}, "says WORLD_SIZE, but not RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "but not MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK must be"),
        ({"RANK": "one", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK must be"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "http"}, "MASTER_PORT must be"),
        ({"RANK": "3"}, "RANK must be an integer >= 0 and < 1"),
    ],
)
def test_variables_that_make_no_sense_are_one_message_with_a_remedy(environment: dict[str, str], words: str) -> None:
    with pytest.raises(UsageFault) as fault:
        rank_variables(environment)
    assert words in fault.value.message
    assert fault.value.remedy


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_of_srun_are_one_run(tmp_path: Path, tiny_coco: Path) -> None:
    """Each with a work folder of its own, as on two machines without a shared disk."""
    sets = [f"--set={change}" for change in (*CHANGES, "iterations=2", "generations=1")]
    words = ["run", "--task", str(tiny_coco / "tiny.toml"), "--method", "supervised", "--preset", "smoke"]
    words += ["--name", "tiny"]
    words = [sys.executable, "-m", "cissod_bench", *words, "--data-root", str(tiny_coco), *sets]
    slurm = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*words, "--work-dir", str(tmp_path / str(rank))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"},
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    folders = [tmp_path / str(rank) / "runs/tiny/split0/supervised/smoke-default+tiny/seed0" for rank in range(2)]
    assert runs.read_record(folders[0]).hardware["world_size"] == 2
    assert not (folders[1] / runs.RECORD).exists()
    assert told[0][0].count("Run folder:") == 1
    assert "processes   2, rank 0 at 127.0.0.1" in told[0][0]
    assert told[1][0] == ""
    assert all("Rank 1 sees another folder" in errors for _, errors in told)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_find_each_other_are_told_where_they_looked(
    monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    """Rank 0's port is taken; rank 1 finds nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listen: rank 1 is refused
        port = str(taken.getsockname()[1])
        names = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=1))
        with pytest.raises(EnvironmentFault) as fault:
            distributed.start(torch.device("cpu"))
    assert f"2 processes of this run have not found each other at 127.0.0.1:{port}" in fault.value.message
    assert "export MASTER_ADDR" in str(fault.value.remedy)


def test_a_run_says_which_variable_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[..., Called]
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "first")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    done = call("run", "--task", "toy", "--method", "soft-teacher", "--work-dir", str(tmp_path))
    assert done.code == 2
    assert "SLURM_PROCID must be" in done.err
