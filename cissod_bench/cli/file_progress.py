"""What a command shows while annotation files are read or written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cissod_bench.cli.common import Output

if TYPE_CHECKING:
    from cissod_bench.files.json_objects import Progress


@contextmanager
def shown_progress(output: Output) -> Iterator[Progress | None]:
    """Show a bar per file while it is read or written, where a terminal shows it; else a line when it begins."""
    if output.verbosity < 0:
        yield None
        return
    if not sys.stderr.isatty():
        begun: set[str] = set()

        def begins(what: str, done: int, total: int) -> None:
            if what not in begun:
                begun.add(what)
                output.say(what)

        yield begins
        return
    from rich.progress import Progress as Bars

    from cissod_bench.terminal import Console

    with Bars(console=Console(stderr=True), transient=True) as bars:
        rows: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what, total=total)
            bars.update(rows[what], completed=done)

        yield told
