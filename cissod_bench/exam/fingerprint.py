"""Everything an object holds, as a dictionary of hashes: two states are equal bit by bit if theirs are.

`watch` notes the numbers of every step of a training, and takes fingerprints around the box branch.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from cissod_bench.detector.two_models import RoIs
from cissod_bench.training.loop import Training

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
        return {f"[{key!r}]": part for key, part in value.items()}
    if isinstance(value, (list, tuple, deque)):
        return {"": len(value), **{f"[{place}]": part for place, part in enumerate(value)}}
    if isinstance(value, nn.Module):
        registered = {**value._parameters, **value._buffers, **value._modules}
        torchs_own = {name for name in vars(value) if name.startswith("_") and name in _TORCHS_OWN}
        plain = {name: part for name, part in vars(value).items() if name not in torchs_own}
        return {f".{name}": part for name, part in {**plain, **registered}.items()}
    if hasattr(value, "__dict__") and not isinstance(value, _OPAQUE):
        return {f".{name}": part for name, part in vars(value).items()}
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
    hashes: Fingerprint = {}
    waiting, seen = [(place, value)], set[int]()
    while waiting:
        at, part = waiting.pop()
        text = _leaf(part)
        if text is not None:
            hashes[at] = text
            continue
        members = None if id(part) in seen else _members(part)
        seen.add(id(part))
        waiting += [(f"{at}{name}".lstrip("."), member) for name, member in (members or {}).items()]
    return hashes


def buffers_of(module: nn.Module) -> Fingerprint:
    """Return the hashes of a module's buffers, those that are not saved too, and parameters."""
    return fingerprint({**dict(module.named_buffers()), **dict(module.named_parameters())})


def different(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Return the names of what is not the same, in alphabetical order."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def some(names: list[str]) -> str:
    """Return the first of some names and how many more there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


@dataclass
class Watched:
    """What was seen of a training.

    Attributes:
        training: where it stands.
        lines: losses and the method's numbers of every step.
        touched: what of the parts changed in the box branch, by name.
        batch: of the last step.
    """

    training: Training
    lines: list[dict[str, float]] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    batch: dict[str, Any] = field(default_factory=dict)

    def state(self) -> Fingerprint:
        """Return the hashes of student, teacher, parts, what the parts add to a checkpoint, copies and promoted."""
        detector, place, extra = self.training.detector, self.training.position, dict[str, Any]()
        detector.parts.before_save_checkpoint(extra)
        modules = {name: getattr(detector, name).state_dict() for name in ("student", "teacher", "parts")}
        held = {f"{module}.{name}": value for module, state in modules.items() for name, value in state.items()}
        held |= {"checkpoint extra": extra, "copies": place.copies, "promoted": place.promoted}
        return {name: text for key, value in held.items() for name, text in fingerprint(value, key).items()}


def watch(training: Training) -> Watched:
    """Watch a training from now on; the numbers it computes stay the same."""
    seen, detector = Watched(training), training.detector
    step, box_loss = training.step, detector.unsupervised_box_loss

    def watched_step(batch: dict[str, Any], iteration: int) -> dict[str, Any]:
        line = step(batch, iteration)
        seen.lines.append({name: float(value) for name, value in line.items()})
        seen.batch = batch
        return line

    def watched_box_loss(regressed: RoIs) -> Tensor:
        before = fingerprint(detector.parts)
        loss = box_loss(regressed)
        seen.touched += different(before, fingerprint(detector.parts))
        return loss

    training.step = watched_step  # type: ignore[method-assign]
    detector.unsupervised_box_loss = watched_box_loss  # type: ignore[method-assign]
    return seen


def run(seen: Watched, until: int | None = None) -> Watched:
    """Train on, to the end or until an iteration, and return what was watched."""
    seen.training.run(until)
    return seen
