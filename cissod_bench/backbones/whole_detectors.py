"""A trained detector as the start of another: neck, RPN and box head of a file, classes by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cissod_bench.backbones.safe_loading import flat_tensors, load_safely
from cissod_bench.backbones.weight_files import fetched, origin_of
from cissod_bench.errors import DataFault
from cissod_bench.quiet import quiet_imports

ANOTHER_FILE = (
    "name a checkpoint of mmdet's Faster R-CNN with the settings' backbone with --set pretrained=FILE, or "
    "--set pretrained_part=backbone to take no more than that"
)
_MARK = "rpn_head.rpn_conv.weight"
_SHARED = re.compile(r"neck\.|rpn_head\.rpn_|roi_head\.bbox_head\.shared_fcs\.")
_HEAD = "roi_head.bbox_head."
_COCO_CLASSES = 80


@dataclass(frozen=True)
class WholeDetector:
    """A detector as a file holds it.

    Attributes:
        path: the file.
        state: key as mmdet's Faster R-CNN has it -> float32 on the CPU; a teacher's goes before its student's.
        classes: names in channel order; empty where the file does not say them.
    """

    path: Path
    state: Mapping[str, Tensor]
    classes: tuple[str, ...]


def read_detector(named: str) -> WholeDetector:
    """Return the detector of a file.

    A file of 80 classes that it does not name is taken to be of MS-COCO.

    Args:
        named: as the setting `pretrained`.

    Raises:
        EnvironmentFault: the file can neither be read nor fetched.
        DataFault: it holds no Faster R-CNN of mmdet, or what is not loaded for safety.
    """
    origin = origin_of(named)
    path = fetched(origin)
    content = load_safely(path, ANOTHER_FILE, again=bool(origin.address))
    tensors = dict(flat_tensors(content))
    parts = [key[: -len(_MARK)] for key in tensors if key == _MARK or key.endswith(f".{_MARK}")]
    if not parts:
        raise DataFault(
            f"{path} holds no detector: no key ends in {_MARK!r} ({len(tensors)} tensors).", remedy=ANOTHER_FILE
        )
    part = min(parts, key=lambda own: ("student" in own, own.startswith("ema_state_dict."), len(own)))
    state = {key[len(part) :]: value.float() for key, value in tensors.items() if key.startswith(part)}
    return WholeDetector(path, state, _classes(content, state))


def _classes(content: Any, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    channels = len(state.get(f"{_HEAD}fc_cls.weight", [])) - 1
    meta = content.get("meta") if isinstance(content, Mapping) else None
    said = meta if isinstance(meta, Mapping) else {}
    for place in (said.get("dataset_meta"), said):
        for key in ("classes", "CLASSES"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, list | tuple) and len(names) == channels:
                return tuple(map(str, names))
    if channels != _COCO_CLASSES:
        return ()
    with quiet_imports():
        from mmdet.evaluation import get_classes
    return tuple(get_classes("coco"))


def plain_name(name: str) -> str:
    """Return a class's name as names are compared: letters and digits alone, small ones."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@torch.no_grad()
def begin_from(model: Any, held: WholeDetector, classes: Sequence[str]) -> tuple[str, ...]:
    """Put a detector's weights into another but for its backbone, and return the names of the classes it knew.

    Classifier and box regressor get the rows of classes of the same name and of the background; those of other classes
    stay as they are. Layers that a method has added stay, too.

    Args:
        model: mmdet's Faster R-CNN.
        held: what is put into it.
        classes: names of the model's in channel order.

    Raises:
        DataFault: neck, RPN or the shared layers of the box head are not the model's.
    """
    own = dict(model.state_dict())
    shared = [key for key in own if _SHARED.match(key)]
    wrong = [key for key in shared if key not in held.state or held.state[key].shape != own[key].shape]
    if wrong:
        shown = f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}"
        raise DataFault(
            f"{held.path} is not the detector of the settings: {len(wrong)} of its {len(shared)} weights beside the "
            f"backbone are missing or of another shape ({shown}).",
            remedy=ANOTHER_FILE,
        )
    for key in shared:
        own[key].copy_(held.state[key])
    places = {plain_name(name): place for place, name in enumerate(held.classes)}
    known = {row: places[plain_name(name)] for row, name in enumerate(classes) if plain_name(name) in places}
    _copy_rows(own, held, known, len(classes))
    return tuple(classes[row] for row in known)


def _copy_rows(own: Mapping[str, Tensor], held: WholeDetector, known: Mapping[int, int], number: int) -> None:
    """Copy the rows of some classes, row of the model -> row of the file, and of the background."""
    layers = (("fc_cls", 1, {**known, number: len(held.classes)} if held.classes else {}), ("fc_reg", 4, known))
    for layer, values, rows in layers:
        for part in ("weight", "bias"):
            key = f"{_HEAD}{layer}.{part}"
            if key not in own or key not in held.state:
                continue
            target, source = (side[key].reshape(-1, values, *side[key].shape[1:]) for side in (own, held.state))
            if layer == "fc_reg" and 1 in (len(target), len(source)):  # one regressor for all classes, here or there
                if len(source) == 1:
                    target.copy_(source.expand_as(target))
                continue
            for row, place in rows.items():
                target[row].copy_(source[place])
