"""The queue of a sweep: cells that are not done are run one after the other, each in a process of its own.

Sweeps that work on the same folder share the queue: a cell is claimed before it is run, one that somebody else works on
is passed over and looked at again at the end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from cissod_bench.errors import DataFault, Interrupted, UsageFault
from cissod_bench.files.whole_files import write_bytes, write_json
from cissod_bench.launching import child
from cissod_bench.launching.ranks import STOPPED
from cissod_bench.records import run_folder as runs
from cissod_bench.records.record import RunRecord
from cissod_bench.signals import stop_requests
from cissod_bench.sweeping.cells import FAILURE, Cell, Folders, Seen
from cissod_bench.sweeping.claims import claimed, run_at_work
from cissod_bench.sweeping.estimate import seconds_of

OUTPUT = "output.log"
KEPT = (runs.PSEUDO_LABELS, runs.RECORD)  # the record last: where it lies, everything does
_LINES = 5  # of a failed run's output, where it names no error


def message_of(output: Path) -> str:
    """Return what a failed run said last: from its last line that begins with "Error:", else its last lines."""
    try:
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    errors = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    return "\n".join(lines[errors[-1] :] if errors else lines[-_LINES:]).removeprefix("Error: ")


@dataclass
class Durations:
    """How long a cell takes: the wall seconds of those this sweep ran from their beginning, else what records say."""

    measured: dict[str, list[float]] = field(default_factory=dict)
    recorded: dict[str, list[float]] = field(default_factory=dict)

    def note(self, cell: Cell, record: RunRecord | None) -> None:
        """Take the seconds of a run that was done before."""
        if record is not None and (seconds := seconds_of(record)) > 0:
            self.recorded.setdefault(cell.task, []).append(seconds)

    def of(self, cells: Sequence[Cell]) -> float | None:
        """Return the seconds some cells will take, by the mean of their task, or None where nothing is known."""
        total = 0.0
        for cell in cells:
            known = self.measured.get(cell.task) or self.recorded.get(cell.task)
            if known is None:
                return None
            total += sum(known) / len(known)
        return total


@dataclass
class Sweep:
    """A queue of cells.

    Attributes:
        cells: in the order in which they are run.
        folders: where runs and kept records lie.
        say: takes lines for the user.
        tick: called with the cell at work a few times per second.
        command: returns the command line of a cell.
        environment: of the cells' processes, added to this one's.
        prepare: called before a cell is run; a fault that it raises is the cell's.
        waits: whether to wait for cells that others work on, and take over what they leave; else the queue ends when
            others work on all that is left.
        patience: seconds between two looks at cells that others work on.
    """

    cells: Sequence[Cell]
    folders: Folders
    say: Callable[[str], None] = print
    tick: Callable[[Cell], None] = lambda cell: None
    command: Callable[[Cell], list[str]] = lambda cell: child.run_command(cell.words())
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Cell], None] = lambda cell: None
    waits: bool = True
    patience: float = 2.0
    seen: dict[Cell, Seen] = field(default_factory=dict, init=False)
    durations: Durations = field(default_factory=Durations, init=False)
    _asked: list[int] = field(default_factory=list, init=False)
    _known_failures: dict[Cell, int | None] = field(default_factory=dict, init=False)

    def run(self) -> dict[Cell, Seen]:
        """Work until no cell is left and return what became of each.

        Raises:
            Interrupted: SIGTERM came; the cell at work has written a checkpoint.
            KeyboardInterrupt: likewise after Ctrl-C.
            EnvironmentFault: a folder cannot be written.
        """
        self._known_failures = {cell: _written(self.folders.run(cell) / FAILURE) for cell in self.cells}
        left = [cell for cell in self.cells if not self._settled(cell)]
        self.say(f"{len(self.cells)} cells: {len(self.cells) - len(left)} need nothing, {self._rest(left)}")
        with stop_requests() as self._asked:
            while left:
                later = [cell for number, cell in enumerate(left) if not self._visit(cell, left[number + 1 :])]
                if len(later) == len(left):
                    if not self.waits and self._all_elsewhere(later):
                        break
                    self._wait_for_others(later)
                elif later:
                    self.say(f"Other processes are at work on {len(later)} of the cells; looking at them again")
                left = later
        return self.seen

    def _all_elsewhere(self, cells: Sequence[Cell]) -> bool:
        """Tell whether nothing of some cells is left to do here; notes their states."""
        self.seen.update({cell: self.folders.look(cell) for cell in cells})
        free = [cell for cell in cells if self.seen[cell].state in ("waiting", "interrupted")]
        if not free:
            self.say(f"Other processes are at work on {len(cells)} of the cells; nothing is left to do here")
        return not free

    def _settled(self, cell: Cell) -> bool:
        """Tell whether there is nothing to run, and note and keep what is there."""
        seen = self.folders.recorded(cell)
        self.seen[cell] = seen
        if seen.state == "done":
            self.durations.note(cell, seen.record)
            self._keep(cell)
        elif seen.final:
            self.say(f"Failed: {cell.title}: {seen.note}")
        return seen.state == "done" or seen.final

    def _visit(self, cell: Cell, behind: Sequence[Cell]) -> bool:
        """Run a cell if nobody else does; tell whether it is settled."""
        self._stop_if_asked()
        folder = self.folders.run(cell)
        with claimed(folder) as ours:
            if not ours or run_at_work(folder):
                return False
            if self._settled(cell) or self._failed_elsewhere(cell):
                return True
            return self._run(cell, behind)

    def _failed_elsewhere(self, cell: Cell) -> bool:
        """Tell whether another sweep has seen the cell fail since this one began; it would fail again.

        No clock is asked: that of the machine that holds the files may be another one's.
        """
        written = _written(self.folders.run(cell) / FAILURE)
        return written is not None and written != self._known_failures.get(cell)

    def _run(self, cell: Cell, behind: Sequence[Cell]) -> bool:
        """Run a claimed cell to its end; tell whether it is settled."""
        folder, before = self.folders.run(cell), self.seen[cell]
        number = len(self.cells) - len(behind)
        how = f"continues {before.note}".rstrip() if before.record else "starts"
        self.say(f"[{number}/{len(self.cells)}] {cell.title}: {how}")
        (folder / FAILURE).unlink(missing_ok=True)
        begun = time.monotonic()
        try:
            self.prepare(cell)
        except (DataFault, UsageFault) as fault:
            self._fail(cell, fault.exit_code, f"before its start: {fault}", behind)
            return True
        self._stop_if_asked()
        process = child.start(self.command(cell), folder / OUTPUT, self.environment)
        try:
            code = child.wait(process, self._asked, tick=lambda: self.tick(cell), stopping=self._say_stopping)
        finally:
            if process.stdin:
                process.stdin.close()  # a child that is left behind stops by itself
        self._stop_if_asked()
        if code and run_at_work(folder):  # somebody else was quicker by a moment
            return False
        output, seconds = folder / OUTPUT, None if before.record else time.monotonic() - begun
        self.conclude(cell, code, output, seconds=seconds, behind=behind)
        return True

    def conclude(
        self, cell: Cell, code: int, output: Path, *, seconds: float | None = None, behind: Sequence[Cell] = ()
    ) -> None:
        """Note and say what became of a cell.

        Args:
            cell: whose run has ended.
            code: its exit code, or minus the number of the signal that ended it.
            output: what it said.
            seconds: that it took, if it was not continued.
            behind: the cells that are left.
        """
        seen = self.seen[cell] = self.folders.recorded(cell)
        if code == 0 and seen.state == "done":
            if seconds is None:
                self.durations.note(cell, seen.record)
            else:
                self.durations.measured.setdefault(cell.task, []).append(seconds)
            self._keep(cell)
            took = "" if seconds is None else f" in {duration(seconds)}"
            self.say(f"    done{took}: {scores_text(seen)}; {self._rest(behind)}")
        elif code in STOPPED:
            self.say(f"    interrupted {seen.note}; {self._rest(behind)}")
        else:
            message = message_of(output) or "it said nothing"
            ended = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
            self._fail(cell, code, f"{ended}: {message}", behind, output=f"\n    its output: {output}")

    def _fail(self, cell: Cell, code: int, message: str, behind: Sequence[Cell], *, output: str = "") -> None:
        """Note and say that a cell failed, and why."""
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(self.folders.run(cell) / FAILURE, {"exit_code": code, "message": message, "when": when})
        self.seen[cell] = self.folders.recorded(cell)
        self.say(f"    failed, {message}{output}; {self._rest(behind)}")

    def _rest(self, cells: Sequence[Cell]) -> str:
        """Return how many cells are left and how long they will take."""
        seconds = self.durations.of(cells)
        return f"{len(cells)} left" + (f", about {duration(seconds)}" if cells and seconds is not None else "")

    def _keep(self, cell: Cell) -> None:
        """Copy the small files of a finished run to where records are kept.

        A cell may be done by its kept record alone, while the work folder holds a run of it that is not: nothing is
        copied then.
        """
        folder, kept = self.folders.run(cell), self.folders.kept(cell)
        if kept is None or not (folder / runs.RECORD).is_file() or runs.read_record(folder).status != "done":
            return
        for name in KEPT:
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                if not (kept / name).is_file() or (kept / name).read_bytes() != content:
                    write_bytes(kept / name, content)

    def _say_stopping(self) -> None:
        self.say("    stopping: the run writes a checkpoint first; a second Ctrl-C kills it")

    def _stop_if_asked(self) -> None:
        if signal.SIGINT in self._asked:
            raise KeyboardInterrupt
        if self._asked:
            raise Interrupted("The sweep was stopped.", remedy="repeat the same command to continue")

    def _wait_for_others(self, cells: Sequence[Cell]) -> None:
        """Wait until the next look at cells that others work on."""
        self.tick(cells[0])
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            self._stop_if_asked()
            time.sleep(min(0.1, self.patience))


def _written(file: Path) -> int | None:
    """Return when a file was written, by the clock of its file system in nanoseconds; None where there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def scores_text(seen: Seen) -> str:
    """Return a finished cell's AP as ``all 44.6, min 20.6``."""
    points = {name: "-" if value is None else f"{value:.1f}" for name, value in seen.scores().items()}
    return ", ".join(f"{name} {value}" for name, value in points.items())
