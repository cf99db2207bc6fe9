"""What ranks send each other: the same on arrival, and nothing that could run code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Bomb, same
from ranks import two_processes

from cissod_bench.contract.parts import Promoted
from cissod_bench.contract.pool import EMPTY, Pool, pool_of
from cissod_bench.errors import BenchError, DataFault, UsageFault
from cissod_bench.messages import pack, unpack
from cissod_bench.training.judging import Looks


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Pool | Promoted | Looks):
        return type(one) is type(other) and equal(vars(one), vars(other))
    if isinstance(one, BenchError):
        return type(one) is type(other) and str(one) == str(other) and one.exit_code == other.exit_code
    if isinstance(one, np.ndarray | torch.Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def read_only() -> np.ndarray[Any, Any]:
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2.5, "w\u00f6rter", [], {}, (), [1, (2, None)], {"a": {1: [0.5]}}, {(1, "b"): 2},
        np.int64(4), np.zeros((0, 4), np.float32), read_only(), np.array([True]), {0: np.ones(3, np.int32)},
        torch.arange(3), {"images": 3, "counts": torch.ones(2, 2, dtype=torch.float64)},
        [(3, DataFault("broken", remedy="mend it"))], UsageFault("no"),
        EMPTY, pool_of([4], [7], [[(0, 0.75)]]), [pool_of([1, 2], [3, 3], [[], [(1, 0.5)]])],
        Promoted(np.zeros(1, np.int64), np.zeros((1, 4), np.float32), np.ones(1, np.int64), np.array([False])),
        [Looks(np.array([5]), np.array([0]), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0))],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_message_arrives_as_it_was_sent(value: Any) -> None:
    assert equal(value.item() if isinstance(value, np.generic) else value, unpack(pack(value)))


def test_an_object_that_nobody_declared_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="ranks cannot send each other a Bomb"):
        pack({"deep": [Bomb(tmp_path / "exploded")]})


def test_a_hostile_message_runs_no_code(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(("list", [Bomb(tmp_path / "exploded")]), buffer)
    with pytest.raises(pickle.UnpicklingError):
        unpack(buffer.getvalue())
    assert not (tmp_path / "exploded").exists()


BOTH = """
import sys, numpy, torch
from pathlib import Path
from cissod_bench.errors import BenchError, DataFault
from collections import OrderedDict
from cissod_bench import distributed
from cissod_bench.training import sending
distributed._PIECE, sending.LEAST_BYTES = 1000, 100
distributed.start(torch.device("cpu"))
rank = distributed.rank()
def refused():
    assert rank == 0
    raise DataFault("broken", remedy="mend it")
try:
    distributed.from_first(refused)
except BenchError as error:
    fault = [type(error).__name__, str(error), error.on_all_ranks]
weights = OrderedDict(a=torch.arange(720.0).view(2, 3, 10, 12).to(memory_format=torch.channels_last), b=torch.ones(3))
weights._metadata = {{"": {{"version": 2}}}}
whole = {{"weights": weights, "rest": [torch.arange(500) > 250, ("x", torch.zeros(2, 0), 3)], "step": torch.tensor(7)}}
there = sending.sent(whole if rank == 0 else {{}})
state = {{
    "there": there, "strides": there["weights"]["a"].stride(), "metadata": there["weights"]._metadata,
    "fault": fault,
    "made": distributed.from_first(lambda: {{"rank": rank}}),
    "sent": distributed.broadcast([rank, {{"x": numpy.arange(3) + rank}}])[0],
    "long": bytes(distributed.broadcast_bytes(bytes(range(256)) * 40 if rank == 0 else b"?")).hex(),
    "none": len(distributed.broadcast_bytes(b"")),
    "all": distributed.gather_objects({{"rank": rank, "words": "x" * (1 + 5000 * rank)}}),
}}
torch.save(state, Path({folder!r}) / f"rank{{rank}}.pth")
distributed.stop()
"""


def test_two_ranks_share_values_bytes_tensors_and_a_fault_of_the_first(tmp_path: Path) -> None:
    one, other = two_processes(BOTH, tmp_path)
    assert one["strides"] == (360, 1, 36, 3)
    assert one["there"]["weights"]["a"].sum() == 719 * 360
    assert (one["there"]["rest"][0].sum(), one["there"]["step"]) == (249, 7)
    assert same(one.pop("there"), other.pop("there"))
    assert one == other
    assert one["metadata"] == {"": {"version": 2}}
    assert one["fault"] == ["DataFault", "broken\n  -> mend it", True]
    assert one["made"] == {"rank": 0}
    assert (one["sent"], one["none"], len(one["long"])) == (0, 0, 2 * 256 * 40)
    assert [own["rank"] for own in one["all"]] == [0, 1]
    assert [len(own["words"]) for own in one["all"]] == [1, 5001]
