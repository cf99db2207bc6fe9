"""Processes: start a group, sum over ranks, share objects. A single process needs none of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cissod_bench.errors import PeerLost

T = TypeVar("T")
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
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    # The other ranks wait while the first one scores a whole validation set.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=12))


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
        raise PeerLost(
            f"another process of this run is gone ({reason}).",
            remedy="its own message says why; the same command continues from the last checkpoint",
        ) from error


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all ranks; the tensor itself in a single process."""
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total


def broadcast(value: T) -> T:
    """Return rank 0's object on every rank."""
    if not is_distributed():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    shared: T = box[0]
    return shared


def gather_objects(value: T) -> list[T]:
    """Return the objects of all ranks, by rank, on every rank."""
    if not is_distributed():
        return [value]
    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value)
    return box


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks one below the other, by rank, on every rank; the tensor itself in one process.

    Args:
        rows: this rank's, shape (its number, ...); only the first size may differ between ranks.
    """
    if not is_distributed():
        return rows
    own = torch.tensor([len(rows)], device=rows.device)
    numbers = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(numbers, own)
    lengths = [int(number) for number in numbers]
    # Ranks exchange pieces of one size: what a rank lacks is filled up and cut off again.
    piece = rows.new_zeros(max(lengths), *rows.shape[1:])
    piece[: len(rows)] = rows
    pieces = [torch.empty_like(piece) for _ in lengths]
    dist.all_gather(pieces, piece)
    return torch.cat([one[:length] for one, length in zip(pieces, lengths, strict=True)])


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()
