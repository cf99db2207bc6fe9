"""mmdet's own SoftTeacher, built as its users do: the process of this side of ``step_time.py``.

Its operators, its allocator and its model are stock: of ours it takes the settings of the detector, and the weights.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from step_work import Batch, Step, Work, serve
from torch import Tensor, nn

from cissod_bench.contract.settings import Settings
from cissod_bench.detector.model_config import faster_rcnn

WEIGHTS = "weights.pth"
OURS = ("cissod_bench.allocator", "cissod_bench.detector.building", "cissod_bench.detector.cpu_operators")
"""What would make this side faster; none of it may be imported here."""


def stock_config(settings: Settings, classes: int) -> ConfigDict:
    """Return the settings of mmdet's SoftTeacher with the preset's detector."""
    model = faster_rcnn(settings, classes)
    return ConfigDict(
        type="SoftTeacher",
        detector=model,
        data_preprocessor=model["data_preprocessor"],
        semi_train_cfg={
            "freeze_teacher": True, "sup_weight": 1.0, "unsup_weight": settings.unsup_weight,
            "pseudo_label_initial_score_thr": settings.initial_threshold, "rpn_pseudo_thr": settings.rpn_threshold,
            "cls_pseudo_thr": settings.theta, "reg_pseudo_thr": settings.box_threshold,
            "jitter_times": settings.jitter_times, "jitter_scale": settings.jitter_scale,
            "min_pseudo_bbox_wh": (1e-2, 1e-2),
        },
        semi_test_cfg={"predict_on": "teacher"},
    )  # fmt: skip


def optimiser_of(settings: Settings, student: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of what is trained."""
    trained = [p for p in student.parameters() if p.requires_grad]
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(trained, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def stock_model(settings: Settings, work: Work, folder: Path) -> Any:
    """Return the model with the weights of the folder."""
    register_all_modules()
    config = stock_config(settings, work.classes)
    if config.detector.backbone.type == "TimmBackbone":  # mmdet has none; ours is timm's network and nothing else
        importlib.import_module("cissod_bench.detector.timm_backbone")
    model = MODELS.build(config)
    weights = torch.load(folder / WEIGHTS, weights_only=True)
    model.student.load_state_dict(weights)
    model.teacher.load_state_dict(weights)
    model.to(work.device)
    model.student.train()
    model.teacher.eval()
    return model


def stock_step(settings: Settings, work: Work, folder: Path) -> Step:
    """Return the step: forward, backward, the optimiser, the teacher's update."""
    model, kind = stock_model(settings, work, folder), torch.device(work.device).type
    optimiser = optimiser_of(settings, model.student)
    hook = MeanTeacherHook(momentum=1 - settings.teacher_momentum)
    amp = kind == "cuda" and str(settings.amp) not in ("False", "off")
    number = torch.bfloat16 if str(settings.amp) == "bf16" else torch.float16
    scaler = torch.amp.GradScaler(kind, enabled=amp and number == torch.float16)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    wrong = [name for name in OURS if name in sys.modules]
    assert not wrong, f"mmdet's process holds {', '.join(wrong)}"

    def step(batch: Batch, iteration: int) -> Tensor:
        inputs, samples = {}, {}
        for branch, views in (("sup", "sup"), ("unsup_teacher", "weak"), ("unsup_student", "strong")):
            data = {name: [view[name] for view in batch[views]] for name in ("inputs", "data_samples")}
            prepared = model.data_preprocessor(data, False)
            inputs[branch], samples[branch] = prepared["inputs"], prepared["data_samples"]
        with torch.autocast(kind, dtype=number, enabled=amp):
            losses = model.loss(inputs, samples)
        total, _ = model.parse_losses(losses)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(total))
        if settings.clip_norm > 0:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        hook.momentum_update(model, hook.momentum)
        return cast(Tensor, total.detach())

    return step


if __name__ == "__main__":
    serve(stock_step, Path(sys.argv[1]), int(sys.argv[2]))
