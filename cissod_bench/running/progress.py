"""What a run shows while it works: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cissod_bench.controls import shown
from cissod_bench.terminal import Console


class Bar:
    """A phase's progress.

    Args:
        title: of the phase ("train").
        total: steps.
        done: steps already done by an earlier start.
        stream: where to; a bar is drawn only on a terminal.
        quiet: show nothing.
        every: seconds between lines where the stream is no terminal.
    """

    def __init__(
        self, title: str, total: int, *, done: int = 0, stream: TextIO, quiet: bool = False, every: float = 20.0
    ) -> None:
        self.title, self.total, self.done, self.first = title, total, done, done
        self.stream, self.quiet, self.every = stream, quiet, every
        self.begun = self.spoken = time.monotonic()
        self.note = ""
        self._bar: Progress | None = None
        if stream.isatty() and not quiet:
            columns = (TextColumn("{task.description:>9}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(file=stream))
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Bar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            with suppress(OSError):  # the terminal was closed
                self._bar.stop()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Take some steps; the note (losses, pseudo labels, thresholds) stands behind the bar.

        What comes before the first step, such as the evaluation at which the run was stopped, does not slow its pace.
        """
        self.done += steps
        if self.done == self.first:
            self.begun = time.monotonic()
        self.note = note or self.note
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=self.note)
        elif not self.quiet:
            self._speak()

    def _speak(self) -> None:
        now = time.monotonic()
        if now - self.spoken < self.every and self.done < self.total:
            return
        self.spoken = now
        pace = ""
        if self.done > self.first:
            rate = (self.done - self.first) / max(now - self.begun, 1e-9)
            pace = f"  {rate:.2f}/s  {(self.total - self.done) / rate:.0f} s left"
        text = f"{self.title:>9} {self.done}/{self.total}{pace}  {self.note}"
        with suppress(OSError):  # whoever read it is gone; the run is not
            print(shown(text.rstrip()), file=self.stream, flush=True)
