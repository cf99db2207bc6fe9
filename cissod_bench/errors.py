"""The faults a user can mend; the command line prints each as one message and ends with its exit code.

Exit codes: 0 ok, 1 failed, 2 usage, 3 data invalid, 4 environment, 5 interrupted but resumable, 130 Ctrl-C.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
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

    def tell(self) -> None:
        """Raise one fault for all, with the remedies of those it shows, if there is any.

        Raises:
            DataFault: there is.
        """
        lines = [fault.message for fault in self.first]
        if self.count > len(lines):
            lines.append(f"and {self.count - len(lines):,} more.")
        remedies = dict.fromkeys(fault.remedy for fault in self.first if fault.remedy)
        if lines:
            raise DataFault("\n  ".join(lines), remedy="; ".join(remedies) or None)


class EnvironmentFault(BenchError):
    """A missing package, an mmcv without its compiled operators, a full disk."""

    exit_code = 4


class Interrupted(BenchError):
    """The run was asked to stop; a checkpoint lies in its folder and the same command continues."""

    exit_code = 5


class PeerLost(Interrupted):
    """Another process of the run is gone, so this one cannot go on; what ended the other is told by the other."""


def first_of(texts: Sequence[object], most: int) -> str:
    """Return the first of many texts for a message, and how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(map(str, texts[:most])) + more


def did_you_mean(near: Iterable[str]) -> str:
    """Return the end of a sentence that names what may be meant, `` Did you mean 'a' or 'b'?``; "" for nothing."""
    names = " or ".join(map(repr, near))
    return f" Did you mean {names}?" if names else ""


def unknown_names(kind: str, names: Sequence[str], known: Iterable[str], *, remedy: str | None = None) -> UsageFault:
    """Return the fault for names that do not exist, each with near matches, and then everything there is.

    Args:
        kind: what has such names, "method".
        names: what was asked for, one at least.
        known: every name there is.
        remedy: where the names are listed; None takes the name nearest to the first.
    """
    there = sorted(known)
    near = [difflib.get_close_matches(name, there, n=3, cutoff=0.5) for name in names]
    told = [f"There is no {kind} {name!r}.{did_you_mean(like)}" for name, like in zip(names, near, strict=True)]
    instead = f"write {near[0][0]!r}" if near[0] else f"write one of the known names in place of {names[0]!r}"
    message = f"{' '.join(told)} Known: {', '.join(map(shown_name, there))}."
    return UsageFault(message, remedy=remedy or instead)


def unknown_name(kind: str, name: str, known: Iterable[str], *, remedy: str | None = None) -> UsageFault:
    """Return the fault for one name that does not exist; see `unknown_names`."""
    return unknown_names(kind, [name], known, remedy=remedy)
