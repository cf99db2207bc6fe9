"""Stop requests: SIGTERM, SIGHUP and a first Ctrl-C are noted; work ends at the next point it can be continued from."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from cissod_bench.errors import Interrupted

CONTINUE = "repeat the same command to continue"
CTRL_C = 130
"""Exit code of what Ctrl-C has ended."""
_ECHO = (
    0.1  # seconds in which a second Ctrl-C is the first once more: a launcher hands on what the terminal gave to all
)
_NOTED = b"\nCtrl-C: stopping where the run can be continued; a second Ctrl-C ends it at once.\n"


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a stop was asked for; the iteration or image at work is finished first.

    SIGTERM and SIGHUP (the terminal was closed) ask for a stop, and so does a first Ctrl-C. A third one finds the
    system's own answer, for a process that hangs outside Python.

    Raises:
        KeyboardInterrupt: at a second Ctrl-C, wherever the work is; files are whole or not there.
        Interrupted: of the block, with the exit code of Ctrl-C where that came.
    """
    asked: list[int] = []
    pressed: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            _press(pressed)

    numbers = [signal.SIGTERM, signal.SIGINT]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) == signal.SIG_DFL:  # nohup ignores it
        numbers.append(hang_up)
    try:
        before = {number: signal.signal(number, ask) for number in numbers}
    except ValueError:  # not the main thread: nothing to catch
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    except Interrupted as fault:
        if pressed:
            fault.exit_code = CTRL_C
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _press(pressed: list[float]) -> None:
    """Note a Ctrl-C, and end the work at a second one."""
    now = time.monotonic()
    if pressed and now - pressed[-1] > _ECHO:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt
    if not pressed:
        pressed.append(now)
        with suppress(OSError):
            os.write(2, _NOTED)  # print may be at work already, and must not be entered twice


def stopped(words: str, *, on_all_ranks: bool = False) -> Interrupted:
    """Return what ends a run that was asked to stop.

    Args:
        words: how far it is.
        on_all_ranks: every rank raises it, so that one says it for all.
    """
    fault = Interrupted(words, remedy=CONTINUE)
    fault.on_all_ranks = on_all_ranks
    return fault


FOLLOW_PARENT = "--follow-parent"
"""First word of a command line of ``python -m cissod_bench`` that a parent gives its child: see `follow_parent`."""
GRACE = 600.0  # seconds an orphan has for its checkpoint, or for the end of its scoring


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Yield a list that SIGTERM and Ctrl-C are added to instead of ending the process."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: nothing to catch
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent() -> None:
    """Let this process end with the one that started it: watch standard input, a pipe from `start`, in a thread."""
    parent = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # for whatever reads standard input later
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_stop_after, args=(parent,), name="follow", daemon=True).start()


def follow_agent(look: float = 1.0) -> None:
    """Let this process end at once when torchrun's agent, which has started it and would end it, is gone.

    The ranks of other machines find it gone and name it. Without this, a rank would go on that nobody can stop.

    Args:
        look: seconds between two looks.
    """
    agent = os.getppid()

    def watch() -> None:
        while os.getppid() == agent:
            time.sleep(look)
        os.write(2, f"The torchrun that started rank {os.environ.get('RANK', '0')} is gone: the rank ends.\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="agent", daemon=True).start()


def _stop_after(parent: int) -> None:
    """Stop this process, gently and then not, once the pipe from its parent ends."""
    while os.read(parent, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
