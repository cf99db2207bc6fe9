"""How a split is drawn: the options of ``make-splits`` and their ranges."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from cissod_bench.declared import Declared, declared, documented
from cissod_bench.errors import UsageFault

Cover: TypeAlias = Literal["uniform", "useful"]
DmMinority: TypeAlias = Literal["drop", "ignore"]
Percent = Annotated[float, Meta(gt=0, le=100)]
Instances = Annotated[int, Meta(ge=1)]


@documented
@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How a split is drawn (Sec. 4.1 of the paper); every field is an option of ``make-splits``."""

    split_seed: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="seed of the draw; the same seed gives the same bytes")
    ] = 0
    cover: Annotated[
        Cover | None,
        Meta(
            description="how D_s is selected: uniform takes every visited image until all minority classes have enough "
            "boxes, useful skips an image that holds no class still short of them"
        ),
    ] = None
    labelled_percent: Annotated[
        Percent,
        Meta(
            description="share of the images with a majority box that enters D_m; without a minority, share of the "
            "images with a box that enters D_l"
        ),
    ] = 10.0
    min_instances: Annotated[
        Instances,
        Meta(description="boxes every minority class has in D_s at least; without a minority, every class in D_l"),
    ] = 10
    minority: Annotated[
        tuple[str, ...] | None, Meta(description="names of the minority classes; None takes the task's own")
    ] = None
    dm_minority: Annotated[
        DmMinority,
        Meta(description="minority boxes of D_m: left out, or kept as ignore regions (iscrowd 1)"),
    ] = "drop"
    unlabelled_percent: Annotated[
        Percent, Meta(description="share of the images outside D_l that enters D_u; the others are in no part")
    ] = 100.0


DRAW_OPTIONS: Mapping[str, Declared] = types.MappingProxyType(declared(DrawOptions))
"""Name -> what `DrawOptions` declares of it."""


def check_options(options: DrawOptions) -> None:
    """Refuse options out of their ranges.

    Raises:
        UsageFault: one is; the message names the option.
    """
    for name, field in DRAW_OPTIONS.items():
        value = getattr(options, name)
        if field.misfits(value):
            usual = "useful" if field.default is None else field.default
            message = f"{option_name(name)} must be {field.range}. Got {value}."
            raise UsageFault(message, remedy=f"as usual: {option_name(name)} {usual}")


def option_name(name: str) -> str:
    """Return what a field of `DrawOptions` is called on the command line."""
    return f"--{name.replace('_', '-')}"
