"""Who is left of a run once one of its ranks is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from ranks import run_processes

from cissod_bench import distributed
from cissod_bench.distributed import Roll
from cissod_bench.errors import PeerLost
from cissod_bench.launching.ranks import free_port, rank_environment


class Gone(dist.HashStore):
    """A store that has gone with the machine that held it."""

    def set(self, *words: object) -> None:
        raise RuntimeError("Connection reset by peer")

    check = set


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Roll]]:
    """Four ranks, two on each of two machines, of which the last one is gone."""
    monkeypatch.setattr(distributed, "_LOOKS", 0.02)
    monkeypatch.setattr(distributed, "_ROLL_CALL", 0.3)
    store = dist.HashStore()
    rolls = [Roll(store, number, 4) for number in range(4)]
    for number in range(4):
        store.set(f"machine{number}", f"gpu0{number // 2 + 1}")
    for roll in rolls:
        roll.machines = [f"gpu0{number // 2 + 1}" for number in range(4)]
        monkeypatch.setattr(distributed.socket, "gethostname", lambda roll=roll: roll.machines[roll.rank])
        roll.begin()
    rolls[3].end()
    yield rolls
    for roll in rolls:
        roll.end()


def test_the_ranks_that_do_not_answer_are_named_with_their_machines(four: list[Roll]) -> None:
    assert four[0].gone() == [3]
    assert four[2].gone() == [3]  # the roll may be called more than once
    assert four[0].named([3]) == "rank 3 on gpu02"
    assert four[0].named([1, 2, 3]) == "rank 1 on gpu01; ranks 2, 3 on gpu02"


def test_where_the_store_is_gone_the_machine_of_rank_0_is(four: list[Roll]) -> None:
    four[2].store = Gone()
    assert four[2].gone() == [0, 1]
    four[0].gone()  # another rank has called the roll before the store went
    for roll in four[:2]:
        while not roll._heard:
            time.sleep(0.01)
    four[1].store = Gone()
    assert four[1].gone() == []


def test_of_two_ranks_the_other_one_is_gone_and_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(distributed, "_joined", [Roll(dist.HashStore(), 0, 2, ["gpu01", "gpu02"])])
    words = "another process of this run is gone: rank 1 on gpu02"
    with pytest.raises(PeerLost, match=words) as fault, distributed.watched_peers():
        raise RuntimeError("Connection closed by peer [10.0.0.2]:38402")
    assert "the same command continues" in str(fault.value.remedy)


THREE = """
import os
from pathlib import Path
import torch
from cissod_bench import distributed
from cissod_bench.errors import PeerLost

distributed.start(torch.device("cpu"))
distributed.barrier()
rank = distributed.rank()
if rank == 2:
    os._exit(0)
try:
    with distributed.watched_peers():
        while True:
            distributed.all_reduce_sum(torch.ones(1))
except PeerLost as fault:
    Path({folder!r}, f"{{rank}}").write_text(fault.message)
os._exit(0)
"""


def test_three_processes_find_out_which_of_them_is_gone(tmp_path: Path) -> None:
    port = free_port()
    run_processes(THREE.format(folder=str(tmp_path)), tmp_path, [rank_environment(rank, 3, port) for rank in range(3)])
    lost = f"another process of this run is gone: rank 2 on {os.uname().nodename} ("
    assert (tmp_path / "0").read_text().startswith(lost)
    assert (tmp_path / "1").read_text().startswith("another process of this run is gone")


def test_a_rank_ends_when_its_torchrun_is_gone() -> None:
    rank = "from cissod_bench.signals import follow_agent; follow_agent(0.05); print('up', flush=True); input()"
    agent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"
    words, streams = [sys.executable, "-c", agent], dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(words, text=True, env={**os.environ, "RANK": "3"}, **streams) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGKILL)
        assert "The torchrun that started rank 3 is gone" in process.stderr.read()  # to its end: nobody is left
