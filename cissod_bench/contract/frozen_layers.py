"""Which settings of the backbone go together: no layer that is random may be frozen."""

from __future__ import annotations

from cissod_bench.contract.settings import Settings
from cissod_bench.errors import UsageFault

FROM_SCRATCH = "--set pretrained= --set norm=gn --set frozen_stages=-1"
"""The changes that train any preset from random weights with no layer frozen."""


def check_frozen_layers(settings: Settings) -> None:
    """Refuse settings of the backbone that do not go together.

    Raises:
        UsageFault: random layers would be frozen, or ``pretrained_kind`` does not fit ``norm``.
    """
    frozen = ["norm=frozen-bn"] * (settings.norm == "frozen-bn")
    frozen += [f"frozen_stages={settings.frozen_stages}"] * (settings.frozen_stages >= 0)
    if frozen and not settings.pretrained:
        raise UsageFault(
            f"Without a pretrained backbone {' and '.join(frozen)} would freeze layers of random weights for the whole "
            "run.",
            remedy=f"train from scratch with {FROM_SCRATCH}, or name a ResNet's weights with --set pretrained=FILE",
        )
    kind, norm = settings.pretrained_kind, settings.norm
    if kind != "auto" and (kind == "scratch") != (norm == "gn"):
        fitting = "norm=gn" if kind == "scratch" else "norm=frozen-bn"
        raise UsageFault(
            f"pretrained_kind={kind} needs {fitting}. Got norm={norm} instead.",
            remedy=f"--set {fitting}, or leave pretrained_kind out: the file tells it",
        )
