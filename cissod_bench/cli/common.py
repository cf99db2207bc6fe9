"""What every command shares: where data lies, where work goes, how results and faults are printed."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from cissod_bench.cli.result_stream import results_alone
from cissod_bench.controls import json_shown, shown
from cissod_bench.errors import BenchError, PeerLost

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Output:
    """How this call talks: one JSON value on stdout or text, and how much of it.

    Attributes:
        json: print one JSON value on stdout; everything else goes to stderr.
        verbosity: -1 quiet, 0 usual, 1 and more: tracebacks and library logs.
        silent: print no result, for the ranks of a run for which the first one speaks.
        for_good: the process ends with this call, so what --json did to stdout is not undone.
        stream: with --json, what standard output was before everything but the result was sent to standard error.
    """

    json: bool = False
    verbosity: int = 0
    silent: bool = False
    for_good: bool = False
    stream: IO[str] | None = None
    _reserved: ExitStack = field(default_factory=ExitStack, repr=False)

    def reserve(self) -> None:
        """Keep stdout for one JSON value, whatever libraries, C code and child processes write to it from now on."""
        self.json = True
        if self.stream is None:
            self.stream = self._reserved.enter_context(results_alone(for_good=self.for_good))

    def release(self) -> None:
        """End what `reserve` began."""
        self.stream = None
        self._reserved.close()

    def say(self, text: str = "") -> None:
        """Print a line of progress: on stdout, with --json on stderr, with -q nowhere."""
        if self.verbosity >= 0:
            print(shown(text), file=sys.stderr if self.json else sys.stdout, flush=True)

    def tell(self, text: str) -> None:
        """Print a line of the result as text: also with -q, but not beside the JSON value."""
        if self.shows:
            print(shown(text), flush=True)

    @property
    def shows(self) -> bool:
        """Whether the result is printed as text."""
        return not (self.json or self.silent)

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        print(f"Warning: {shown(text)}", file=sys.stderr, flush=True)

    def result(self, value: Any) -> None:
        """Print the command's one JSON value, if --json was asked for."""
        if self.json and not self.silent:
            text = json_shown(json.dumps(value, indent=2, ensure_ascii=False))
            print(text, file=self.stream, flush=True)

    def fault(self, fault: BenchError) -> None:
        """Print a user's fault as one message; its traceback only with -v."""
        if self.verbosity > 0:
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
        rank = os.environ.get("RANK", "0")
        if isinstance(fault, PeerLost):  # no "Error:", which is for the message of the process that failed
            print(f"Rank {rank} ends: {shown(fault.message)}", file=sys.stderr)
        elif rank == "0":
            print(f"Error: {shown(str(fault))}", file=sys.stderr)
        elif not fault.on_all_ranks:
            print(f"Error: rank {rank}: {shown(str(fault))}", file=sys.stderr)

    def unexpected(self, error: BaseException) -> None:
        """Print a fault of ours, or of a method's or task's own file, which is named with its line.

        With -v it is the traceback, else its last line and how to see the rest.
        """
        if self.verbosity > 0:
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
            return
        from cissod_bench.catalogue.python_files import place_in_file

        own = place_in_file(error)
        place, mend = (f"{own[1]}: ", f"mend {own[0]}, or ") if own else ("", "")
        told = f"{place}{type(error).__name__}: {error}"
        print(f"Error: {shown(told)}\n  -> {shown(mend)}repeat the command with -v for the details", file=sys.stderr)


@contextmanager
def warnings_told(output: Output) -> Iterator[None]:
    """Print warnings as the command's own lines while the block runs, once each, without the code they come from."""
    told = set[str]()

    def tell(message: Warning | str, *rest: Any, **options: Any) -> None:
        if str(message) not in told:
            output.warn(str(message))
        told.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell
        yield


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        output = ctx.ensure_object(Output)
        output.reserve()
        ctx.call_on_close(output.release)


def _add_verbosity(ctx: click.Context, _: click.Parameter, value: int) -> None:
    ctx.ensure_object(Output).verbosity += value


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Output).verbosity = -1


def global_options(command: F) -> F:
    """Add --json, -v and -q; they work before and behind the command's name."""
    for option in (
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            help="Print results and faults only.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_add_verbosity,
            help="Print tracebacks and library logs.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Print one JSON value; logs go to stderr.",
        ),
    ):
        command = option(command)
    return command


data_root_option = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="CISSOD_DATA",
    default=Path("data"),
    show_default=True,
    show_envvar=True,
    help="Where the data sets lie; only read.",
)
work_dir_option = click.option(
    "--work-dir",
    type=click.Path(path_type=Path),
    envvar="CISSOD_WORK",
    default=Path("work"),
    show_default=True,
    show_envvar=True,
    help="Where splits, runs and reports are written.",
)
pass_output = click.make_pass_decorator(Output, ensure=True)
