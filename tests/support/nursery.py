"""A process that has imported what trainings need and forks Python programs: as fresh as new ones, without their start.

``forks.Fork`` asks for one over a socket: what to run, and the three streams it shall have. It is told the process id,
and, when the program has ended, how. The nursery ends with the last process that holds its lifeline.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from cissod_bench.quiet import quiet_imports

# What trainings and draws import, once for all of them; much of it comes with the first model or optimiser.
PRELOADED = (
    "detectors", "mmdet.models", "mmdet.datasets", "torch._dynamo", "torch.onnx", "hotcoco", "cissod_bench.running.run",
    "cissod_bench.running.assembly", "cissod_bench.detector.model_config", "cissod_bench.detector.assigners",
    "cissod_bench.detector.cpu_operators", "cissod_bench.loading.transforms", "cissod_bench.splitting.scenarios",
    "cissod_bench.cli.make_splits", "cissod_bench.cli.run", "cissod_bench.catalogue.task_files",
)  # fmt: skip


class Nursery:
    """Forks on request and tells who asked how each fork ended.

    Args:
        listener: where requests come in.
        lifeline: a descriptor that ends with the last of the processes that may ask.
    """

    def __init__(self, listener: socket.socket, lifeline: int) -> None:
        self.listener, self.lifeline = listener, lifeline
        self.askers: dict[int, socket.socket] = {}
        self.largest = 0  # bytes of memory that a fork has had
        self.woken, self.wake = os.pipe()
        for end in (self.woken, self.wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self.wake)
        self.selector = DefaultSelector()
        for source in (listener, lifeline, self.woken):
            self.selector.register(source, EVENT_READ)

    def job(self) -> dict[str, Any]:
        """Serve until this process is a fork with something to do; return that. The nursery itself leaves here."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    asker, _ = self.listener.accept()
                    job = self.fork(asker)
                    if job is not None:
                        return job
                elif key.fd == self.woken:
                    os.read(self.woken, 4096)
                    self.tell()
                elif not os.read(self.lifeline, 4096):
                    shutil.rmtree(Path(self.listener.getsockname()).parent, ignore_errors=True)
                    sys.exit()

    def fork(self, asker: socket.socket) -> dict[str, Any] | None:
        """Fork as a request says; return it in the fork."""
        size = int.from_bytes(asker.recv(4, socket.MSG_WAITALL), "big")
        if not size:  # who asked was killed meanwhile
            asker.close()
            return None
        text, streams, _, _ = socket.recv_fds(asker, size, 3)
        while len(text) < size:
            text += asker.recv(size - len(text))
        pid = os.fork()
        if pid == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            self.leave(asker)
        for stream in streams:
            os.close(stream)
        if pid == 0:
            job: dict[str, Any] = json.loads(text)
            return job
        self.askers[pid] = asker
        with suppress(OSError):  # who asked was killed meanwhile
            asker.sendall(pid.to_bytes(4, "big"))
        return None

    def leave(self, asker: socket.socket) -> None:
        """Close in a fork what is the nursery's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        for end in (self.lifeline, self.woken, self.wake):
            os.close(end)
        for held in (asker, self.listener, *self.askers.values()):
            held.close()

    def tell(self) -> None:
        """Hand on how forks have ended."""
        while self.askers:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            if used.ru_maxrss << 10 > self.largest:
                self.largest = used.ru_maxrss << 10
                Path(self.listener.getsockname()).with_name("largest.txt").write_text(str(self.largest))
            with self.askers.pop(pid) as asker:
                try:
                    asker.sendall(status.to_bytes(4, "big"))
                except OSError:  # who asked has gone
                    continue


def become(words: Sequence[str], folder: str, environment: Mapping[str, str], *, session: bool) -> None:
    """Run a command line of Python as this interpreter started with it would, with ``-m`` or ``-c``."""
    if session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kind, *rest = words
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})


def ended(job: Mapping[str, Any]) -> int:
    """Do a job; return its exit code as the interpreter would."""
    try:
        become(**job)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> None:
    """End this process as the interpreter does, but for taking some thousand modules apart, which takes seconds."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(code)


if __name__ == "__main__":
    listener = socket.socket(fileno=int(sys.argv[1]))
    import forks
    import tiny

    tiny.tiny_images()
    with quiet_imports():
        for name in PRELOADED:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # forks then share these pages for good
    job = Nursery(listener, os.dup(0)).job()
    forks.fork_children()
    leave(ended(job))
