"""What a check found: passed, failed, or nothing to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from cissod_bench.catalogue.declarations import place_of, words_of
from cissod_bench.errors import BenchError

Status: TypeAlias = Literal["PASS", "FAIL", "-"]
"""PASS, FAIL, or "-": nothing to pass (a measurement), or the check does not concern the method."""

CHECKS = MappingProxyType(
    {
        "declaration": "METHOD says what it is, its variants can be built",
        "training": "losses are finite, pseudo labels are used",
        "resume": "N + resume + N equals 2 N, bit by bit",
        "regression": "the box branch, and losses with collect=False, leave the state alone",
        "hidden": "the boxes of D_u are not read",
        "processes": "two processes with half the data each hold one state",
        "cost": "time and memory of a step against Soft Teacher",
    }
)
"""Name of every check -> what it asks, in the order of the exam."""


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        check: one of `CHECKS`.
        status: see `Status`.
        detail: one line: what was seen, or where the first difference is.
    """

    check: str
    status: Status
    detail: str


class Broken(Exception):
    """A check that is not passed; its message is the detail."""


def judged(check: str, body: Callable[[], str]) -> Outcome:
    """Return the outcome of a check.

    Args:
        check: its name.
        body: returns the detail, or raises: `Broken` with what is wrong; any other error is the method's own fault.
    """
    try:
        return Outcome(check, "PASS", body())
    except Broken as broken:
        return Outcome(check, "FAIL", str(broken))
    except Exception as error:
        return Outcome(check, "FAIL", told(error))


def told(error: Exception) -> str:
    """Return an error in one line with the file and line it comes from."""
    if isinstance(error, BenchError):
        return error.message
    place = place_of(error)
    return f"{words_of(error)} ({Path(place).name})"


def left_out(check: str, reason: str) -> Outcome:
    """Return the outcome of a check that does not concern the method or cannot be made."""
    return Outcome(check, "-", reason)


@contextmanager
def broken_if_raised(what: str) -> Iterator[None]:
    """Turn an error of the block into `Broken` with a few words before it."""
    try:
        yield
    except Exception as error:
        raise Broken(f"{what}: {told(error)}") from error
