"""Python programs that need not be started anew: forks of a process that has imported torch and mmdet already.

A start of ``cissod-bench run`` takes five seconds of a processor until it begins to work. `Fork` takes the place of
``subprocess.Popen`` where a test is about what the program does and not about how it starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

HERE = Path(__file__).parent
FORKED = ("-m", "-c")
PLACE = "CISSOD_NURSERY"  # names the nursery's socket to programs that start programs


@cache
def nursery() -> str:
    """Return the socket of the process whose forks the programs are: one for all processes of pytest-xdist.

    Whoever asks first starts it. It ends when nobody is left who has asked: it sees the end of a pipe that all hold.
    """
    if PLACE in os.environ:
        return os.environ[PLACE]
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = Path(tempfile.gettempdir(), f"nursery{session}") if session else Path(tempfile.mkdtemp(prefix="nursery"))
    folder.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "lifeline").exists():
            os.mkfifo(folder / "lifeline")
        try:
            os.open(folder / "lifeline", os.O_WRONLY | os.O_NONBLOCK)  # held by this process as long as it lives
        except OSError:  # nobody reads it
            _start(folder)
    return str(folder / "socket")


def _start(folder: Path) -> None:
    """Start the nursery and hold its lifeline."""
    listener, read = socket.socket(socket.AF_UNIX), os.open(folder / "lifeline", os.O_RDONLY | os.O_NONBLOCK)
    os.open(folder / "lifeline", os.O_WRONLY)
    (folder / "socket").unlink(missing_ok=True)  # of one that has failed
    listener.bind(str(folder / "socket"))
    listener.listen(64)
    paths = os.pathsep.join([os.getcwd(), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.Popen(
        [sys.executable, str(HERE / "nursery.py"), str(listener.fileno())],
        stdin=read,
        stdout=subprocess.DEVNULL,  # no terminal: what forks write is buffered as in a pipe
        pass_fds=[listener.fileno()],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )
    os.close(read)
    listener.close()


def _ranks() -> Path:
    """Return the file in which all forks are noted: who asked, which rank it is, its process."""
    return Path(nursery()).with_name("ranks.txt")


def largest() -> int:
    """Return the most bytes of memory that a fork has had, 0 where this process has asked for none."""
    file = Path(nursery()).with_name("largest.txt") if nursery.cache_info().currsize else None
    return int(file.read_text() or 0) if file is not None and file.exists() else 0


def ranks_of(launcher: int) -> dict[int, int]:
    """Return rank -> process of the forks that a launcher has asked for."""
    noted = [line.split() for line in _ranks().read_text().splitlines()]
    return {int(rank): int(pid) for asker, rank, pid in noted if int(asker) == launcher}


class Fork(subprocess.Popen[Any]):
    """As ``subprocess.Popen``; programs of this Python, given as ``-m`` or ``-c``, are forks of the nursery.

    Popen has no public way to another kind of process: what is overridden here has been the same since Python 3.3.
    """

    asked: socket.socket | None = None

    def _execute_child(self, args: Any, *rest: Any) -> None:
        words = [] if isinstance(args, str) else [str(word) for word in args[1:]]
        words = words[1:] if words[:1] == ["-u"] else words  # torchrun's; what forks say is read at their end
        if not words or args[0] != sys.executable or words[0] not in FORKED:
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        folder, environment, pipes, session = rest[4], rest[5] or os.environ, rest[9:15], rest[20]
        streams = [pipe if pipe != -1 else own for own, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = json.dumps({
            "words": words, "folder": str(folder or os.getcwd()), "session": session,
            "environment": {**environment, PLACE: nursery()},
        }).encode()  # fmt: skip
        self.asked = socket.socket(socket.AF_UNIX)
        self.asked.connect(nursery())
        self.asked.sendall(len(request).to_bytes(4, "big"))
        sent = socket.send_fds(self.asked, [request], streams)
        self.asked.sendall(request[sent:])
        self.pid = int.from_bytes(self.asked.recv(4, socket.MSG_WAITALL), "big")
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        with _ranks().open("a") as file:
            file.write(f"{os.getpid()} {environment.get('RANK', 0)} {self.pid}\n")

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self.asked is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        self.asked.setblocking(not wait_flags)
        try:
            status = self.asked.recv(4, socket.MSG_WAITALL)
        except BlockingIOError:
            return 0, 0
        self.asked.close()
        return self.pid, int.from_bytes(status, "big") if status else signal.SIGKILL

    def _internal_poll(self, *values: Any, **named: Any) -> int | None:
        if self.asked is None:
            return super()._internal_poll(*values, **named)  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def fork_children() -> None:
    """Let this process's own programs be forks, too."""
    subprocess.Popen = Fork  # type: ignore[misc]
