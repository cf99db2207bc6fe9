"""How much one iteration computes and keeps in memory, by torch's own counter of operations.

Two ways. *Counted*: a real iteration of the real detector on made images. *Derived*: the same layers on torch's "meta"
device, where a tensor has a shape and no content, so that nothing is computed: for images of full size it takes a
second on any machine. Derived numbers take as many RoIs as the settings allow, and leave out what depends on content:
RoIAlign, NMS, the jittered copies of pseudo labels, a method's further losses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cissod_bench.contract.parts import Context
from cissod_bench.contract.settings import Settings
from cissod_bench.detector.precision import mixed
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector

Way: TypeAlias = Literal["counted", "derived"]
Images: TypeAlias = tuple[int, int]
"""Labelled and unlabelled images of an iteration and process."""

_DIVISOR = 32  # of the sides of a batch, as the detector's preprocessor pads it


@dataclass(frozen=True)
class IterationWork:
    """What one iteration takes on each process.

    Attributes:
        flops: floating-point operations, forward and backward; a multiplication and an addition are two.
        labelled_flops: the same of an iteration that draws no unlabelled image.
        memory: bytes: on a GPU the most that torch held; else the models, the optimiser's state and what is kept for
            the backward pass, in float32.
        way: how it is known.
        device: of a counted one, "cpu" or "cuda".
    """

    flops: int
    labelled_flops: int
    memory: int
    way: Way
    device: str = ""


@dataclass(frozen=True)
class _Part:
    """FLOPs and bytes kept for the backward pass of a part of an iteration."""

    flops: int = 0
    kept: int = 0

    def __add__(self, other: _Part) -> _Part:
        return _Part(self.flops + other.flops, self.kept + other.kept)


class _Kept:
    """The bytes of all storages that a graph keeps, each once."""

    def __init__(self, without: Iterable[Tensor] = ()) -> None:
        self._others = {_storage(tensor) for tensor in without}
        self._sizes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is kept; its return keeps the storage alive, so that no other has its number."""
        if (number := _storage(tensor)) not in self._others:
            self._sizes[number] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes so far."""
        return sum(self._sizes.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # on "meta" all data pointers are 0


@contextmanager
def _watched(model: nn.Module) -> Iterator[tuple[FlopCounterMode, _Kept]]:
    """Count what the block computes, and what it keeps beside the model's weights."""
    kept = _Kept([*model.parameters(), *model.buffers()])
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        yield counter, kept


def state_bytes(detector: SemiSupervisedDetector, settings: Settings) -> tuple[int, int]:
    """Return the bytes of a checkpoint, and of weights, gradients and the optimiser's state in memory.

    Args:
        detector: student, teacher and parts.
        settings: which optimiser.
    """
    learns = sum(_bytes(p) for p in detector.student.parameters() if p.requires_grad)
    optimiser = learns * {"sgd": 1, "adamw": 2}[settings.optimiser]
    # Each model's own: weights that both share stand twice in the file and once in the memory.
    saved = sum(_bytes(value) for module in _saved(detector) for value in module.state_dict().values())
    held = {_storage(value): _bytes(value) for value in (*detector.parameters(), *detector.buffers())}
    return saved + optimiser, sum(held.values()) + learns + optimiser


