"""A process that has imported what trainings need and forks ranks: as fresh as new processes, without their start.

It reads jobs from stdin, one JSON object a line ({"code", "log", "ranks": [environment, ...]}), and answers each with
the exit codes of its ranks. A rank that fails ends the others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def answered(pids: list[int]) -> list[int]:
    """Wait for the ranks; return their exit codes."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid] != 0:
            for other in set(pids) - set(codes):
                os.kill(other, signal.SIGKILL)
    return [codes[pid] for pid in pids]


def become(job: dict[str, Any], environment: dict[str, str]) -> None:
    """Turn a fork into a rank: its variables, its output in the job's log, nothing to read."""
    os.environ.clear()
    os.environ.update(environment)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(target, stream)


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        job, pids = json.loads(line), []
        for environment in job["ranks"]:
            pid = os.fork()
            if pid == 0:
                become(job, environment)
                exec(compile(job["code"], job["log"], "exec"), {"__name__": "__main__"})
                return
            pids.append(pid)
        print(json.dumps(answered(pids)), flush=True)


if __name__ == "__main__":
    import detectors  # noqa: F401  what ranks import, once for all of them
    import tiny  # noqa: F401

    main()
