"""Memory that tests have freed, given back where much of it has come together, and the most that a process had.

`cissod_bench.allocator` lets a process that trains keep what it frees, and the search for garbage looks at tensors as
rarely as at any object. A process of the suite runs hundreds of tests, so both would add up.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from contextlib import suppress
from pathlib import Path

BOUND = 600 << 20
"""Bytes from which memory is given back; imports of all packages alone take two thirds of it."""
STEP = 100 << 20  # bytes that have to come on top until it is tried again
_PAGE = resource.getpagesize()


def resident() -> int:
    """Return the bytes of memory this process takes, 0 where the system does not say."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    return 0


def peak() -> int:
    """Return the most bytes of memory this process has taken; where the system says so, of this program alone."""
    with suppress(OSError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def give_back() -> None:
    """Let the C library give freed memory back to the system, where it can."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class Watch:
    """Gives memory back after a test when there is much more than after the last time."""

    def __init__(self, bound: int = BOUND, step: int = STEP) -> None:
        self.least, self.bound, self.step = bound, bound, step

    def look(self) -> bool:
        """Give memory back if it is time, garbage only if the rest does not help; tell whether it was."""
        if resident() <= self.bound:
            return False
        give_back()
        if resident() > self.least:
            gc.collect()
            give_back()
        self.bound = max(self.least, resident() + self.step)
        return True


def shown(peaks: dict[str, int], forks: int) -> str:
    """Return a line on the most memory that each process of the tests had, and the largest of their forks."""
    words = [f"{name} {size / 1e6:,.0f} MB" for name, size in peaks.items()]
    return "most memory: " + ", ".join(words + [f"largest fork {forks / 1e6:,.0f} MB"] * bool(forks))


def process_name() -> str:
    """Return what pytest-xdist calls this process, or "tests" where it runs them all."""
    return os.environ.get("PYTEST_XDIST_WORKER", "tests")
