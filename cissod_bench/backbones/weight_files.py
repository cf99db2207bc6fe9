"""From the name of a pretrained backbone to a file on this machine: files, addresses, names of model hubs.

No torch at import: the doctor looks here, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock

from cissod_bench.backbones.packaged import packaged, packaged_file
from cissod_bench.contract.frozen_layers import FROM_SCRATCH
from cissod_bench.errors import EnvironmentFault
from cissod_bench.files.whole_files import write_bytes
from cissod_bench.quiet import quiet_imports

SECONDS = 30  # without a byte from the other side


@dataclass(frozen=True)
class Origin:
    """Where the weights of a name come from and where they lie.

    Attributes:
        named: as the setting names them.
        address: of the file in the network; "" for a file that was named itself.
        path: the file on this machine; with an address the place where it is kept once it is fetched.
    """

    named: str
    address: str
    path: Path


def cache_folder() -> Path:
    """Return the folder where fetched weights are kept: torch's own, so that other programs share them."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def origin_of(named: str) -> Origin:
    """Return where the weights of a name come from.

    Args:
        named: a file, an ``https://`` address, a name of a hub that mmengine knows (``open-mmlab://NAME``,
            ``torchvision://NAME``), or ``package:NAME``.

    Raises:
        EnvironmentFault: no hub has the name, or its package is not installed.
        UsageFault: no package is known for the name.
    """
    if (known := packaged(named)) is not None:
        return Origin(named, "", packaged_file(known))
    scheme, separator, rest = named.partition("://")
    if not separator:
        return Origin(named, "", Path(named).expanduser())
    address = named if scheme in {"http", "https"} else _address_in_hub(named, scheme, rest)
    return Origin(named, address, cache_folder() / PurePosixPath(urlsplit(address).path).name)


def _address_in_hub(named: str, scheme: str, name: str) -> str:
    known = _hub(scheme)
    if name in known:
        return known[name]
    reason = (
        f"no model of that name is known ({len(known)} are)" if known else f"{scheme}:// is no hub that can be read"
    )
    raise _unreachable(Origin(named, "", Path(named)), reason)


def _hub(scheme: str) -> Mapping[str, str]:
    """Return name -> address of a hub; empty for one that is not known or whose package is not installed."""
    with quiet_imports():
        from mmengine.runner import checkpoint
    try:
        if scheme in {"open-mmlab", "openmmlab"}:
            models = checkpoint.get_external_models()
            renamed = {old: new for old, new in checkpoint.get_deprecated_model_names().items() if new in models}
            return {**models, **{old: models[new] for old, new in renamed.items()}}
        if scheme in {"torchvision", "modelzoo"}:
            return dict(checkpoint.get_torchvision_models())
    except ImportError:
        pass
    return {}


def require_named_file(named: str) -> None:
    """Refuse weights that are named by a file, or by a package, that is not here; an address is not asked.

    Args:
        named: the setting ``pretrained``; "" is fine.

    Raises:
        EnvironmentFault: as `fetched` has it.
    """
    if named and "://" not in named:
        fetched(origin_of(named))


def fetched(origin: Origin) -> Path:
    """Return the file, which is fetched first if it is not here.

    Raises:
        EnvironmentFault: it can neither be read nor fetched; the remedy says how to do without.
    """
    if origin.path.is_file():
        return origin.path
    if not origin.address:
        raise _unreachable(origin, "there is no such file" if not origin.path.exists() else "it is no file")
    try:
        origin.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(origin.path.with_name(f".{origin.path.name}.lock")):  # one rank of a machine fetches it for all
            if not origin.path.is_file():
                write_bytes(origin.path, _fetch(origin.address))
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(origin, str(error) or type(error).__name__) from error
    except EnvironmentFault as fault:  # its remedy would speak of the work folder
        raise _unreachable(origin, f"{fault.message.rstrip('.')} (TORCH_HOME names another place)") from fault
    return origin.path


def _fetch(address: str) -> bytes:
    with urlopen(Request(address, headers={"User-Agent": "cissod-bench"}), timeout=SECONDS) as answer:
        content: bytes = answer.read()
        length = answer.headers.get("Content-Length")
    if length is not None and len(content) != int(length):
        raise OSError(f"{len(content)} of {length} bytes arrived")
    return content


def _unreachable(origin: Origin, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"The pretrained backbone {origin.named!r} cannot be read or fetched: {reason}.", remedy=ways_out(origin)
    )


def ways_out(origin: Origin) -> str:
    """Return what to do where the file cannot be had."""
    by_hand = f"fetch {origin.address} elsewhere and copy it to {origin.path}, or " if origin.address else ""
    return (
        f"{by_hand}name a file of a ResNet with --set pretrained=FILE, or train from scratch, no layer frozen: "
        f"{FROM_SCRATCH}"
    )
