"""What the ranks of a run each make for themselves and rank 0 wants all of, exchanged with their faults and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cissod_bench import distributed
from cissod_bench.errors import BenchError

T = TypeVar("T")
PERIOD = 1.0  # seconds of work between two exchanges


def exchanged(own: Iterator[T], stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[list[T], bool]]:
    """Yield what all ranks make, as it comes, and whether any of them was asked to stop; collective.

    Each rank works for a while and then waits for the others; one that is done goes on to take part until all are. In
    a single process everything is yielded at once.

    Args:
        own: what this rank makes; holds what `messages.pack` takes.
        stop: tells whether this rank was asked to stop.

    Raises:
        BenchError: of any rank's ``own``, on all ranks.
    """
    while True:
        messages = distributed.gather_objects(_turn(own, stop))
        for fault in (message["fault"] for message in messages):
            if fault is not None:
                fault.on_all_ranks = distributed.is_distributed()
                raise fault
        yield [item for message in messages for item in message["items"]], any(m["asked"] for m in messages)
        if all(message["done"] for message in messages):
            return


def _turn(own: Iterator[T], stop: Callable[[], bool]) -> dict[str, Any]:
    """Return what this rank has to say after the next piece of its work."""
    message: dict[str, Any] = {"items": [], "done": False, "fault": None}
    end = time.monotonic() + (PERIOD if distributed.is_distributed() else 0.0)
    try:
        for item in own:
            message["items"].append(item)
            if time.monotonic() >= end or stop():
                break
        else:
            message["done"] = True
    except BenchError as fault:
        message["fault"] = fault
    return {**message, "asked": stop()}
