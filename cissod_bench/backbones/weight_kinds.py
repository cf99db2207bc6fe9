"""How a pretrained ResNet sees images, told apart from the file that holds it.

Two families of weights have the same keys and shapes and other everything else. "caffe": blue, green, red, mean
103.53, 116.28, 123.675, deviation 1, stride in the first 1 x 1 convolution of a stage. "torchvision": red, green, blue,
ImageNet's mean and deviation, stride in the 3 x 3 convolution. Loaded the wrong way either gives features that are
merely worse, so a file whose family cannot be told is refused.

What tells them apart: what the file says of itself (settings that mmdet stores, our own checkpoints); its name; batch
norms whose statistics were folded into scale and shift, which only conversions from Caffe have; and the gain of the
stem, which is some 58 times larger for images of deviation 1 than for plain pixels. What nothing in the numbers tells:
the order of the channels and where the stride lies; both follow from the family.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cissod_bench.backbones.looks import LOOKS, Kind

State: TypeAlias = Mapping[str, Tensor]

EPSILON = 1e-5  # of the batch norms
LARGEST_OF_PIXELS, LEAST_OF_NORMALISED = 0.04, 0.12
"""Median gain of the stem's filters. Trained batch norms give an output of some tenths; a filter that answers a natural
image with about its own norm times the image's deviation has a gain of some tenths for a deviation of 1 and of some
thousandths for one of 58. Between the two limits nothing is said."""


@dataclass(frozen=True)
class Cue:
    """One thing that speaks for a kind.

    Attributes:
        kind: what it speaks for.
        words: what was seen, e.g. "its name says caffe".
        folded: batch norms without statistics, which outweigh the stem's gain.
        gain: the stem's gain.
    """

    kind: Kind
    words: str
    folded: bool = False
    gain: bool = False


def is_trained(state: State) -> bool:
    """Return whether the norms of a backbone have ever been trained: a fresh one scales by 0 or 1 and shifts by 0."""
    weights = [value for name, value in state.items() if _norm_part(name) == "weight"]
    shifts = [value for name, value in state.items() if _norm_part(name) == "bias"]
    means = [value for name, value in state.items() if _norm_part(name) == "running_mean"]
    fresh = all(bool(((w == 0) | (w == 1)).all()) for w in weights)
    return not (fresh and not any(bool(value.any()) for value in (*shifts, *means)))


def _norm_part(name: str) -> str:
    """Return "weight", "bias", "running_mean" or "running_var" of a norm's key, "" of any other."""
    match = re.search(r"(?:^|\.)(?:bn\d|gn\d|downsample\.1)\.(\w+)$", name)
    return match.group(1) if match else ""


def is_folded(state: State) -> bool:
    """Return whether all batch statistics are mean 0 and variance 1: they are part of scale and shift, as in Caffe."""
    means = [value for name, value in state.items() if _norm_part(name) == "running_mean"]
    variances = [value for name, value in state.items() if _norm_part(name) == "running_var"]
    return (
        bool(variances)
        and not any(bool(value.any()) for value in means)
        and all(bool(((value - 1).abs() <= 1e-4).all()) for value in variances)  # some converters write 1 - 1e-5
    )


def stem_gain(state: State) -> float:
    """Return the median over the stem's filters of |scale| / sqrt(variance) x norm of the filter.

    Args:
        state: of a backbone with batch norms.
    """
    scale = state["bn1.weight"].abs() / (state["bn1.running_var"] + EPSILON).sqrt()
    return float((scale * state["conv1.weight"].flatten(1).norm(dim=1)).median())


def cues(state: State, named: str, said: Mapping[str, Any]) -> list[Cue]:
    """Return everything in a file that speaks for a kind.

    Args:
        state: of the backbone, float32, keys as mmdet's.
        named: the file's name without its folder, or its name in a hub.
        said: what the file says of itself besides weights ("meta" of mmdet, "identity" of our checkpoints).
    """
    found = [*_said(said, scratch="gn1.weight" in state), *_named(named)]
    if "bn1.running_var" not in state:
        return found
    if is_folded(state):
        words = "its batch norms hold no statistics (mean 0, variance 1), as after a conversion from Caffe"
        found.append(Cue("caffe", words, folded=True))
    gain = stem_gain(state)
    if gain < LARGEST_OF_PIXELS:
        found.append(Cue("caffe", f"the stem's gain of {gain:.2g} is made for plain pixels", gain=True))
    elif gain > LEAST_OF_NORMALISED:
        found.append(Cue("torchvision", f"the stem's gain of {gain:.2g} is made for images of deviation 1", gain=True))
    return found


def _said(said: Mapping[str, Any], scratch: bool) -> Iterable[Cue]:
    identity, meta = said.get("identity"), said.get("meta")
    if isinstance(identity, Mapping):
        first = str(identity.get("pretrained backbone", "scratch" if scratch else "")).split(" ")[0]
        yield from (Cue(kind, "it is a checkpoint of cissod-bench") for kind in LOOKS if kind == first)
    text = " ".join(str(meta.get(key, "")) for key in ("cfg", "config")) if isinstance(meta, Mapping) else ""
    style = re.search(r"""style['"]?\s*[=:]\s*['"](caffe|pytorch)['"]""", text)
    rgb = re.search(r"""(?:bgr_to_rgb|to_rgb)['"]?\s*[=:]\s*(True|False)""", text)
    if style:
        yield Cue("caffe" if style[1] == "caffe" else "torchvision", f"its settings say style {style[1]}")
    if rgb:
        yield Cue("torchvision" if rgb[1] == "True" else "caffe", f"its settings say {rgb[0]}")


def _named(named: str) -> Iterable[Cue]:
    name = named.lower()
    if "caffe" in name or "msra" in name:
        yield Cue("caffe", f"its name {named} says caffe")
    if "torchvision" in name or name.startswith("modelzoo://") or re.fullmatch(r"resnet\d+-[0-9a-f]{8}\.pth", name):
        yield Cue("torchvision", f"its name {named} is torchvision's")


def decided(found: Sequence[Cue]) -> tuple[Kind | None, str]:
    """Return the kind that the cues agree on, and why; None where they do not, or where there are none.

    The gain of the stem is a matter of degree: it counts where nothing contradicts it, and against folded batch norms
    it does not count.
    """
    counted = [cue for cue in found if not (cue.gain and any(other.folded for other in found))]
    words = "; ".join(cue.words for cue in counted)
    if len({cue.kind for cue in counted}) == 1:
        return counted[0].kind, words
    return None, words or "neither its name nor its numbers tell"


def all_finite(state: State) -> bool:
    """Return whether no weight is infinite or not a number."""
    return all(bool(torch.isfinite(value).all()) for value in state.values())
