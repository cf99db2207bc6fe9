"""What every command shares: where data lies, where work goes, how results and faults are printed."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from cissod_bench.controls import json_shown, shown
from cissod_bench.errors import BenchError, PeerLost

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Output:
    """How this call talks: one JSON value on stdout or text, and how much of it.

    Attributes:
        json: print one JSON value on stdout; everything else goes to stderr.
        verbosity: -1 quiet, 0 usual, 1 and more: tracebacks and library logs.
    """

    json: bool = False
    verbosity: int = 0

    def say(self, text: str = "") -> None:
        """Print a line of progress: on stdout, with --json on stderr, with -q nowhere."""
        if self.verbosity >= 0:
            print(shown(text), file=sys.stderr if self.json else sys.stdout, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        print(f"Warning: {shown(text)}", file=sys.stderr, flush=True)

    def result(self, value: Any) -> None:
        """Print the command's one JSON value, if --json was asked for."""
        if self.json:
            print(json_shown(json.dumps(value, indent=2, ensure_ascii=False)))

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

    def unexpected(self, error: Exception) -> None:
        """Print a fault of ours: the traceback with -v, else its last line and how to see the rest."""
        if self.verbosity > 0:
            print(shown(traceback.format_exc()), end="", file=sys.stderr)
        else:
            print(
                f"Error: {type(error).__name__}: {shown(str(error))}\n  -> repeat the command with -v for the details",
                file=sys.stderr,
            )


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
        ctx.ensure_object(Output).json = True


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
