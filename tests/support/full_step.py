"""One optimiser step of preset `full` at full image size, in little memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from detectors import CLASSES, GROUPS, view
from kept_memory import give_back

from cissod_bench.contract.parts import Context, Parts
from cissod_bench.contract.presets import preset
from cissod_bench.contract.settings import learning_rate
from cissod_bench.detector.model_config import faster_rcnn
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.training.loop import make_optimiser


@contextmanager
def graph_in_files(folder: Path) -> Iterator[None]:
    """Keep what backward needs in files: for two images of full size it is three gigabytes."""
    names = map(str, count())
    with suppress(AttributeError):  # glibc: give blocks of a megabyte (M_MMAP_THRESHOLD) back as soon as they are free
        ctypes.CDLL(None).mallopt(-3, 2**20)

    def written(tensor: torch.Tensor) -> torch.Tensor | Path:
        if (tensor.requires_grad and tensor.is_leaf) or tensor.numel() < 2**16:  # weights are in memory anyway
            return tensor
        file = folder / f"{next(names)}.npy"
        np.save(file, tensor.detach().numpy())
        return file

    def read(kept: torch.Tensor | Path) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        tensor = torch.from_numpy(np.load(kept))
        kept.unlink()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(written, read):
        yield


def check_full_step(folder: Path) -> None:
    """Make the step with Sec. 4.2's detector from random weights, on 1 + 1 images to fit a small machine.

    The labelled image has the size of the paper, the views of the unlabelled one the least that the preset draws: those
    of a square photo.
    """
    settings = replace(preset("full", task_iterations=180_000), pretrained="", warmup_iterations=0)
    torch.manual_seed(0)
    model = faster_rcnn(settings, len(CLASSES))
    detector = SemiSupervisedDetector(model, Parts(len(CLASSES)), settings, GROUPS, CLASSES)
    assert sum(p.numel() for p in detector.student.parameters()) > 41_000_000
    frozen = [n for n, p in detector.student.named_parameters() if not p.requires_grad]
    assert any("layer1" in name for name in frozen)
    assert not any("layer2.0.conv1" in name for name in frozen)
    large, small = {"height": 800, "width": 1333}, {"height": settings.short_side[0], "width": settings.short_side[0]}
    batch = {"sup": [view(0, 3, **large)], "weak": [view(1, **small)], "strong": [view(1, **small)]}
    watched = {"backbone.layer2.0.conv1.weight", "roi_head.bbox_head.fc_cls.weight"}
    before = {name: p.clone() for name, p in detector.student.named_parameters() if p.requires_grad and name in watched}
    with graph_in_files(folder):
        losses = detector(batch, Context(0, settings.iterations))
    total = torch.stack([value.sum() for value in losses.values()]).sum()
    assert torch.isfinite(total)
    del detector.teacher  # which the step does not need: 165 MB
    give_back()
    total.backward()
    optimiser = make_optimiser(settings, detector.student)  # now, for its averages take as much
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(0, settings, 8)
    optimiser.step()
    after = dict(detector.student.named_parameters())
    assert {name for name, weight in before.items() if not torch.equal(weight, after[name])} == watched
