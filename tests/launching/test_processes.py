"""The ranks of a run as processes: one that dies ends the others and is named; a stop reaches all."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cissod_bench.errors import Interrupted
from cissod_bench.launching.ranks import Ended, Ranks, verdict, without_own_options

HEAD = """
import os, signal, sys, time
from pathlib import Path
rank, folder = int(os.environ["RANK"]), Path({folder!r})
def ready():
    (folder / f"ready{{rank}}").touch()
"""
NOBLE = "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))\nready()\ntime.sleep(60)\n"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready()\ntime.sleep(60)\n"
WAIT = "while not (folder / 'ready0').exists(): time.sleep(0.01)\n"


def started(folder: Path, code: str, processes: int = 2, patience: float = 30.0) -> Ranks:
    ranks = Ranks([sys.executable, "-c", HEAD.format(folder=str(folder)) + code], processes, patience=patience)
    ranks.start()
    return ranks


def ask_when_ready(folder: Path, processes: int, *numbers: int) -> list[int]:
    asked: list[int] = []

    def ask() -> None:
        while len(list(folder.glob("ready*"))) < processes:
            time.sleep(0.01)
        for number in numbers:
            asked.append(number)
            time.sleep(0.2)

    threading.Thread(target=ask, daemon=True).start()
    return asked


def test_every_rank_is_told_who_it_is_and_where_the_first_one_listens(tmp_path: Path) -> None:
    names = "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
    code = f"(folder / str(rank)).write_text(' '.join(os.environ[name] for name in {names}))"
    assert verdict(started(tmp_path, code, 3).wait()) is None
    told = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [one[:4] for one in told] == [[str(rank), str(rank), "3", "127.0.0.1"] for rank in range(3)]
    assert len({one[4] for one in told}) == 1


def test_a_rank_that_is_killed_ends_the_others_at_once_and_is_named(tmp_path: Path) -> None:
    code = f"if rank == 1:\n    {WAIT}    os.kill(os.getpid(), signal.SIGKILL)\n{NOBLE}"
    begun = time.monotonic()
    ended = started(tmp_path, code).wait()
    assert time.monotonic() - begun < 20
    assert [(one.rank, one.code) for one in ended] == [(1, -signal.SIGKILL), (0, 5)]
    fault = verdict(ended)
    assert fault is not None
    assert fault.exit_code == 1
    assert f"Rank 1 (process {ended[0].pid}) was killed by SIGKILL. Did memory run out?" in fault.message
    assert "repeat the same command to continue" in str(fault.remedy)


def test_a_rank_that_does_not_listen_is_killed_after_a_while(tmp_path: Path) -> None:
    code = f"if rank == 1:\n    {WAIT}    sys.exit(3)\n{DEAF}"
    ended = started(tmp_path, code, patience=0.2).wait()
    assert [(one.rank, one.code, one.ours) for one in ended] == [(1, 3, False), (0, -signal.SIGKILL, True)]
    fault = verdict(ended)
    assert fault is not None
    assert (fault.exit_code, fault.message) == (3, "")  # the rank has given its message


def test_a_stop_request_reaches_all_ranks_and_a_second_ctrl_c_kills_them(tmp_path: Path) -> None:
    asked = ask_when_ready(tmp_path, 2, signal.SIGTERM)
    ended = started(tmp_path, NOBLE).wait(asked)
    assert {one.code for one in ended} == {5}
    assert isinstance(verdict(ended), Interrupted)
    for file in tmp_path.iterdir():
        file.unlink()
    asked = ask_when_ready(tmp_path, 2, signal.SIGINT, signal.SIGINT)
    assert {one.code for one in started(tmp_path, DEAF).wait(asked)} == {-signal.SIGKILL}


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        ([(0, 0), (1, 0)], None, ""),
        ([(0, 5), (1, 5)], 5, ""),
        ([(0, 5), (1, 130)], 130, ""),  # the terminal's Ctrl-C met one of them
        ([(1, 5), (0, 4), (2, 5)], 4, ""),  # a full disk on rank 0; the others find it gone
        ([(0, 1), (1, -11)], 1, "Rank 1 (process 101) was killed by SIGSEGV. The other process ended with it."),
        ([(2, -9), (0, 5), (1, 5)], 1, "Did memory run out? The other 2 processes ended with it."),
        ([(0, -15, True), (1, -15, True)], 5, "The run was stopped before it had begun to train."),
    ],
)
def test_the_first_to_fail_by_itself_decides(ended: Sequence[tuple[int, ...]], code: int | None, words: str) -> None:
    fault = verdict([Ended(one[0], 100 + one[0], one[1], *map(bool, one[2:])) for one in ended])
    assert (fault.exit_code if fault else None) == code
    assert words in (fault.message if fault else "")


def test_ranks_are_given_the_same_words_without_those_that_start_them() -> None:
    words = ["run", "--gpus", "2", "--task", "toy", "--launcher=pytorch", "--set", "lr=0.1", "--gpus=4"]
    assert without_own_options(words) == ["run", "--task", "toy", "--set", "lr=0.1"]
