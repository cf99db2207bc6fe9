"""A process leaves its group, lives on, and may join the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import two_processes

RUNS = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from cissod_bench import distributed
cpu = torch.device("cpu")
sums = []
for run in range(12):
    distributed.start(cpu)
    model = DistributedDataParallel(torch.nn.Linear(4, 4))
    model(torch.ones(2, 4)).sum().backward()
    total = torch.full((3,), float(run + distributed.rank()))
    dist.all_reduce(total)
    sums.append(float(total[0]))
    distributed.stop()
    del model
    del total
torch.save({{"sums": sums}}, os.path.join({folder!r}, f"rank{{os.environ['RANK']}}.pth"))
"""

LEAVES = """
import os, time, torch
from cissod_bench import distributed
distributed._HELD = 0.2
distributed.start(torch.device("cpu"))
distributed.barrier()
begun, rank = time.monotonic(), distributed.rank()
reason = ""
if rank == 0:
    try:
        distributed.barrier()
    except RuntimeError as error:
        reason = str(error)
else:
    distributed.stop()
    time.sleep(3)
torch.save({{"seconds": time.monotonic() - begun, "reason": reason}}, os.path.join({folder!r}, f"rank{{rank}}.pth"))
"""


@pytest.mark.slow
def test_models_may_outlive_their_group_and_a_process_may_join_another(tmp_path: Path) -> None:
    one, other = two_processes(RUNS, tmp_path)
    assert one["sums"] == other["sums"] == list(range(1, 25, 2))


def test_a_process_that_leaves_and_lives_on_is_missed_by_the_others(tmp_path: Path) -> None:
    one, other = two_processes(LEAVES, tmp_path)
    assert "onnection" in one["reason"]
    assert one["seconds"] < other["seconds"]  # not only at the end of the one that left
