"""Processes: start a group, sum over ranks, share objects. A single process needs none of it."""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cissod_bench import messages
from cissod_bench.errors import BenchError, EnvironmentFault, PeerLost

T = TypeVar("T")
MEETING = timedelta(minutes=30)  # until all processes must be there
_WAITING = timedelta(hours=12)
_PIECE = 2**26  # bytes that are sent at once
_LOOKS = 0.5  # seconds between two looks whether somebody calls the roll
_HELD = 5.0  # seconds for which a process group outlives `stop`
_ROLL_CALL = 3.0  # seconds that ranks have to answer it
# What gloo and nccl say where another process is gone; torch's store has exceptions of its own.
_LOST = re.compile(r"connection (was )?(closed|reset)|broken pipe|remote process exited|socket closed", re.IGNORECASE)


def is_distributed() -> bool:
    """Return whether a process group of two or more ranks is running."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return this process's rank, 0 in a single process."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes, 1 in a single process."""
    return dist.get_world_size() if is_distributed() else 1


def local_rank() -> int:
    """Return this process's number on its machine, 0 in a single process."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def start(device: torch.device) -> None:
    """Join the process group that the launcher's environment names: nccl on GPUs, gloo on CPUs.

    mmengine's own launcher would call ``torch.cuda.set_device`` on a CPU machine, too (B17).

    Raises:
        EnvironmentFault: the processes have not found each other.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, number, world = _meet(place, os.environ["RANK"], os.environ["WORLD_SIZE"])
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"The {os.environ['WORLD_SIZE']} processes of this run have not found each other at {place}: "
            f"{str(error).strip().splitlines()[0]}.",
            remedy="see that all of them are started, and export MASTER_ADDR, the machine of rank 0 as the others "
            "reach it, and MASTER_PORT, a free port there",
        ) from error
    # The other ranks wait while the first one scores a whole validation set.
    store.set_timeout(_WAITING)
    group = next(_groups)
    shared = PrefixStore(f"group{group}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=shared, rank=number, world_size=world, timeout=_WAITING)
    _joined.append(Roll(PrefixStore(f"roll{group}", store), number, world))
    _joined[-1].begin()


@cache
def _meet(place: str, number: str, world: str) -> tuple[Store, int, int]:
    """Meet the other processes; return the store that all share, this one's rank and their number.

    One store serves a process for all its runs, each below a name of its own: what an earlier group has left there
    would send the next one to places where nobody listens.
    """
    store, rank, size = next(rendezvous("env://", timeout=MEETING))
    return store, rank, size


@dataclass
class Roll:
    """Who takes part in a run and on which machine, and who of them is left once one is gone.

    Only the ranks that wait for a lost one notice its end; the others wait for those. So the first to notice calls the
    roll in the store that all ranks share, and a thread of every rank that is left answers.

    Attributes:
        store: of this run alone.
        rank, world: this process's number and that of all.
        machines: the machine of each rank; known after `begin`.
    """

    store: Store
    rank: int
    world: int
    machines: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _answers: threading.Thread | None = field(default=None, init=False)
    _heard: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Tell the others this process's machine, read theirs, and answer roll calls from now on."""
        self.store.set(f"machine{self.rank}", socket.gethostname())
        self.machines = [self.store.get(f"machine{number}").decode() for number in range(self.world)]
        if self.world > 2:  # of two, the other one is gone
            self._answers = threading.Thread(target=self._answer, name="roll", daemon=True)
            self._answers.start()

    def end(self) -> None:
        """Answer no more."""
        self._over.set()
        if self._answers is not None:
            self._answers.join(2 * _LOOKS)

    def _answer(self) -> None:
        with suppress(RuntimeError):  # the store has gone with its machine
            while not self._over.wait(_LOOKS):
                if self.store.check(["called"]):
                    self._heard = True
                    self.store.set(f"here{self.rank}", "yes")
                    return

    def gone(self) -> list[int]:
        """Return the ranks that do not answer; with the store, those of rank 0's machine are gone.

        Empty where the store is gone after another rank has called the roll: that one has told who is lost.
        """
        others = [number for number in range(self.world) if number != self.rank]
        if len(others) < 2:
            return others
        try:
            self.store.set("called", "yes")
            until = time.monotonic() + _ROLL_CALL
            while others and time.monotonic() < until:
                others = [number for number in others if not self.store.check([f"here{number}"])]
                time.sleep(_LOOKS / 5)
            return others
        except RuntimeError:
            if self._heard:
                return []
            return [number for number, machine in enumerate(self.machines) if machine == self.machines[0]]

    def named(self, ranks: list[int]) -> str:
        """Return ranks by their machines: ``ranks 8, 9 on gpu07``."""
        on: dict[str, list[str]] = {}
        for number in ranks:
            on.setdefault(self.machines[number], []).append(str(number))
        return "; ".join(
            f"rank{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} on {machine}"
            for machine, numbers in on.items()
        )


_groups = itertools.count()  # numbers what this process joins, as every rank does
_joined: list[Roll] = []  # of the process group that is running


@contextmanager
def watched_peers() -> Iterator[None]:
    """Turn the fault that the end of one process causes in the others into one that says so.

    Raises:
        PeerLost: another process is gone; the run continues from its last checkpoint.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_distributed() or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        reason = str(error).strip().splitlines()[0]
        lost = _joined[-1].gone() if _joined else []
        who = f": {_joined[-1].named(lost)}" if lost else ""
        raise PeerLost(
            f"another process of this run is gone{who} ({reason}).",
            remedy="its own message says why; the same command continues from the last checkpoint",
        ) from error


def stop() -> None:
    """Leave the process group, if there is one.

    A model in `DistributedDataParallel` may outlive this, in a fault's traceback for one. Freed as the last that holds
    the group, it waits for gloo's threads with Python's lock in its hand, and a thread that has a tensor of the last
    collective to drop waits for that lock: both wait for ever. So the group is held until they have dropped all.
    """
    while _joined:
        _joined.pop().end()
    if dist.is_available() and dist.is_initialized():
        held = [dist.group.WORLD]
        dist.destroy_process_group()
        release = threading.Timer(_HELD, held.clear)
        release.daemon = True
        release.start()


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all ranks; the tensor itself in a single process."""
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total


def broadcast(value: T) -> T:
    """Return rank 0's value on every rank; `messages.pack` says what it may hold."""
    if not is_distributed():
        return value
    data = broadcast_bytes(messages.pack(value) if rank() == 0 else b"")
    shared: T = value if rank() == 0 else messages.unpack(data)
    return shared


def broadcast_bytes(data: bytes) -> bytes | bytearray:
    """Return rank 0's bytes on every rank, sent in pieces; the others' are not looked at."""
    if not is_distributed():
        return data
    device = _message_device()
    length = torch.tensor([len(data)], device=device)
    dist.broadcast(length, src=0)
    shared = bytearray(data) if rank() == 0 else bytearray(int(length))
    for begin in range(0, len(shared), _PIECE):
        piece = torch.frombuffer(shared, dtype=torch.uint8, offset=begin, count=min(_PIECE, len(shared) - begin))
        sent = piece.to(device)
        dist.broadcast(sent, src=0)
        piece.copy_(sent)
    return shared


def broadcast_into(row: Tensor) -> None:
    """Put rank 0's numbers into a row of as many on every rank, in pieces; collective.

    Args:
        row: of numbers on the CPU that lie close to each other, shape (n,).
    """
    if not is_distributed():
        return
    flat = row.view(torch.uint8)
    for begin in range(0, len(flat), _PIECE):
        piece = flat[begin : begin + _PIECE]
        there = piece.to(_message_device())
        dist.broadcast(there, src=0)
        if there is not piece:
            piece.copy_(there)


def from_first(make: Callable[[], T]) -> T:
    """Return on every rank what rank 0 makes, the only one that is asked; a fault of rank 0's is raised by all.

    Args:
        make: its answer may hold what `messages.pack` takes.

    Raises:
        BenchError: of ``make``.
    """
    if not is_distributed():
        return make()
    answer: T | None = None
    fault: BenchError | None = None
    if rank() == 0:
        try:
            answer = make()
        except BenchError as error:
            fault = error
    fault = broadcast(fault)
    if fault is not None:
        fault.on_all_ranks = True
        raise fault
    shared: T = broadcast(answer)  # type: ignore[assignment]
    return shared


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, by rank, on every rank; `messages.pack` says what they may hold."""
    if not is_distributed():
        return [value]
    data = torch.frombuffer(bytearray(messages.pack(value)), dtype=torch.uint8)
    return [messages.unpack(own.cpu().numpy().tobytes()) for own in _pieces(data.to(_message_device()))]


def _message_device() -> torch.device:
    """Return where tensors must lie that ranks send each other."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks one below the other, by rank, on every rank; the tensor itself in one process.

    Args:
        rows: this rank's, shape (its number, ...); only the first size may differ between ranks.
    """
    if not is_distributed():
        return rows
    return torch.cat(_pieces(rows))


def _pieces(rows: Tensor) -> list[Tensor]:
    """Return the rows of every rank, by rank."""
    own = torch.tensor([len(rows)], device=rows.device)
    numbers = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(numbers, own)
    lengths = [int(number) for number in numbers]
    # Ranks exchange pieces of one size: what a rank lacks is filled up and cut off again.
    piece = rows.new_zeros(max(lengths), *rows.shape[1:])
    piece[: len(rows)] = rows
    pieces = [torch.empty_like(piece) for _ in lengths]
    dist.all_gather(pieces, piece)
    return [one[:length] for one, length in zip(pieces, lengths, strict=True)]


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()
