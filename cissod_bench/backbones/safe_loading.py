"""Files of weights are read without running anything that they hold."""

from __future__ import annotations

import importlib
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cissod_bench.errors import DataFault


def load_safely(path: Path, another: str, again: bool = False) -> Any:
    """Return a file's content: tensors and plain values, nothing that could run code.

    Args:
        path: the file.
        another: the remedy that names another file.
        again: it is a copy in the cache, which would be fetched again.

    Raises:
        DataFault: it holds anything else, or is damaged.
    """
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if not zipfile.is_zipfile(path) and not named:
            raise DataFault(f"{path} is not a file of torch.save, or is damaged.", remedy=another) from error
        holds = f" ({named[1]})" if named else ""
        raise DataFault(
            f"{path} holds more than tensors and plain values{holds}, which is not loaded: it could run code.",
            remedy=f"if you trust the file, keep its weights alone: {_command_to_strip(path)}",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        words = str(error).partition("\n")[0]
        reason = f"{type(error).__name__}{f': {words}' if words else ''}; it is not a file of torch.save, or is damaged"
        remedy = f"delete it, so that it is fetched again, or {another}" if again else another
        raise DataFault(f"{path} cannot be read as weights: {reason}.", remedy=remedy) from error


def _command_to_strip(path: Path) -> str:
    code = (
        f"import torch; s = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        "torch.save(s.get('state_dict', s.get('model', s)), 'weights.pth')"
    )
    return f'python -c "{code}", then --set pretrained=weights.pth'


def _harmless() -> list[Any]:
    """Return what training logs in checkpoints of mmengine are made of: arrays and numbers of NumPy."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    core = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    pairs = [
        (getattr(core, name), f"numpy.{folder}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for folder in ("_core", "core")
    ]
    kinds = {type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "bool")}
    stubs = [(_nothing, f"{module}.getattr") for module in ("builtins", "__builtin__")]  # a log names its methods
    return [*pairs, *kinds, *stubs, np.ndarray, np.dtype, HistoryBuffer]


def _nothing(*_: Any) -> None:
    """Stand in for what a file wants to call."""


def flat_tensors(content: Any, before: str = "", levels: int = 3) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested mappings with dotted keys.

    Args:
        content: of a file; what is no mapping yields nothing.
        before: begin of every key.
        levels: of mappings below the first that are entered.
    """
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        name = f"{before}{key}"
        if isinstance(value, Tensor):
            yield name, value
        elif levels:
            yield from flat_tensors(value, f"{name}.", levels - 1)
