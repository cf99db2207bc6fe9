"""Loader workers: what a process that reads images leaves to the main one, and that none is left behind."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

_REAPING = 5.0  # seconds that the system has to end a killed process


def begin_worker(worker: int) -> None:
    """Leave to the main process what is its own: signals to the whole process group, and the news of its own end.

    OpenCV's threads would be as many as there are processors in every worker.

    A signal shall stop the training where it can be continued, not a worker's reading. Where the main process is killed
    while it takes a batch, a thread of the worker would print the fault of the broken connection.
    """
    import cv2

    cv2.setNumThreads(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    hook = sys.excepthook

    def told(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            hook(kind, fault, trace)

    sys.excepthook = told


@contextmanager
def no_worker_left() -> Iterator[None]:
    """Kill what is left of the workers that were started meanwhile: being asked to end is nothing to them."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        left = set(multiprocessing.active_children()) - before
        with _deaths_untold():
            for worker in left:
                worker.kill()
            for worker in left:
                worker.join(_REAPING)


@contextmanager
def _deaths_untold() -> Iterator[None]:
    """Keep torch's handler from raising an error of its own, in place of the one told, at workers that are killed."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if handler is not None:  # None is one that Python did not set
            signal.signal(signal.SIGCHLD, handler)
