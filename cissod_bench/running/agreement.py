"""The ranks of a run compare what each of them is about to do before any of them begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch

from cissod_bench import __version__, distributed
from cissod_bench.errors import UsageFault
from cissod_bench.running.plan import Plan
from cissod_bench.splitting.data_files import FILES

# What each rank may choose for itself: all else decides a number or when the ranks wait for one another.
OWN_CHOICE = frozenset({"workers", "test_batch"})


def intentions(plan: Plan) -> dict[str, str]:
    """Return what a rank is about to do, as name -> value."""
    settings = {f"setting {name}": value for name, value in asdict(plan.settings).items() if name not in OWN_CHOICE}
    sizes = {}
    for name in FILES:
        file = plan.split / name
        sizes[f"size of the split's {name}"] = file.stat().st_size if file.is_file() else None
    found = {
        "task": plan.task.name,
        "method": plan.method.name,
        "variant": plan.variant,
        "preset": plan.preset,
        "profile": plan.profile,
        "split seed": plan.split_seed,
        "seed": plan.seed,
        "split": plan.split_sha256,
        **sizes,
        **settings,
        "cissod-bench": __version__,
        "torch": torch.__version__,
    }
    return {name: str(value) for name, value in found.items()}


def differences(by_rank: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what not all ranks say alike, a line per name: ``setting theta is 0.9 on rank 0, 0.5 on ranks 1, 2``.

    Args:
        by_rank: `intentions` of every rank.
    """
    lines = []
    for name in dict.fromkeys(name for own in by_rank for name in own):
        holders: dict[str, list[int]] = {}
        for rank, own in enumerate(by_rank):
            holders.setdefault(own.get(name, "missing"), []).append(rank)
        if len(holders) > 1:
            said = (
                f"{value!r} on rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
                for value, ranks in holders.items()
            )
            lines.append(f"{name} is {', '.join(said)}")
    return lines


def check_ranks(plan: Plan) -> None:
    """Refuse a run whose ranks would not do the same; a collective call, and a fault on all ranks.

    Raises:
        UsageFault: names what differs and the ranks.
    """
    check_alike(intentions(plan))


def check_alike(own: Mapping[str, str]) -> None:
    """Refuse a run whose ranks do not say the same; a collective call, and a fault on all ranks.

    Args:
        own: what this rank says, name -> value.

    Raises:
        UsageFault: names what differs and the ranks.
    """
    if not distributed.is_distributed():
        return
    found = differences(distributed.gather_objects(dict(own)))
    if found:
        fault = UsageFault(
            "The processes of this run disagree: " + "; ".join(found) + ".",
            remedy="start all of them with the same command, package, split folder and pretrained backbone",
        )
        fault.on_all_ranks = True
        raise fault
