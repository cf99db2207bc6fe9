"""How a split is drawn: the options of ``make-splits`` and their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cissod_bench.errors import UsageFault

Cover: TypeAlias = Literal["uniform", "useful"]


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How a split is drawn (Sec. 4.1 of the paper); every field is an option of ``make-splits``.

    Attributes:
        split_seed: the draw's seed, >= 0. The same seed gives the same bytes.
        cover: how D_s is selected. "uniform" takes every visited image until all minority classes have enough boxes;
            "useful" skips an image that holds no class still short of them.
        labelled_percent: share of the images with a majority box that enters D_m, in (0, 100]; without a minority, the
            share of the images with a box that enters D_l.
        min_instances: boxes every minority class has in D_s at least, >= 1; without a minority, every class in D_l.
        minority: names of the minority classes; None takes the task's own.
        dm_minority: "drop" leaves the minority boxes of D_m out, "ignore" keeps them as ignore regions (iscrowd 1).
        unlabelled_percent: share of the images outside D_l that enters D_u, in (0, 100]; the others are in no part.
    """

    split_seed: int = 0
    cover: Cover | None = None
    labelled_percent: float = 10.0
    min_instances: int = 10
    minority: tuple[str, ...] | None = None
    dm_minority: Literal["drop", "ignore"] = "drop"
    unlabelled_percent: float = 100.0


def check_options(options: DrawOptions) -> None:
    """Refuse options out of their ranges.

    Raises:
        UsageFault: one is; the message names the option.
    """
    rules = (
        ("--split-seed", options.split_seed, 0 <= options.split_seed < 2**63, "must be a whole number >= 0"),
        (
            "--labelled-percent",
            options.labelled_percent,
            0 < options.labelled_percent <= 100,
            "must be above 0 and at most 100",
        ),
        ("--min-instances", options.min_instances, options.min_instances >= 1, "must be at least 1"),
        (
            "--unlabelled-percent",
            options.unlabelled_percent,
            0 < options.unlabelled_percent <= 100,
            "must be above 0 and at most 100",
        ),
        ("--cover", options.cover, options.cover in (None, "uniform", "useful"), "must be uniform or useful"),
        ("--dm-minority", options.dm_minority, options.dm_minority in ("drop", "ignore"), "must be drop or ignore"),
    )
    for option, value, good, rule in rules:
        if not good:
            usual = getattr(DrawOptions(), option.strip("-").replace("-", "_"))
            shown = "useful" if usual is None else usual
            raise UsageFault(f"{option} {rule}. Got {value}.", remedy=f"as usual: {option} {shown}")
