"""Runs of any method whose detectors are random, ready to be exported: a finished run with its detector exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cissod_bench.catalogue import load_method
from cissod_bench.contract.parts import Context
from cissod_bench.detector.semi_supervised import SemiSupervisedDetector
from cissod_bench.running.assembly import facts_of, sources
from cissod_bench.training.predict import detections
from cissod_bench.using.agreement import Found, found_of
from cissod_bench.using.loaded import LoadedRun, built_from
from cissod_bench.using.photographs import Photographs


def with_method(run: LoadedRun, method: str, variant: str = "", *, stage: int = -1, **settings: Any) -> LoadedRun:
    """The run as if it were of another method and settings, in a stage, with random weights that find something."""
    own = replace(run.plan.settings, **settings)
    plan = replace(run.plan, method=load_method(method), variant=variant, settings=own)
    parts = plan.method.parts(facts_of(plan, *sources(plan, at_hand=False)))
    model = built_from(plan.settings, plan.classes, {})
    torch.manual_seed(5)
    detector = SemiSupervisedDetector(model, parts, plan.settings, plan.groups, plan.classes)
    number = range(len(parts.stages()))[stage]
    parts.enter_stage(detector.teacher, Context(plan.settings.iterations, plan.settings.iterations, stage=number))
    with torch.no_grad():
        head = detector.teacher.roi_head.bbox_head
        head.fc_cls.weight.normal_(0, 2.0)
        head.fc_reg.weight.normal_(0, 0.1)
        if method == "eqlv2":
            head.fc_cls.weight[-1], head.fc_cls.bias[-1] = 0.0, -1.0  # else hardly anything passes its sigmoid
        detector.teacher.rpn_head.rpn_cls.weight.mul_(50.0)  # else all proposals are equally good
        for name, value in detector.teacher.named_parameters():
            if ".decoupling." in name:
                value.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif name.endswith(("conv1.weight", "conv.weight")):
                value.mul_(1.5)
    return replace(run, plan=plan, detector=detector.eval().requires_grad_(False), model=model)


def own_found(run: LoadedRun, images: Photographs) -> list[Found]:
    """What the run's teacher finds."""
    passed = detections(run.detector, images.source, run.plan.settings, range(len(images.source)))
    return [found_of(of_image) for of_image in passed]


def noise(height: int, width: int) -> Any:
    return np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8)
