"""The faults a user can mend; the command line prints each as one message and ends with its exit code.

Exit codes: 0 ok, 1 failed, 2 usage, 3 data invalid, 4 environment, 5 interrupted but resumable, 130 Ctrl-C.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cissod_bench.controls import shown_name


class BenchError(Exception):
    """A fault with a message for the user: what is wrong, where, the rule, what was got.

    Args:
        message: one or two sentences; names the file and the place in it (JSON path or line) where there is one.
        remedy: the next command or edit that mends it; printed on a line of its own.

    Attributes:
        exit_code: of the command that it ends.
        on_all_ranks: every rank of a run raises the same, so that the first says it for all.
    """

    exit_code = 1
    on_all_ranks = False

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.remedy)  # loader workers hand faults to the main process

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  -> {self.remedy}"


def _rebuild(kind: type[BenchError], message: str, remedy: str | None) -> BenchError:
    return kind(message, remedy=remedy)


class UsageFault(BenchError):
    """An unknown name, option or setting."""

    exit_code = 2


class DataFault(BenchError):
    """An annotation file, image, split or prediction file that breaks its contract."""

    exit_code = 3


class FaultList:
    """The faults of many files, told in one message, so that a user mends all of them and not one after the other.

    Attributes:
        count: how many there are.
        first: the first of them.

    >>> faults = FaultList()
    >>> for line in (3, 8):
    ...     with faults.noted():
    ...         raise DataFault(f"one.txt, line {line}: 'x' is no number.", remedy="correct the line")
    >>> print(faults.as_one())
    one.txt, line 3: 'x' is no number.
      one.txt, line 8: 'x' is no number.
      -> correct the line
    """

    SHOWN = 4

    def __init__(self) -> None:
        self.count = 0
        self.first: list[DataFault] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a fault that ends the block and go on behind it."""
        try:
            yield
        except DataFault as fault:
            self.count += 1
            if self.count <= self.SHOWN:
                self.first.append(fault)

    def as_one(self) -> DataFault | None:
        """Return one fault for all, with the remedies of those it shows; None where there is none."""
        if not self.first:
            return None
        lines = [fault.message for fault in self.first]
        if self.count > len(lines):
            lines.append(f"and {self.count - len(lines):,} more.")
        remedies = dict.fromkeys(fault.remedy for fault in self.first if fault.remedy)
        return DataFault("\n  ".join(lines), remedy="; ".join(remedies) or None)

    def tell(self) -> None:
        """Raise the one fault for all, if there is any.

        Raises:
            DataFault: there is.
        """
        fault = self.as_one()
        if fault is not None:
            raise fault


class EnvironmentFault(BenchError):
    """A missing package, an mmcv without its compiled operators, a full disk."""

    exit_code = 4


class Interrupted(BenchError):
    """The run was asked to stop; a checkpoint lies in its folder and the same command continues."""

    exit_code = 5


class PeerLost(Interrupted):
    """Another process of the run is gone, so this one cannot go on; what ended the other is told by the other."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, remedy: str | None = None) -> UsageFault:
    """Return the fault for a name that does not exist, with near matches first and then everything there is.

    Args:
        kind: what has that name, "method".
        name: what was asked for.
        known: every name there is.
        remedy: where the names are listed; None takes the nearest name.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    instead = f"write {near[0]!r}" if near else f"write one of the known names in place of {name!r}"
    message = f"There is no {kind} {name!r}.{hint} Known: {', '.join(map(shown_name, names))}."
    return UsageFault(message, remedy=remedy or instead)
