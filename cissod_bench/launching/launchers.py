"""Which rank of how many this process is, by the environment of torch's launcher, or by that of Slurm or Open MPI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cissod_bench.errors import UsageFault

_FIRST_PORT, _PORTS = 15_000, 15_000  # below those that systems hand out by themselves
_TORCH_PORT = 29_500


@dataclass(frozen=True)
class Names:
    """The variables of a launcher, each thing under the names that may say it, the best first.

    Attributes:
        launcher: its name.
        rank, world, local: this process's number, that of all processes, this process's number on its machine.
        nodes, node_count: the list of machines, and how many there are.
        local_world: the number of processes on this machine.
        job: numbers that tell one start from another.
    """

    launcher: str
    rank: tuple[str, ...]
    world: tuple[str, ...]
    local: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    node_count: tuple[str, ...] = ()
    local_world: tuple[str, ...] = ()
    job: tuple[str, ...] = ()


SLURM = Names(
    "Slurm",
    rank=("SLURM_PROCID",),
    world=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
    local=("SLURM_LOCALID",),
    nodes=("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"),
    node_count=("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    job=("SLURM_JOB_ID", "SLURM_STEP_ID"),
)
OPEN_MPI = Names(
    "Open MPI",
    rank=("OMPI_COMM_WORLD_RANK",),
    world=("OMPI_COMM_WORLD_SIZE",),
    local=("OMPI_COMM_WORLD_LOCAL_RANK",),
    local_world=("OMPI_COMM_WORLD_LOCAL_SIZE",),
)


def rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where a launcher has not set them itself.

    Empty for a process that is alone, and where torch's launcher (or `--launcher pytorch`) has set them all.

    Args:
        environment: variables of this process.

    Raises:
        UsageFault: a variable is no number or out of its range, one lacks, or nothing says where rank 0 listens.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        _check(environment)
        return {}
    for names in (SLURM, OPEN_MPI):
        rank, world = _first(environment, names.rank), _first(environment, names.world)
        if rank is None or world is None or _is_batch_script(environment, names):
            continue
        size = _number(environment, world, at_least=1)
        if size == 1:
            continue
        return {
            "RANK": str(_number(environment, rank, below=size)),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(_local(environment, names)),
            "MASTER_ADDR": environment.get("MASTER_ADDR") or _address(environment, names, size),
            "MASTER_PORT": environment.get("MASTER_PORT") or str(_port(environment, names)),
        }
    return {}


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables for a process that shall be no rank of whatever this one is a rank of.

    Its GPU stays this process's: the one of its number on the machine.
    """
    local = next((environment[n] for n in ("LOCAL_RANK", *SLURM.local, *OPEN_MPI.local) if environment.get(n)), "0")
    return {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": local}


def _is_batch_script(environment: Mapping[str, str], names: Names) -> bool:
    """Tell whether this is a Slurm job's script, which is one process and carries the number of those it may start."""
    step = _first(environment, ("SLURM_STEP_ID", "SLURM_STEPID"))
    return names is SLURM and step is None and "SLURM_GTIDS" in environment


def _check(environment: Mapping[str, str]) -> None:
    """Check what torch's launcher sets, which a script of somebody's own may have set by halves."""
    alone = environment.get("WORLD_SIZE", "1") == "1"
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not environment.get(name)]
    if missing and not alone:
        there = [name for name in needed if name not in missing]
        raise UsageFault(
            f"The environment says {' and '.join(there)}, but not {', '.join(missing)}.",
            remedy="start the processes with torchrun, srun or, on one machine, --launcher pytorch; or set all "
            "of RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT",
        )
    size = _number(environment, "WORLD_SIZE", at_least=1) if "WORLD_SIZE" in environment else 1
    for name, below in (("RANK", size), ("LOCAL_RANK", None), ("MASTER_PORT", 2**16)):
        if name in environment:
            _number(environment, name, below=below)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first of these variables that is set."""
    return next((name for name in names if environment.get(name)), None)


def _number(environment: Mapping[str, str], name: str, *, at_least: int = 0, below: int | None = None) -> int:
    """Return a variable as a number."""
    text = environment[name].strip()
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if value < at_least or (below is not None and value >= below):
        rule = f"an integer >= {at_least}" + ("" if below is None else f" and < {below}")
        raise UsageFault(
            f"The variable {name} must be {rule}. Got {environment[name]!r} instead.",
            remedy=f"unset {name} for a run in one process, or start the processes with torchrun or srun",
        )
    return value


def _local(environment: Mapping[str, str], names: Names) -> int:
    """Return this process's number on its machine; 0 where the launcher does not say it."""
    name = "LOCAL_RANK" if environment.get("LOCAL_RANK") else _first(environment, names.local)
    return 0 if name is None else _number(environment, name)


def _address(environment: Mapping[str, str], names: Names, size: int) -> str:
    """Return the machine of rank 0, which is the first of the list: launchers count from there."""
    nodes, count = _first(environment, names.nodes), _first(environment, names.node_count)
    local_world = _first(environment, names.local_world)
    machines = None if count is None else _number(environment, count, at_least=1)
    if machines == 1 or (local_world is not None and _number(environment, local_world) == size):
        return "127.0.0.1"
    if nodes is not None:
        return first_machine(environment[nodes])
    if machines is None and local_world is None:  # no list and no number of machines: there is this one
        return "127.0.0.1"
    raise UsageFault(
        f"{names.launcher}'s variables do not say on which machine rank 0 runs.",
        remedy="export MASTER_ADDR=NAME_OF_RANK_0S_MACHINE before the processes are started",
    )


def first_machine(machines: str) -> str:
    """Return the first name of a list as Slurm writes it: ``gpu[003-007,9],login1`` gives ``gpu003``.

    Raises:
        UsageFault: it holds none.
    """
    name = re.match(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)*", machines.strip())
    first = re.sub(r"\[(\w+)[^\]]*\]", r"\1", name[0]) if name else ""
    if not first or "[" in first:
        raise UsageFault(
            f"The list of machines {machines!r} names none.",
            remedy="export MASTER_ADDR=NAME_OF_RANK_0S_MACHINE before the processes are started",
        )
    return first


def _port(environment: Mapping[str, str], names: Names) -> int:
    """Return a port that all processes of a start agree on and that starts beside it do not take."""
    numbers = [_number(environment, name) for name in names.job if environment.get(name)]
    if not numbers:
        return _TORCH_PORT
    return _FIRST_PORT + sum(number * factor for number, factor in zip(numbers, (31, 1), strict=False)) % _PORTS
