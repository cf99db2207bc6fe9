"""Time ``cissod-bench --help``: a fresh process each time, the median of 20 (wanted: at most 0.15 s).

Run it with the environment's Python: ``.venv/bin/python benchmarks/help_time.py [repeats]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

WANTED = 0.15  # seconds


def seconds(command: list[str]) -> float:
    """Return the wall time of one call of a command, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main(repeats: int) -> None:
    """Print the median, least and greatest time of ``--help``, beside those of an interpreter that does nothing."""
    program = str(Path(sys.executable).with_name("cissod-bench"))
    calls = {"python -c pass": [sys.executable, "-c", "pass"], "cissod-bench --help": [program, "--help"]}
    for title, command in calls.items():
        seconds(command)  # the first call fills the file cache and writes the byte code
        times = sorted(seconds(command) for _ in range(repeats))
        print(f"{title}: median {statistics.median(times):.3f} s, {times[0]:.3f}-{times[-1]:.3f} s in {repeats} calls")
    print(f"wanted: <= {WANTED} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