def _saved(detector: SemiSupervisedDetector) -> tuple[nn.Module, ...]:
    return detector.student, detector.teacher, detector.parts


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def counted(
    detector: SemiSupervisedDetector, batch: Mapping[str, list[Any]], context: Context, device: torch.device
) -> IterationWork:
    """Do one iteration without the optimiser's step and count it.

    Args:
        detector: on its device; its state is not as before afterwards.
        batch: views of made images, under "sup", "weak" and "strong".
        context: of an iteration in which unlabelled images are drawn.
        device: the detector's.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    on_gpu = device.type == "cuda"
    _, held = state_bytes(detector, detector.settings)
    labelled = _pass(detector, {"sup": batch["sup"]}, context, device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    whole = _pass(detector, batch, context, device) if batch.get("weak") else labelled
    memory = held + whole.kept
    if on_gpu:  # the optimiser's state is made by its first step, which is not done here
        learns = sum(_bytes(p) for p in detector.student.parameters() if p.requires_grad)
        memory = torch.cuda.max_memory_allocated(device) + learns * {"sgd": 1, "adamw": 2}[detector.settings.optimiser]
    return IterationWork(whole.flops, labelled.flops, memory, "counted", device.type)


def _pass(
    detector: SemiSupervisedDetector, batch: Mapping[str, list[Any]], context: Context, device: torch.device
) -> _Part:
    with _watched(detector) as (counter, kept):
        with mixed(detector.settings.amp, device):
            losses = detector(copy.deepcopy(dict(batch)), context)
        torch.autograd.backward(torch.stack([value.float().sum() for value in losses.values()]).sum())
    detector.zero_grad(set_to_none=True)
    return _Part(counter.get_total_flops(), kept.bytes)


def derived(detector: SemiSupervisedDetector, images: Images, size: tuple[int, int]) -> IterationWork:
    """Derive the work of an iteration from shapes alone.

    Args:
        detector: on the CPU; it stays as it is.
        images: of each kind.
        size: height and width of every image, pixels.
    """
    settings, parts = detector.settings, detector.parts
    _, held = state_bytes(detector, settings)
    student = _meta(detector.student)
    teacher = _meta(detector.teacher)
    labelled, unlabelled = images
    rois = settings.roi_samples
    first = _dense(student, labelled, size, True) + _head(student, labelled * rois, True)
    if parts.OBSERVES_LABELLED:
        first += _dense(teacher, labelled, size, False, rpn=False)
    whole = first
    if unlabelled:
        proposals = settings.proposals_train if settings.teacher_proposals == "train" else settings.proposals_test
        whole += _dense(teacher, unlabelled, size, False) + _head(teacher, unlabelled * proposals[1], False)
        whole += _dense(student, unlabelled, size, False, rpn=False) if parts.STUDENT_SEES_WEAK else _Part()
        whole += _dense(student, unlabelled, size, True)
        whole += _head(student, unlabelled * rois, True, boxes=False)
        whole += _head(student, unlabelled * rois, True, classes=False)
        whole += _head(teacher, unlabelled * rois, False, boxes=False)  # how much is background
    return IterationWork(whole.flops, first.flops, held + whole.kept, "derived")


def _meta(model: Any) -> Any:
    """Return a copy of a model without content, which is not copied either."""
    empty: dict[int, Any] = {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    for weights in model.parameters():
        empty[id(weights)] = nn.Parameter(torch.empty_like(weights, device="meta"), weights.requires_grad)
    return copy.deepcopy(model, empty).to("meta")


def _dense(model: Any, images: int, size: tuple[int, int], learns: bool, *, rpn: bool = True) -> _Part:
    """Return the work of backbone, FPN and RPN on some images, with the backward pass where the model learns."""
    height, width = (-(-side // _DIVISOR) * _DIVISOR for side in size)
    inputs = torch.empty(images, 3, height, width, device="meta")
    with _watched(model) as (counter, kept), torch.set_grad_enabled(learns):
        features = model.extract_feat(inputs)
        outputs = model.rpn_head(features) if rpn else ()
        if learns:
            _backward([*features, *(level for kind in outputs for level in kind)])
    return _Part(counter.get_total_flops(), kept.bytes)


def _head(model: Any, rois: int, learns: bool, *, classes: bool = True, boxes: bool = True) -> _Part:
    """Return the work of the RoI head's layers on some RoIs, of both last ones or of one."""
    head = model.roi_head.bbox_head
    pooled = torch.empty(rois, head.in_channels * head.roi_feat_area, device="meta", requires_grad=learns)
    with _watched(model) as (counter, kept), torch.set_grad_enabled(learns):
        shared = pooled
        for layer in head.shared_fcs:
            shared = head.relu(layer(shared))
        outputs = [head.fc_cls(shared)] * classes + [head.fc_reg(shared)] * boxes
        if learns:
            _backward(outputs)
    return _Part(counter.get_total_flops(), kept.bytes)


def _backward(outputs: Iterable[Tensor]) -> None:
    """Go back from some outputs, as far as any of them learns."""
    sums = [output.sum() for output in outputs if output.requires_grad]
    if sums:
        torch.autograd.backward(torch.stack(sums).sum())
