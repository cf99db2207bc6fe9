"""Stop requests: SIGTERM is noted, and the work at hand ends at the next point from which the run continues."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cissod_bench.errors import Interrupted

CONTINUE = "repeat the same command to continue"


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM has come; the iteration or image at work is finished first."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    try:
        before = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not the main thread: nothing to catch
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped(words: str, *, on_all_ranks: bool = False) -> Interrupted:
    """Return what ends a run that was asked to stop.

    Args:
        words: how far it is.
        on_all_ranks: every rank raises it, so that one says it for all.
    """
    fault = Interrupted(words, remedy=CONTINUE)
    fault.on_all_ranks = on_all_ranks
    return fault
