"""Standard output for results alone: whatever else a process, its libraries and its children print goes elsewhere.

A library may print with Python's ``print``, from C code, or in a child or loader worker that inherited the descriptor,
so it is descriptor 1 itself that is turned away, not ``sys.stdout`` alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import IO, TextIO, cast

_OUT = 1  # the descriptor of standard output


def _elsewhere() -> int:
    """Return the descriptor of standard error, or of nothing at all where it is closed."""
    with suppress(OSError):
        os.fstat(2)
        return 2
    return os.open(os.devnull, os.O_WRONLY)


def _is_standard_output(stream: IO[str]) -> bool:
    """Return whether a stream writes to descriptor 1; those that tests and callers put in its place do not."""
    try:
        return stream.fileno() == _OUT
    except (OSError, ValueError):
        return False


@contextmanager
def results_alone(*, for_good: bool = False) -> Iterator[IO[str]]:
    """Yield a stream to what standard output was, to which nobody else can write until the block ends.

    Args:
        for_good: leave the process's standard output turned away behind the block, too: libraries speak at the exit.
    """
    shown = cast("TextIO | None", sys.stdout)  # None where the process was started with it closed
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        if shown is None or not _is_standard_output(shown):
            yield shown or stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            return
        shown.flush()
        # A descriptor of its own, which children that are started do not inherit.
        kept = stack.enter_context(open(os.dup(_OUT), "w", encoding=shown.encoding, errors=shown.errors))
        os.dup2(_elsewhere(), _OUT)
        if not for_good:
            stack.callback(os.dup2, kept.fileno(), _OUT)
        stack.callback(shown.flush)  # what lies in its buffer was not meant for the result
        yield kept
