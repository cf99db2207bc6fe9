"""``run --restart`` asks before it deletes more than one checkpoint interval of work."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cissod_bench.errors import UsageFault

_KEEP = "leave --restart out to continue or keep that run, or pass another --work-dir for a new one"


def allow_restart(folder: Path, interval: int, *, yes: bool, may_ask: bool) -> None:
    """Return if what a run's folder holds may be deleted.

    Args:
        folder: of the run.
        interval: iterations between checkpoints, for folders that do not say it.
        yes: the user has said so on the command line.
        may_ask: this process alone is the run, or will start it; a question also needs a terminal.

    Raises:
        UsageFault: the user wants to keep it, or there is nobody to ask.
    """
    from cissod_bench.training.folders import work_in

    work = work_in(folder, interval)
    if yes or not work.is_much:
        return
    what = f"{'a finished run of ' if work.finished else ''}{work.iterations:,} iterations in {folder}"
    if not (may_ask and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageFault(
            f"--restart would delete {what}: more than one interval of {work.interval:,} iterations between "
            "checkpoints. Nobody can be asked here, so nothing was deleted; scripts that mean it say --yes.",
            remedy=_KEEP,
        )
    if not click.confirm(f"--restart deletes {what}. Delete it?", default=False, err=True):
        raise UsageFault("Nothing was deleted.", remedy=_KEEP)
