"""Two gloo processes on this machine, for tests of what ranks must agree on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from cissod_bench.launching.ranks import Ranks

PATIENCE = 240  # seconds until ranks that wait for each other say where they wait and are ended
HEAD = f"import faulthandler\nfaulthandler.dump_traceback_later({PATIENCE}, exit=True)\n"


def two_processes(code: str, folder: Path, **values: Any) -> list[dict[str, Any]]:
    """Run a script on two ranks (gloo) and return what each saved; if one fails, the other is ended, too.

    The script may import what lies in this folder; ``{folder!r}`` in it and the names of ``values`` are filled in.
    """
    code = code.format(folder=str(folder), **values)
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ranks = Ranks([sys.executable, "-c", HEAD + code], 2, {"OMP_NUM_THREADS": "1", "PYTHONPATH": places})
    ranks.start()
    assert [one.code for one in ranks.wait()] == [0, 0]
    return [torch.load(folder / f"rank{r}.pth", weights_only=True) for r in (0, 1)]
