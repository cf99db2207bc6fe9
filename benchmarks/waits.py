"""Count what would make a GPU be waited for, on any device: numbers read by the host, and results of unknown size.

A part of the benchmarks and of the tests; nothing to run. On a GPU itself torch tells by
``torch.cuda.set_sync_debug_mode``; here every operation is looked at before it runs, so a CPU tells, too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::equal", "aten::bincount", "aten::_linalg_check_errors",
}  # fmt: skip
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_READ = {Tensor.tolist: "tolist", Tensor.cpu: "cpu", Tensor.numpy: "numpy"}
_LIBRARIES = ("mmdet", "mmcv", "mmengine")


class Waits:
    """Counts, as a context: (who asks, what for) -> how often.

    Who asks is "mmdet" for it and its sister libraries and "ours" for everything else, by the innermost frame.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.places: Counter[str] = Counter()
        self._modes = _Operations(self), _Functions(self)

    def __enter__(self) -> Waits:
        """Begin to count."""
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        """End."""
        for mode in reversed(self._modes):
            mode.__exit__(*reason)

    def of(self, who: str) -> int:
        """Return how often "ours" or "mmdet" made a GPU wait."""
        return sum(number for (asking, _), number in self.counts.items() if asking == who)

    def note(self, what: str) -> None:
        """Count one."""
        who, place = _asking()
        if place.startswith("detector/cpu_operators.py"):  # never on a GPU
            return
        self.counts[who, what] += 1
        self.places[f"{place} {what}"] += 1


class _Operations(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = func._schema.name
        masks = name in _INDEXED and any(_is_mask(index) for index in args[1])
        if masks and len(args) > 2 and args[2].numel() == 1:
            masks = False  # torch fills
        if name in _WAITING or masks:
            self._waits.note(f"{name.removeprefix('aten::')} by mask" if masks else name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Reading of many numbers at once, which is no operation on a CPU."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func in _READ:
            self._waits.note(_READ[func])
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}


def _asking() -> tuple[str, str]:
    """Return who asks and where, by the innermost frame that is not torch's or this module's."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (frame.f_code.co_filename == __file__ or "/torch/" in frame.f_code.co_filename):
        frame = frame.f_back
    file = frame.f_code.co_filename
    who = "mmdet" if any(f"/{library}/" in file for library in _LIBRARIES) else "ours"
    return who, f"{'/'.join(file.rsplit('/', 2)[1:])}:{frame.f_lineno}"
