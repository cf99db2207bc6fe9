"""A backbone by one word of the command line, as the settings that it means together."""

from __future__ import annotations

from cissod_bench.backbones.packaged import PACKAGED, SCHEME
from cissod_bench.errors import UsageFault, unknown_name

RESNETS = {
    "resnet18": "torchvision://resnet18",
    "resnet34": "torchvision://resnet34",
    "resnet50": "open-mmlab://detectron2/resnet50_caffe",
    "resnet101": "open-mmlab://detectron2/resnet101_caffe",
}
"""ResNet of mmdet -> weights that mmengine fetches where no file is named."""


def named_backbone(text: str) -> tuple[str, ...]:
    """Return changes of settings, ``key=value``, for a backbone; none for "".

    Norms are those of pretrained weights, which are not trained. How the backbone sees images, the order of the
    channels, mean and deviation, follows from its weights (``pretrained_kind``) or from timm.

    Args:
        text: ``resnet50``, ``timm:NAME``, each with ``=FILE`` behind it for weights of a file.

    Raises:
        UsageFault: there is no such ResNet, or no weights are known for a network of timm.
    """
    if not text:
        return ()
    name, _, file = text.partition("=")
    scheme, _, network = name.partition(":")
    if scheme == "timm" and network:
        return f"backbone={name}", f"pretrained={file or _of_package(network)}", "norm=frozen-bn"
    if name not in RESNETS:
        raise unknown_name("backbone", name, [*RESNETS, "timm:NAME"], remedy="--backbone resnet50, or timm:NAME=FILE")
    depth = name.removeprefix("resnet")
    weights = file or RESNETS[name]
    return "backbone=resnet", f"depth={depth}", "base_channels=64", f"pretrained={weights}", "norm=frozen-bn"


def _of_package(network: str) -> str:
    """Return the weights of a network of timm that a package brings."""
    known = [name for name, own in PACKAGED.items() if own.model == network]
    if not known:
        raise UsageFault(
            f"No package brings weights of timm's {network}, and --backbone names no file of them.",
            remedy=f"--backbone timm:{network}=FILE; timm's own weights are on its authors' site",
        )
    return f"{SCHEME}:{known[0]}"
