"""What ranks send each other, as bytes: tensors and plain values alone, so that reading a message can run no code."""

from __future__ import annotations

import io
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from cissod_bench import errors
from cissod_bench.errors import BenchError

K = TypeVar("K", bound=type)
_KINDS: dict[str, type] = {}
_PLAIN = (type(None), bool, int, float, str)


def sendable(kind: K) -> K:
    """Mark a dataclass, whose fields can be sent, as one that ranks may send each other."""
    assert is_dataclass(kind)
    _KINDS[kind.__qualname__] = kind
    return kind


def pack(value: Any) -> bytes:
    """Return a value as bytes.

    Args:
        value: None, a bool, number, text, tensor, array or fault for the user; a list, tuple or dict of such; or a
            `sendable` object.

    Raises:
        TypeError: it holds something else.
    """
    buffer = io.BytesIO()
    torch.save(_packed(value), buffer)
    return buffer.getvalue()


def unpack(data: bytes | bytearray) -> Any:
    """Return what was packed; only tensors and plain values are unpickled.

    Raises:
        pickle.UnpicklingError: the bytes hold something else.
    """
    return _unpacked(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def _packed(value: Any) -> Any:
    """Return a value as pairs (what it is, its content)."""
    if isinstance(value, _PLAIN):
        return ("plain", value)
    if isinstance(value, np.generic):
        return ("plain", value.item())
    if isinstance(value, torch.Tensor):
        return ("tensor", value.detach().cpu())
    if isinstance(value, np.ndarray):
        return ("array", torch.from_numpy(np.array(value, order="C")))  # a copy: it may be read-only
    if isinstance(value, dict):
        return ("dict", [(_packed(key), _packed(own)) for key, own in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [_packed(own) for own in value])
    if isinstance(value, BenchError):
        own = (type(value).__name__, value.message, value.remedy, value.exit_code, value.on_all_ranks)
        return ("fault", [_packed(one) for one in own])
    name = type(value).__qualname__
    if _KINDS.get(name) is not type(value):
        raise TypeError(f"ranks cannot send each other a {name}: {value!r}")
    return (name, [_packed(getattr(value, field.name)) for field in fields(_KINDS[name])])


def _unpacked(message: Any) -> Any:
    kind, content = message
    if kind in ("plain", "tensor"):
        return content
    if kind == "array":
        return content.numpy()
    if kind == "dict":
        return {_unpacked(key): _unpacked(own) for key, own in content}
    made = [_unpacked(own) for own in content]
    if kind == "list":
        return made
    if kind == "tuple":
        return tuple(made)
    return _fault(*made) if kind == "fault" else _KINDS[kind](*made)


def _fault(kind: str, message: str, remedy: str | None, exit_code: int, on_all_ranks: bool) -> BenchError:
    known = getattr(errors, kind, None)
    is_known = isinstance(known, type) and issubclass(known, BenchError)  # one of somebody's own arrives as the general
    fault: BenchError = (known if is_known else BenchError)(message, remedy=remedy)  # type: ignore[misc]
    fault.exit_code, fault.on_all_ranks = exit_code, on_all_ranks
    return fault
