"""Weights of a timm backbone: from a package or a file, read safely, loaded whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from cissod_bench.backbones.looks import Kind, Look
from cissod_bench.backbones.packaged import packaged
from cissod_bench.backbones.safe_loading import flat_tensors, load_safely
from cissod_bench.backbones.timm_networks import network, timm
from cissod_bench.backbones.weight_files import fetched, origin_of
from cissod_bench.errors import DataFault

ANOTHER_FILE = "name a file of this network's weights with --set pretrained=FILE"
# How efficientnet_pytorch calls the layers of a block, by what timm calls them where the block expands its channels
# and where it does not.
_EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OUTSIDE = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip


@dataclass(frozen=True)
class TimmWeights:
    """The weights of a timm backbone, which fit it.

    Attributes:
        model: timm's name of the network.
        path: the file.
        state: key of the network -> tensor on the CPU.
        sha256: of the file.
        look: how it sees images.
    """

    model: str
    path: Path
    state: dict[str, Tensor]
    sha256: str
    look: Look
    kind: ClassVar[Kind] = "timm"

    def record(self) -> dict[str, Any]:
        """Return what run.json says of it."""
        return {
            "file": str(self.path), "part": "", "sha256": self.sha256, "depth": None, "kind": self.kind,
            "why": f"it is timm's {self.model}", "words": f"{self.model} of timm ({self.look.words})",
        }  # fmt: skip


def timm_look(name: str, named: str) -> Look:
    """Return how a timm backbone sees images: as the package of its weights says, or as timm does.

    Args:
        name: timm's.
        named: its weights, as the setting ``pretrained``.

    Raises:
        EnvironmentFault: timm is not installed.
    """
    if (known := packaged(named)) is not None:
        return known.look
    config = timm().get_pretrained_cfg(name)
    mean, deviation = (tuple(255.0 * float(share) for share in values) for values in (config.mean, config.std))
    words = f"red first, mean {mean[0]:.4g}, {mean[1]:.4g}, {mean[2]:.4g}"
    return Look("pytorch", True, (mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2]), words)


def timm_weights(name: str, strides: Sequence[int], named: str) -> TimmWeights:
    """Return the weights of a timm backbone.

    Args:
        name: timm's.
        strides: of the features that are taken, pixels.
        named: as the setting ``pretrained``.

    Raises:
        UsageFault: timm has no such network, or no package such weights.
        EnvironmentFault: timm, the package or the file is not there.
        DataFault: the file does not hold the network's weights.
    """
    origin = origin_of(named)
    path = fetched(origin)
    held = dict(flat_tensors(load_safely(path, ANOTHER_FILE, again=bool(origin.address))))
    state = _of_network(network(name, strides), _in_timms_names(held), path, name)
    return TimmWeights(name, path, state, sha256(path.read_bytes()).hexdigest(), timm_look(name, named))


def _in_timms_names(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an EfficientNet of efficientnet_pytorch as timm names them but for the blocks' numbers.

    There blocks are numbered through; here "blocks.#3" is the fourth, which `_of_network` puts into its stage. Other
    weights are returned as they are.
    """
    if "_conv_stem.weight" not in held:
        return dict(held)
    renamed = {}
    for name, value in held.items():
        layer, _, rest = name.partition(".")
        if match := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name):
            own = _EXPANDING if f"_blocks.{match[1]}._expand_conv.weight" in held else _PLAIN
            name = f"blocks.#{match[1]}.{own.get(match[2], match[2])}.{match[3]}"
        else:
            name = f"{_OUTSIDE.get(layer, layer)}.{rest}"
        renamed[name] = value
    return renamed


def _of_network(net: nn.Module, held: Mapping[str, Tensor], path: Path, name: str) -> dict[str, Tensor]:
    """Return the file's weights under the network's keys, all of them.

    Raises:
        DataFault: one is missing, of another shape or not finite.
    """
    wanted = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    blocks = list(dict.fromkeys(match[0] for key in wanted if (match := re.match(r"blocks\.\d+\.\d+(?=\.)", key))))
    number = {block: f"blocks.#{place}" for place, block in enumerate(blocks)}
    before = _before(held, next(iter(wanted)))
    found = {}
    for key in wanted:
        block = re.match(r"blocks\.\d+\.\d+", key)
        numbered = number[block[0]] + key[block.end() :] if block and block[0] in number else key
        unflattened = re.sub(r"^([a-z]\w*)_(\d+)\.", r"\1.\2.", key)  # timm flattens "stages.0" of some networks
        for candidate in (before + key, numbered, before + unflattened):
            if candidate in held:
                found[key] = held[candidate].float()
                break
    wrong = [key for key in wanted if key not in found or found[key].shape != wanted[key].shape]
    wrong += [key for key in found if not bool(found[key].isfinite().all())]
    if wrong:
        shown = f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}"
        raise DataFault(
            f"{path} does not hold timm's {name}: of its {len(wanted)} weights {len(wrong)} are missing, of another "
            f"shape or not finite ({shown}).",
            remedy=ANOTHER_FILE,
        )
    return found


def _before(held: Mapping[str, Tensor], first: str) -> str:
    """Return what stands before the network's keys in a file; a teacher's go before its student's."""
    ends = [key[: -len(first)] for key in held if key == first or key.endswith(f".{first}")]
    return min(ends, key=lambda part: ("student" in part, len(part)), default="")


def load_timm(net: nn.Module, weights: TimmWeights) -> None:
    """Put weights into a network.

    Args:
        net: as `network` returns it for the same strides.
        weights: as `timm_weights` returns them.
    """
    counters = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    net.load_state_dict({**weights.state, **counters})
