"""The work of a timed step, the same on every side, and the loop in which a process of a side does it when asked.

Of our program this file uses settings, hashes and made images alone, so that a process of mmdet's own that imports it
holds nothing of ours that could make it faster.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np
import torch
from torch import Tensor

from cissod_bench.contract.changes import with_changes
from cissod_bench.contract.presets import preset
from cissod_bench.contract.settings import Settings
from cissod_bench.files.hashing import mix
from cissod_bench.running.made_images import made_view

Batch: TypeAlias = dict[str, list[dict[str, Any]]]
Step: TypeAlias = Callable[[Batch, int], Tensor]
"""Does a step on a batch as the iteration of that number; returns the loss."""

ITERATIONS, FIRST = 100_000, 50_000  # far behind every warm-up
BOXES = 5  # of a labelled image


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """What every side is to do.

    Attributes:
        preset: whose detector and images.
        changes: ``key=value`` changes of its settings.
        classes: foreground classes.
        device: "cpu" or "cuda".
        threads: of torch.
        thresholds: setting -> value that leaves a random teacher its share of pseudo labels.
        stock: whether one side is mmdet's own, whose operators know no bf16 on a CPU.
    """

    preset: str
    changes: tuple[str, ...]
    classes: int
    device: str
    threads: int
    thresholds: dict[str, float] = {}
    stock: bool = False

    def departures(self) -> tuple[str, ...]:
        """Return the changes that the device forces upon all sides: what one of them cannot do there, none does."""
        chosen = with_changes(preset(self.preset, task_iterations=ITERATIONS), self.changes)
        unable = {"fp16", "bf16"} if self.stock else {"fp16"}
        return ("amp=off",) if self.device == "cpu" and chosen.amp in unable else ()

    def settings(self) -> Settings:
        """Return the preset's settings without what would change the work from step to step, and with departures."""
        changes = (*self.changes, *self.departures())
        chosen = with_changes(preset(self.preset, task_iterations=ITERATIONS), changes)
        fixed = {"iterations": ITERATIONS, "generations": 10, "unsup_start": 0.0, "lr": 1e-12, "warmup_iterations": 0}
        # Weights are random on all sides, and the teacher has as many proposals as mmdet's.
        return replace(chosen, **{"pretrained": "", "teacher_proposals": "test", **fixed, **self.thresholds})


def size_of(settings: Settings) -> tuple[int, int]:
    """Return (height, width) of the preset's largest images."""
    return min(settings.short_side[1], settings.long_side * 3 // 5), settings.long_side


def draw_view(rng: np.random.Generator, settings: Settings, classes: int, number: int, boxes: int = 0) -> Any:
    """Return a random image at the preset's largest size, as the transforms pack it."""
    return made_view(rng, size_of(settings), classes, number, boxes)


def draw_batch(seed: int, settings: Settings, classes: int) -> Batch:
    """Return labelled images, and weak and strong views of unlabelled ones."""
    rng = np.random.default_rng(seed)
    numbers = range(settings.unlabelled_per_gpu)
    return {
        "sup": [draw_view(rng, settings, classes, number, BOXES) for number in range(settings.labelled_per_gpu)],
        "weak": [draw_view(rng, settings, classes, number) for number in numbers],
        "strong": [draw_view(rng, settings, classes, number) for number in numbers],
    }


def most_memory() -> float:
    """Return the most memory this process has held, MiB. Not ``ru_maxrss``, which begins with the parent's."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(step: Step, batch: Batch, iteration: int, device: torch.device) -> dict[str, float]:
    """Do a step from the random state that `Training.step` gives it; return its loss and seconds of each kind."""
    torch.manual_seed(int(mix(0, 0xC3, iteration, 0)[0] >> 1))
    if device.type == "cuda":
        torch.cuda.synchronize()
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    loss = step(batch, iteration)
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {"loss": float(loss), "wall": clock, "user": user, "system": system}


def serve(make: Callable[[Settings, Work, Path], Step], folder: Path, pipe: int) -> None:
    """Be a side: build, then do the step whose number each line of standard input names; at its end tell the memory.

    Args:
        make: builds the side's model; (settings, work, folder) -> its step.
        folder: holds ``work.json`` and the weights.
        pipe: number of the open file that answers go to; libraries print to the others.
    """
    answers = os.fdopen(pipe, "w", encoding="utf-8", buffering=1)
    work = msgspec.json.decode((folder / "work.json").read_bytes(), type=Work)
    torch.set_num_threads(work.threads)
    settings, device, before = work.settings(), torch.device(work.device), most_memory()
    step = make(settings, work, folder)
    drawn = lru_cache(1)(lambda number: draw_batch(number, settings, work.classes))
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        number = int(line)
        print(json.dumps(timed(step, drawn(number), FIRST + number, device)), file=answers)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else most_memory()
    print(json.dumps({"peak": peak, "before": 0.0 if device.type == "cuda" else before}), file=answers)
