"""DeFRCN's prototypical calibration block (PCB): an ImageNet classifier corrects the scores of few-shot classes.

A region is described by the outputs of the classifier at its box; a class's prototype is the mean over its labelled
boxes. At test time score' = alpha score + (1 - alpha) cos(region, prototype of its class). The classifier is an
ImageNet ResNet in torchvision's layout; it is looked for on this machine and never fetched.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cissod_bench.contract.parts import LabelledImage
from cissod_bench.errors import EnvironmentFault

ALPHA = 0.5  # share of the detector's own score (DeFRCN)
FLOOR = 0.05  # detections above it are calibrated (DeFRCN)
STRIDE = 32  # pixels per cell of the classifier's last feature map
VARIABLE = "CISSOD_PCB_WEIGHTS"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # red, green, blue of torchvision's classifiers
# Blocks in each of the four stages, and whether they are bottlenecks -> depth.
_DEPTHS: Mapping[tuple[tuple[int, ...], bool], int] = MappingProxyType({
    ((2, 2, 2, 2), False): 18, ((3, 4, 6, 3), False): 34, ((3, 4, 6, 3), True): 50, ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
})  # fmt: skip
_REMEDY = (
    f"put torchvision's resnet101-*.pth into torch's hub folder (checkpoints), name a file in the variable {VARIABLE}, "
    "or run defrcn without --variant pcb"
)


def calibrated(scores: Tensor, labels: Tensor, cosines: Tensor, classes: Tensor, alpha: float = ALPHA) -> Tensor:
    """Return alpha score + (1 - alpha) cos, at least 0, of the detections that are calibrated, shape (M,).

    Args:
        scores: in [0, 1], shape (M,).
        labels: channels, int64, shape (M,).
        cosines: of every detection's region with the prototype of its class, in [-1, 1], shape (M,).
        classes: which classes are calibrated, bool, shape (n,); detections of others, and those at or below `FLOOR`,
            keep their score.
        alpha: in [0, 1].
    """
    chosen = classes[labels] & (scores > FLOOR)
    return torch.where(chosen, (alpha * scores + (1 - alpha) * cosines).clamp(min=0), scores)


def weights_file() -> Path:
    """Return the classifier's file: what `VARIABLE` names, else torchvision's ResNet-101 in torch's cache.

    Raises:
        EnvironmentFault: there is none.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        if not Path(named).is_file():
            raise EnvironmentFault(f"{VARIABLE} names {named}, which is no file.", remedy=_REMEDY)
        return Path(named)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    cached = sorted(cache.glob("resnet101-*.pth"))
    if not cached:
        raise EnvironmentFault(
            "Variant pcb of defrcn needs an ImageNet ResNet-101 with its classifier. "
            f"{VARIABLE} is not set and {cache} has no resnet101-*.pth.",
            remedy=_REMEDY,
        )
    return cached[-1]


class RegionClassifier:
    """An ImageNet classifier that describes boxes of an image by its outputs. Not a module: it is no method's state.

    Args:
        path: torchvision's file of a ResNet.

    Attributes:
        sha256: of the file.

    Raises:
        EnvironmentFault: the file cannot be read or is no such network.
    """

    def __init__(self, path: Path) -> None:
        self.sha256 = sha256(path.read_bytes()).hexdigest()
        weights = _read(path)
        self.classifier = {name: weights.pop(f"fc.{name}").float() for name in ("weight", "bias")}
        self.backbone = _backbone(path, weights)

    @torch.no_grad()
    def describe(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Return the outputs for boxes of an image, float32, shape (M, outputs).

        Args:
            image: blue, green, red, uint8, shape (3, H, W).
            boxes: xyxy in its pixels, shape (M, 4); the result is on their device.
        """
        from mmcv.ops import roi_align

        device = boxes.device
        self.backbone.to(device)
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
        with torch.autocast(device.type, enabled=False):  # prototypes and regions alike, in full precision
            pixels = (image.to(device).flip(0).float() - mean) / std
            features = self.backbone(pixels[None])[-1]
            rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1).float()
            pooled = roi_align(features, rois, (1, 1), 1 / STRIDE, 0, "avg", True).flatten(1)
            return F.linear(pooled, self.classifier["weight"].to(device), self.classifier["bias"].to(device))


def prototypes(
    classifier: RegionClassifier, images: Iterable[LabelledImage], classes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the mean description of every class's boxes, shape (n, outputs), and which classes have one, shape (n,).

    Args:
        classifier: describes the boxes.
        images: labelled ones.
        classes: n.
        device: where to compute.
    """
    outputs = len(classifier.classifier["bias"])
    total, number = torch.zeros(classes, outputs, device=device), torch.zeros(classes, device=device)
    for one in images:
        labels = one.labels.to(device)
        total.index_add_(0, labels, classifier.describe(one.image, one.boxes.to(device)))
        number += torch.bincount(labels, minlength=classes)
    return total / number.clamp(min=1)[:, None], number > 0


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no such thing makes torch raise
        raise EnvironmentFault(f"{path} cannot be read as weights ({type(error).__name__}).", remedy=_REMEDY) from None
    if not isinstance(weights, dict) or not {"conv1.weight", "fc.weight", "fc.bias"} <= weights.keys():
        raise EnvironmentFault(
            f"{path} is no classifier in torchvision's layout: conv1.weight, fc.weight or fc.bias is missing.",
            remedy=_REMEDY,
        )
    return dict(weights)


def _backbone(path: Path, weights: Mapping[str, Tensor]) -> Any:
    """Return mmdet's ResNet with these weights, in evaluation mode."""
    from mmdet.models import ResNet

    stages = Counter(
        name.split(".")[0] for name in weights if name.startswith("layer") and name.endswith(".conv1.weight")
    )
    blocks = tuple(stages[f"layer{stage}"] for stage in (1, 2, 3, 4))
    depth = _DEPTHS.get((blocks, "layer1.0.conv3.weight" in weights))
    if depth is None:
        raise EnvironmentFault(f"{path} is no ResNet that is known here: it has {blocks} blocks.", remedy=_REMEDY)
    width = len(weights["conv1.weight"])
    backbone = ResNet(depth, stem_channels=width, base_channels=width, out_indices=(3,), style="pytorch")
    try:
        missing, unknown = backbone.load_state_dict(dict(weights), strict=False)
    except RuntimeError:
        missing, unknown = ["a tensor of another shape"], []
    wrong = [*(name for name in missing if not name.endswith("num_batches_tracked")), *unknown]
    if wrong:
        raise EnvironmentFault(f"{path} does not fit a ResNet-{depth}: {_some(wrong)}.", remedy=_REMEDY)
    backbone.eval()
    return backbone.requires_grad_(False)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
