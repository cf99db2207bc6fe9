"""Which settings of the backbone go together: no layer that is random may be frozen."""

from __future__ import annotations

from cissod_bench.contract.settings import Settings
from cissod_bench.errors import UsageFault

FROM_SCRATCH = "--set backbone=resnet --set pretrained= --set norm=gn --set frozen_stages=-1"
"""The changes that train any preset from random weights with no layer frozen."""


def check_frozen_layers(settings: Settings) -> None:
    """Refuse settings of the backbone that do not go together.

    Raises:
        UsageFault: random layers would be frozen, ``pretrained_kind`` does not fit ``norm``, or ``backbone`` is none.
    """
    _check_name(settings)
    frozen = ["norm=frozen-bn"] * (settings.norm == "frozen-bn")
    frozen += [f"frozen_stages={settings.frozen_stages}"] * (settings.frozen_stages >= 0)
    if frozen and not settings.pretrained:
        raise UsageFault(
            f"Without a pretrained backbone {' and '.join(frozen)} would freeze layers of random weights for the whole "
            "run.",
            remedy=f"train from scratch with {FROM_SCRATCH}, or name a ResNet's weights with --set pretrained=FILE",
        )
    if settings.timm_name:
        _check_timm(settings)
    kind, norm = settings.pretrained_kind, settings.norm
    if kind != "auto" and (kind == "scratch") != (norm == "gn"):
        fitting = "norm=gn" if kind == "scratch" else "norm=frozen-bn"
        raise UsageFault(
            f"pretrained_kind={kind} needs {fitting}. Got norm={norm} instead.",
            remedy=f"--set {fitting}, or leave pretrained_kind out: the file tells it",
        )


def _check_name(settings: Settings) -> None:
    """Refuse a backbone that is neither a ResNet nor one of timm."""
    if settings.backbone != "resnet" and not settings.timm_name:
        raise UsageFault(
            f"Setting 'backbone' must be resnet or timm:NAME. Got {settings.backbone!r} instead.",
            remedy="--set backbone=resnet, or --set backbone=timm:tf_efficientnet_lite0",
        )


def _check_timm(settings: Settings) -> None:
    """Refuse what a network of timm has not: other norms than its own, random weights, a kind to be told."""
    needed = {
        "norm=frozen-bn": settings.norm == "frozen-bn",
        "pretrained=FILE": bool(settings.pretrained),
        "pretrained_kind=auto": settings.pretrained_kind == "auto",
    }
    if lacking := [change for change, fits in needed.items() if not fits]:
        raise UsageFault(
            f"A backbone of timm is a pretrained one, whose norms are not trained. backbone={settings.backbone} needs "
            f"{' and '.join(lacking)}.",
            remedy=f"--set {' --set '.join(lacking)}, or take a ResNet: {FROM_SCRATCH}",
        )
