"""What to do next on this machine: the preset that suits it, and how long the toy league takes here.

Hours are those of one measured run (docs/costs.md), scaled by one short measurement: a convolution on one core.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from cissod_bench import extras
from cissod_bench.doctor import GIB, usable_cores

A_TOY_RUN = 202
"""Seconds of one run of preset ``mini`` on one idle core; its record lies in benchmarks/records."""
LEAGUE_RUNS = 107
"""Runs of the toy leagues below results."""
EXAMPLE_RUNS = 14
"""Runs of ``examples/league.toml``, on drawn shapes."""
PROBE_SECONDS = 0.0084
"""What `probe` gives on the machine of that run, an AMD EPYC."""
A_RUN = 1.5 * GIB
"""Memory of one toy training with its loader, bytes."""
PAPER_GPUS = 8
A_FULL_RUN = 8 * GIB
"""Memory of a card below which preset ``full`` is not sensible: twice the 4.1 GB that ``run --dry-run`` derives for one
process, because crowded images take more; not measured."""


@dataclass(frozen=True)
class Machine:
    """What advice depends on.

    Attributes:
        cores: that may be used at once.
        memory: of the machine, bytes.
        cards: name and memory in bytes of every GPU that torch sees.
        slowness: how many times as long one core takes as one of that run's machine; None: not measured.
        trains: whether what trains is installed.
    """

    cores: int
    memory: int
    cards: tuple[tuple[str, int], ...] = ()
    slowness: float | None = None
    trains: bool = True


def probe() -> float:
    """Return the least seconds of one core for a convolution of 64 channels, out of twelve tries (0.1 s in all)."""
    import torch

    threads = torch.get_num_threads()
    images, weights = torch.ones(2, 64, 64, 64), torch.ones(64, 64, 3, 3)
    spent = []
    try:
        torch.set_num_threads(1)
        for _ in range(12):
            begun = time.thread_time()
            torch.nn.functional.conv2d(images, weights, padding=1).relu_()
            spent.append(time.thread_time() - begun)
    finally:
        torch.set_num_threads(threads)
    return min(spent)


def machine_here() -> Machine:
    """Look at this machine; imports torch where it is installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if extras.missing():
        return Machine(usable_cores(), memory, trains=False)
    import torch

    properties = [torch.cuda.get_device_properties(card) for card in range(torch.cuda.device_count())]
    cards = tuple((card.name, card.total_memory) for card in properties)
    return Machine(usable_cores(), memory, cards, probe() / PROBE_SECONDS)


def advice(machine: Machine) -> list[str]:
    """Return what to do next, a line each, most useful first."""
    if not machine.trains:
        return ["cissod-bench make-splits --task toy, evaluate and report: for training add what the line above says"]
    lines = ["cissod-bench demo: splits, two trainings and a table" + _takes(2, 1, machine)]
    workers = _workers(machine)
    some, everything = (_takes(runs, workers, machine) for runs in (EXAMPLE_RUNS, LEAGUE_RUNS))
    league = f"{EXAMPLE_RUNS} runs on the toy task{some}; all {LEAGUE_RUNS} of the toy leagues{everything}"
    more = f"; a worker is this command, started {workers} times" if workers > 1 else ""
    return [*lines, f"cissod-bench sweep --queue examples/league.toml: {league}{more}", _full(machine.cards)]


def _workers(machine: Machine) -> int:
    """Return how many toy trainings run beside each other: one a core, as many as the memory holds."""
    return max(1, min(machine.cores, int(machine.memory // A_RUN)))


def _takes(runs: int, workers: int, machine: Machine) -> str:
    if machine.slowness is None:
        return ""
    hours = runs * A_TOY_RUN / 3600 * machine.slowness / workers
    spent = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    return f", about {spent}" + (f" with {workers} workers" if workers > 1 else "")


def _full(cards: tuple[tuple[str, int], ...]) -> str:
    """Return what to say about preset ``full``, the paper's scale."""
    fit = [name for name, memory in cards if memory >= A_FULL_RUN]
    if not fit:
        why = "no GPU is seen" if not cards else f"{cards[0][0]} has {cards[0][1] / GIB:.0f} GiB"
        return f"preset full, the paper's scale, is not for this machine ({why}): presets mini and photo are"
    launch = f" --gpus {len(fit)} --launcher pytorch" if len(fit) > 1 else ""
    command = f"cissod-bench run --task coco-split1 --method soft-teacher{launch} --dry-run"
    few = "" if len(fit) >= PAPER_GPUS else f"; the paper has {PAPER_GPUS} GPUs, batch and learning rate follow yours"
    return f"preset full: {command} says what it takes on {len(fit)} x {fit[0]}{few}"
