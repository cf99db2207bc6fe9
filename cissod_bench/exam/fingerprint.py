"""Everything an object holds, as a dictionary of hashes: two states are equal bit by bit if theirs are."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Fingerprint: TypeAlias = dict[str, str]
"""Where a value lies ("teacher.backbone.conv1.weight", "copies[1]") -> its type and hash or text."""

_OPAQUE = (FunctionType, MethodType, ModuleType, type)


def _hash(kind: str, data: bytes) -> str:
    return f"{kind} {hashlib.sha256(data).hexdigest()[:16]}"


def _of_tensor(value: Tensor) -> str:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return _hash(f"{value.dtype} {tuple(value.shape)}", flat.view(torch.uint8).numpy().tobytes())


def _of_array(value: np.ndarray[Any, Any]) -> str:
    data = repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
    return _hash(f"{value.dtype} {value.shape}", data)


def _members(value: Any) -> dict[str, Any] | None:
    """Return the named parts of a container or object, None where it is a value itself."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": one for key, one in value.items()}
    if isinstance(value, (list, tuple, deque)):
        return {"": len(value), **{f"[{place}]": one for place, one in enumerate(value)}}
    if isinstance(value, nn.Module):
        own = {**value._parameters, **value._buffers, **value._modules}
        plain = {name: one for name, one in vars(value).items() if not name.startswith("_") or name not in _TORCHS_OWN}
        return {f".{name}": one for name, one in {**plain, **own}.items()}
    if hasattr(value, "__dict__") and not isinstance(value, _OPAQUE):
        return {f".{name}": one for name, one in vars(value).items()}
    return None


_TORCHS_OWN = frozenset(vars(nn.Module()))  # hooks and switches


def _leaf(value: Any) -> str | None:
    """Return the text of a value without parts, None where it has parts."""
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, (int, float, complex, str, bytes, type(None), np.generic)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__} {sorted(map(repr, value))}"
    if isinstance(value, np.random.Generator):
        return f"generator {value.bit_generator.state!r}"
    if isinstance(value, torch.Generator):
        return _of_tensor(value.get_state())
    return _hash("generator", repr(value.getstate()).encode()) if isinstance(value, random.Random) else None


def fingerprint(value: Any, place: str = "") -> Fingerprint:
    """Return the hashes of everything that a value holds: tensors, arrays, numbers, containers, objects within objects.

    Functions, classes and modules hold nothing here. An object that is met twice is looked at once.

    Args:
        value: any object.
        place: what its parts' names begin with.
    """
    found: Fingerprint = {}
    waiting, seen = [(place, value)], set[int]()
    while waiting:
        at, one = waiting.pop()
        text = _leaf(one)
        if text is not None:
            found[at] = text
            continue
        members = None if id(one) in seen else _members(one)
        seen.add(id(one))
        waiting += [(f"{at}{name}".lstrip("."), part) for name, part in (members or {}).items()]
    return found


def buffers_of(module: nn.Module) -> Fingerprint:
    """Return the hashes of a module's buffers, those that are not saved too, and parameters."""
    return fingerprint({**dict(module.named_buffers()), **dict(module.named_parameters())})


def different(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Return the names of what is not the same, in alphabetical order."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def some(names: list[str]) -> str:
    """Return the first of some names and how many more there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
