"""A run's settings as typed Python: every number of a run is declared here, once.

The numbers of the paper's Sec. 4.2 are the defaults of `Settings`; whatever differs from them in a run is a departure
and goes into its record. Presets: ``presets.py``; ``--set`` and the rules across several settings: ``changes.py``.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from cissod_bench.declared import Declared, declared, documented

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Limit = Annotated[int, Meta(ge=1, le=100_000)]
"""Pixels of a side, boxes of an image."""


@documented
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every number of a run. The defaults are the paper's (Sec. 4.2) and, where it is silent, Soft Teacher's."""

    iterations: Annotated[Count, Meta(description="T, optimiser steps; 0 in a preset takes the task's own")] = 0
    generations: Annotated[Count, Meta(description="N_t, equal parts of the training")] = 10
    milestones: Annotated[
        tuple[Share, ...], Meta(description="shares of T after which the learning rate is divided by 10")
    ] = (0.75, 0.90)
    warmup_iterations: Annotated[int, Meta(ge=0, description="steps of the linear warm-up")] = 500
    warmup_factor: Annotated[Share, Meta(description="the warm-up's first share of the learning rate")] = 1e-3
    labelled_per_gpu: Annotated[Count, Meta(description="labelled images per iteration and GPU")] = 1
    unlabelled_per_gpu: Annotated[int, Meta(ge=0, description="unlabelled images per iteration and GPU")] = 4
    reference_images: Annotated[
        Count, Meta(description="images per iteration for which lr is meant; the rate used is scaled linearly")
    ] = 40  # 8 GPUs x (1 + 4)

    optimiser: Annotated[Literal["sgd", "adamw"], Meta(description="which optimiser trains the student")] = "sgd"
    lr: Annotated[
        float, Meta(ge=1e-12, le=1e3, description="learning rate for reference_images images per iteration")
    ] = 0.01
    momentum: Annotated[Share, Meta(description="momentum of SGD")] = 0.9
    weight_decay: Annotated[float, Meta(ge=0, le=1e3, description="weight decay of the optimiser")] = 1e-4
    clip_norm: Annotated[
        float, Meta(ge=0, le=1e9, description="largest gradient norm; 0 leaves gradients as they are")
    ] = 0.0
    amp: Annotated[
        Literal["off", "bf16", "fp16"],
        Meta(
            description="what layers compute in; fp16 needs a GPU and has a dynamic loss scale, bf16 works on CPUs, too"
        ),
    ] = "fp16"

    unsup_weight: Annotated[
        float, Meta(ge=0, le=1e6, description="lambda_u, weight of all losses on unlabelled images")
    ] = 4.0
    unsup_start: Annotated[
        Share,
        Meta(description='share of T before which unlabelled images are left out ("burn-in"); the paper has none'),
    ] = 0.0
    teacher_momentum: Annotated[Share, Meta(description="the teacher's share in its update")] = 0.999
    teacher_ramp: Annotated[
        bool, Meta(description="whether the teacher's momentum rises from 0 as 1 - 1 / (iteration + 1)")
    ] = True
    theta: Annotated[Share, Meta(description="threshold on classification pseudo labels, score > theta")] = 0.9
    initial_threshold: Annotated[
        Share, Meta(description="detections at or below this score never become pseudo labels")
    ] = 0.5
    rpn_threshold: Annotated[Share, Meta(description="threshold on the RPN's pseudo labels")] = 0.9
    box_threshold: Annotated[
        float, Meta(ge=0, le=1e6, description="box pseudo labels need a localisation uncertainty below it")
    ] = 0.02
    jitter_times: Annotated[
        int, Meta(ge=2, le=1000, description="jittered copies per box, from which its uncertainty is measured")
    ] = 10
    jitter_scale: Annotated[
        float, Meta(ge=0, le=10, description="standard deviation of the jitter as a share of the box's side")
    ] = 0.06

    backbone: Annotated[
        str,
        Meta(
            description="resnet, with depth and base_channels, or timm:NAME, a network of the package timm, with norm="
            "frozen-bn and pretrained weights"
        ),
    ] = "resnet"
    depth: Annotated[Literal[18, 34, 50, 101], Meta(description="layers of the ResNet")] = 50
    base_channels: Annotated[int, Meta(ge=8, le=1024, description="channels of the ResNet's stem")] = 64
    norm: Annotated[
        Literal["frozen-bn", "gn"],
        Meta(description="batch norm that is not trained (pretrained weights) or group norm (from scratch)"),
    ] = "frozen-bn"
    pretrained: Annotated[
        str,
        Meta(
            description="weights of the backbone: a file (of a classifier or a detector), an address, a name that "
            "mmengine knows or package:NAME, which a Python package brings (package:efficientnet-lite0 or -lite2 of "
            "photographs, package:toy-shapes of drawn shapes); empty starts from random ones, with norm=gn and no "
            "frozen stage"
        ),
    ] = "open-mmlab://detectron2/resnet50_caffe"
    pretrained_part: Annotated[
        Literal["backbone", "detector"],
        Meta(
            description="what is taken of those weights: the backbone, or all of a Faster R-CNN of mmdet, classes by "
            "name where both know them"
        ),
    ] = "backbone"
    pretrained_kind: Annotated[
        Literal["auto", "caffe", "torchvision", "scratch"],
        Meta(description="how that backbone sees images; with auto the file tells"),
    ] = "auto"
    frozen_stages: Annotated[
        int,
        Meta(
            ge=-1,
            le=4,
            description="stages of the backbone that are not trained: -1 none, 0 the stem, 1 to 4 all up to the "
            "features of stride 4, 8, 16, 32; of a timm network 4 is the whole",
        ),
    ] = 1
    fpn_channels: Annotated[int, Meta(ge=1, le=4096, description="channels of the FPN and the RPN")] = 256
    fc_channels: Annotated[
        int, Meta(ge=1, le=65536, description="channels of the two shared layers of the RoI head")
    ] = 1024
    roi_size: Annotated[int, Meta(ge=1, le=56, description="side of a RoI's pooled features, bins")] = 7
    roi_sampling: Annotated[
        int, Meta(ge=0, le=16, description="RoIAlign's samples per bin and direction; 0 takes as many as the bin spans")
    ] = 0
    shared_boxes: Annotated[
        bool, Meta(description="one box regressor for all classes, which a class with ten boxes needs in a short run")
    ] = False
    roi_finest_side: Annotated[
        int, Meta(ge=1, le=4096, description="RoIs of less than twice this side, pixels, come from the finest level")
    ] = 56
    anchor_scale: Annotated[int, Meta(ge=1, le=64, description="side of an anchor in strides of its level")] = 8
    strides: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=1024)], ...], Meta(description="strides of the FPN's levels, pixels")
    ] = (4, 8, 16, 32, 64)
    rpn_samples: Annotated[int, Meta(ge=1, le=65536, description="anchors per image in the RPN's loss")] = 256
    roi_samples: Annotated[
        int, Meta(ge=1, le=65536, description="RoIs per image in the RoI losses, a quarter of them positive at most")
    ] = 512
    proposals_train: Annotated[
        tuple[Limit, Limit], Meta(description="the student's proposals per image before and after NMS")
    ] = (2000, 1000)
    proposals_test: Annotated[
        tuple[Limit, Limit], Meta(description="proposals per image before and after NMS in scoring")
    ] = (1000, 1000)
    teacher_proposals: Annotated[
        Literal["train", "test"],
        Meta(
            description="limits of the proposals that the teacher's pseudo labels come from: proposals_train (as in "
            "Soft Teacher) or proposals_test (as in mmdet)"
        ),
    ] = "train"
    score_floor: Annotated[Share, Meta(description="detections at or below this score are not kept")] = 0.05
    nms_iou: Annotated[
        Share, Meta(description="overlap above which the worse of two boxes of the same class is dropped")
    ] = 0.5
    max_dets: Annotated[Limit, Meta(description="detections per image at most")] = 100

    short_side: Annotated[
        tuple[Limit, Limit], Meta(description="short side in training, pixels, drawn from low to high")
    ] = (400, 1200)
    long_side: Annotated[Limit, Meta(description="largest long side in training and in scoring, pixels")] = 1333
    test_short_side: Annotated[Limit, Meta(description="short side in scoring, pixels")] = 800
    strong_views: Annotated[
        Literal["soft-teacher", "mmdet", "light"],
        Meta(
            description="soft-teacher: its own colours, geometry and erasing, and its colours of labelled images; "
            "mmdet: mmdet's version of them; light: mmdet's colours and erasing alone, for small drawn images"
        ),
    ] = "soft-teacher"
    group_by_aspect: Annotated[
        bool, Meta(description="whether the images of a source in a batch have one orientation")
    ] = True

    workers: Annotated[int, Meta(ge=0, le=256, description="loader processes per rank")] = 5
    test_batch: Annotated[
        int, Meta(ge=1, le=4096, description="images per forward pass in scoring, at most: as many as fit")
    ] = 8
    checkpoint_every: Annotated[Count, Meta(description="iterations between checkpoints")] = 5000
    log_every: Annotated[Count, Meta(description="iterations between lines of log.jsonl")] = 50
    eval_every: Annotated[
        int,
        Meta(ge=0, description="iterations between evaluations while it trains; with 0 it is scored at the end alone"),
    ] = 20_000
    eval_images: Annotated[
        int, Meta(ge=0, description="images of val, always the same ones, that such an evaluation takes; 0 takes all")
    ] = 0
    keep_checkpoints: Annotated[
        int, Meta(ge=0, le=1000, description="older checkpoints that stay beside the last one and the best")
    ] = 0
    best_by: Annotated[
        str,
        Meta(description="column of AP whose best evaluation keeps its checkpoint: all, or a class group of the task"),
    ] = "all"
    tracker: Annotated[
        Literal["none", "tensorboard", "mlflow", "wandb"],
        Meta(
            description="where losses, thresholds, AP and a few pictures are shown beside log.jsonl; its package must "
            "be installed"
        ),
    ] = "none"

    @property
    def images_per_gpu(self) -> int:
        """Images per iteration and GPU, labelled and unlabelled."""
        return self.labelled_per_gpu + self.unlabelled_per_gpu

    @property
    def timm_name(self) -> str:
        """The network of timm that is the backbone, "" where it is a ResNet."""
        scheme, _, name = self.backbone.partition(":")
        return name if scheme == "timm" else ""

    @property
    def backbone_strides(self) -> tuple[int, ...]:
        """Strides of the features that the FPN takes from the backbone, pixels; the others it makes from the last."""
        return tuple(stride for stride in self.strides if stride <= 32)


