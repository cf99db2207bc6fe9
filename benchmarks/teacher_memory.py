"""Memory of the teacher's pass behind its proposals at 80, 365 and 1203 classes: four images, 1000 proposals each.

Trap B16: a background score needs no box, and NMS needs the boxes of its candidates only, so nothing may decode R x n
boxes. Beside this project's pass stands one that does, as mmdet's head does where it is given no test settings.
Features and proposals are drawn: weights from nothing would give a handful of proposals. What is measured is what torch
allocates, of the detector of Sec. 4.2, on a CPU: "all" with the RoIs' features, "head" behind the shared layers. Run
``.venv/bin/python benchmarks/teacher_memory.py`` from the root of the repository.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cissod_bench.contract.parts import Context, Parts
from cissod_bench.contract.settings import FULL
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector

CLASSES = (80, 365, 1203)  # MS-COCO, Objects365, LVIS
IMAGES, PROPOSALS = 4, 1000
HEIGHT, WIDTH = 800, 1344


def detector_of(num_classes: int) -> SemiSupervisedDetector:
    """Return the detector of preset ``full`` from random weights, sure of some classes as trained ones are."""
    torch.manual_seed(0)
    names = tuple(f"class {number}" for number in range(num_classes))
    settings = replace(FULL, pretrained="")
    model = faster_rcnn(settings, num_classes)
    detector = SemiSupervisedDetector(model, Parts(num_classes), settings, {"all": names}, names)
    with torch.no_grad():
        detector.teacher.roi_head.bbox_head.fc_cls.weight.normal_(0, 0.6)
        detector.teacher.roi_head.bbox_head.fc_reg.weight.normal_(0, 0.01)
    return detector


def draw_features(detector: SemiSupervisedDetector) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Return features of four images and their proposals."""
    generator = torch.Generator().manual_seed(0)
    sides = [(HEIGHT // stride, WIDTH // stride) for stride in detector.settings.strides[:4]]
    features = tuple(torch.randn(IMAGES, 256, *side, generator=generator) for side in sides)
    corners = torch.rand(IMAGES, PROPOSALS, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) * 0.8
    boxes = torch.cat([corners, corners + 20 + 200 * torch.rand(IMAGES, PROPOSALS, 2, generator=generator)], dim=2)
    return features, list(boxes)


def detect(detector: SemiSupervisedDetector, features: tuple[Tensor, ...], proposals: list[Tensor]) -> int:
    """Return the number of detections of the teacher's pass behind its features and proposals."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    views = [DetDataSample(metainfo={"img_shape": (HEIGHT, WIDTH)}) for _ in proposals]
    detector.teacher.rpn_head.predict = lambda *_, **__: [InstanceData(bboxes=boxes) for boxes in proposals]
    found = detector._detect(detector.teacher, features, views, Context(0, 1, branch="teacher"))
    return sum(len(labels) for _, labels, _ in found)


@contextmanager
def all_boxes_decoded(detector: SemiSupervisedDetector) -> Iterator[None]:
    """Let the detector decode every class's box of every RoI, and take the candidates from them."""
    own: Callable[..., Tensor] = detector._decode
    classes = detector.parts.num_classes

    def decode(model: Any, rois: Tensor, deltas: Tensor, shape: Any, rows: Tensor, labels: Tensor) -> Tensor:
        every, channels = torch.arange(len(rois)).repeat_interleave(classes), torch.arange(classes).repeat(len(rois))
        return own(model, rois, deltas, shape, every, channels).reshape(len(rois), classes, 4)[rows, labels]

    detector._decode = decode  # type: ignore[method-assign]
    try:
        yield
    finally:
        detector._decode = own  # type: ignore[method-assign]


def peak(call: Callable[[], int]) -> tuple[int, float]:
    """Return what a call returns and the most memory it held at once, MiB."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        result = call()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return result, most / 2**20


def main() -> None:
    """Print one line a number of classes."""
    print(f"{IMAGES} images of {WIDTH} x {HEIGHT}, {PROPOSALS} proposals each, torch {torch.__version__}, CPU")
    print(f"{'classes':>7}  {'detections':>10}  {'all':>9}  {'head':>9}  {'head, all decoded':>17}")
    for num_classes in CLASSES:
        detector = detector_of(num_classes)
        features, proposals = draw_features(detector)
        found, whole = peak(lambda: detect(detector, features, proposals))  # noqa: B023 - called at once
        shared = detector._shared(detector.teacher, features, proposals)
        detector._shared = lambda *_: shared  # type: ignore[method-assign]  # noqa: B023
        _, head = peak(lambda: detect(detector, features, proposals))  # noqa: B023
        with all_boxes_decoded(detector):
            _, naive = peak(lambda: detect(detector, features, proposals))  # noqa: B023
        print(f"{num_classes:7}  {found:10}  {whole:5.0f} MiB  {head:5.0f} MiB  {naive:13.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
