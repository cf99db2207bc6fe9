"""A run's folder as its ranks see it: rank 0's counts for all, and who sees another one is told so."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cissod_bench import distributed
from cissod_bench.errors import DataFault
from cissod_bench.files.whole_files import write_bytes
from cissod_bench.records import run_folder as runs
from cissod_bench.training import checkpoint


@dataclass(frozen=True)
class Work:
    """What an earlier start has left in a run's folder.

    Attributes:
        iterations: how far it is, by its checkpoint, its log and its record.
        interval: iterations between its checkpoints.
        finished: whether it was trained and scored to the end.
    """

    iterations: int
    interval: int
    finished: bool

    @property
    def is_much(self) -> bool:
        """Whether more than one interval between checkpoints would be lost with it."""
        return self.iterations > self.interval


def work_in(folder: Path, interval: int) -> Work:
    """Return what lies in a run's folder; what cannot be read counts for nothing.

    Args:
        folder: of the run.
        interval: iterations between checkpoints where the folder does not say it.
    """
    settings: dict[str, Any] = {}
    finished = False
    with suppress(DataFault):
        record = runs.read_record(folder)
        settings, finished = record.settings, record.status == "done"
    reached = [checkpoint.iteration_of(folder / runs.CHECKPOINT) or 0, _logged(folder / runs.LOG)]
    if finished:
        reached.append(int(settings.get("iterations", 0)))
    return Work(max(reached), int(settings.get("checkpoint_every", interval)), finished)


def _logged(log: Path) -> int:
    """Return the last iteration that a log tells of, 0 where it tells of none."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        return int(json.loads(log.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2])["iteration"])
    return 0


def tell_apart(folder: Path, tell: Callable[[str], None]) -> None:
    """Tell ranks that see another folder than rank 0 that rank 0's counts; a collective call.

    Rank 0 puts a file with a random name there, and the others look for it. Who tells it is rank 0, and the first rank
    of every machine that sees another folder.

    Args:
        folder: of the run; rank 0 holds its lock.
        tell: takes the warning.

    Raises:
        EnvironmentFault: rank 0 cannot write there.
    """
    if not distributed.is_distributed():
        return
    mark = folder / f".seen-{secrets.token_hex(8)}.tmp"

    def put() -> str:
        write_bytes(mark, b"")
        return mark.name

    try:
        apart = not (folder / distributed.from_first(put)).exists()
        reached = checkpoint.iteration_of(folder / runs.CHECKPOINT)
        seen = distributed.gather_objects((apart, reached, (socket.gethostname(), str(folder))))
    finally:
        if distributed.rank() == 0:
            mark.unlink(missing_ok=True)
    rank = distributed.rank()
    same_place = any(other and where == seen[rank][2] for other, _, where in seen[:rank])
    begins_a_machine = apart and (distributed.local_rank() == 0 or not same_place)
    if begins_a_machine or (rank == 0 and any(other for other, _, _ in seen)):
        tell(_words(folder, [(other, iteration) for other, iteration, _ in seen]))


def _words(folder: Path, seen: list[tuple[bool, int | None]]) -> str:
    """Return what ranks with folders of their own are told: whether each sees another one, and its checkpoint."""
    ranks = [rank for rank, (other, _) in enumerate(seen) if other]
    several = len(ranks) > 1
    first = seen[0][1]
    words = (
        f"{'Ranks' if several else 'Rank'} {', '.join(map(str, ranks))} see{'' if several else 's'} another folder "
        f"{folder} than rank 0: the machines share no disk there. Rank 0's folder counts: {_what(first)}, and "
        "everything is written there alone."
    )
    further = [
        (rank, iteration) for rank, (other, iteration) in enumerate(seen) if other and (iteration or 0) > (first or 0)
    ]
    if further:
        rank, iteration = max(further, key=lambda one: one[1] or 0)
        words += (
            f" Rank {rank}'s folder is further: it holds a checkpoint (after iteration {iteration}), which is left "
            "alone and not used. To continue from it, stop this run (Ctrl-C) and start that machine as rank 0, or copy "
            "its folder to rank 0's machine first."
        )
    return words


def _what(iteration: int | None) -> str:
    if iteration is None:
        return "it holds no checkpoint, so the run begins with iteration 1"
    return f"its checkpoint (after iteration {iteration}) is sent to all ranks"