SETTINGS: Mapping[str, Declared] = types.MappingProxyType(declared(Settings))
"""Name -> what `Settings` declares of it: document, type, range and default."""

FULL = Settings()
"""The paper's numbers, at the task's own T."""


def departures(
    settings: Settings, *, task_iterations: int, world_size: int, images: int | None = None
) -> dict[str, list[Any]]:
    """Return what differs from the paper: setting -> [the paper's value, the value used].

    Args:
        settings: the run's.
        task_iterations: T of the task in the paper.
        world_size: processes.
        images: drawn per iteration and process, where a method leaves a source out.
    """
    paper = dataclasses.asdict(replace(FULL, iterations=task_iterations))
    used = dataclasses.asdict(settings)
    differing = {name: [paper[name], used[name]] for name in paper if paper[name] != used[name]}
    drawn = (settings.images_per_gpu if images is None else images) * world_size
    if drawn != FULL.reference_images:
        differing["images_per_iteration"] = [FULL.reference_images, drawn]
    if learning_rate_for(settings, world_size) != FULL.lr:
        differing["lr_used"] = [FULL.lr, learning_rate_for(settings, world_size)]
    return differing


def learning_rate_for(settings: Settings, world_size: int) -> float:
    """Return the base learning rate, scaled linearly with the images per iteration (Goyal et al., 2017)."""
    return settings.lr * settings.images_per_gpu * world_size / settings.reference_images


def learning_rate(iteration: int, settings: Settings, world_size: int, span: tuple[int, int] | None = None) -> float:
    """Return the learning rate of an iteration: linear warm-up, then / 10 after each milestone (Sec. 4.2).

    Args:
        iteration: optimiser steps done before it.
        settings: the run's.
        world_size: processes.
        span: first and last + 1 iteration of the running stage, whose milestones count from its begin; None is the
            whole run. Only the first stage has a warm-up.
    """
    begin, end = span or (0, settings.iterations)
    base = learning_rate_for(settings, world_size)
    passed = sum(iteration - begin >= share * (end - begin) for share in settings.milestones)
    rate = base * 0.1**passed
    if iteration < settings.warmup_iterations and begin == 0:
        rate *= settings.warmup_factor + (1 - settings.warmup_factor) * iteration / settings.warmup_iterations
    return rate
